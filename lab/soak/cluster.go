package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
)

// cluster asks the API server, without a kubectl for each question.
type cluster struct {
	server string
	client *http.Client
}

// apiTimeout is how long an answer may take.
const apiTimeout = 3 * time.Second

func openCluster(kubeconfig string) (*cluster, error) {
	text, err := os.ReadFile(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig of the lab: %w", err)
	}
	var config struct {
		Clusters []struct {
			Cluster struct {
				Server string `json:"server"`
				CA     []byte `json:"certificate-authority-data"`
			} `json:"cluster"`
		} `json:"clusters"`
		Users []struct {
			User struct {
				Certificate []byte `json:"client-certificate-data"`
				Key         []byte `json:"client-key-data"`
			} `json:"user"`
		} `json:"users"`
	}
	if err := yaml.Unmarshal(text, &config); err != nil || len(config.Clusters) != 1 || len(config.Users) != 1 {
		return nil, fmt.Errorf("reading the kubeconfig of the lab: it has not one cluster and one user: %w", err)
	}
	user := config.Users[0].User
	pair, err := tls.X509KeyPair(user.Certificate, user.Key)
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig of the lab: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(config.Clusters[0].Cluster.CA)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}}
	return &cluster{
		server: config.Clusters[0].Cluster.Server,
		client: &http.Client{Transport: transport, Timeout: apiTimeout},
	}, nil
}

// get reads an object or a list.
func (c *cluster) get(ctx context.Context, path string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.server+path, nil)
	if err != nil {
		return fmt.Errorf("asking the API server: %w", err)
	}
	response, err := c.client.Do(request)
	if err != nil {
		return fmt.Errorf("asking the API server: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusNotFound {
		return errAbsent
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("asking the API server for %s: %s", path, response.Status)
	}
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		return fmt.Errorf("reading the answer of the API server for %s: %w", path, err)
	}
	return nil
}

// errAbsent says that there is no such object.
var errAbsent = errors.New("there is no such object")

// pod is what a soak looks at of one.
type pod struct {
	Metadata struct {
		Namespace string     `json:"namespace"`
		Name      string     `json:"name"`
		UID       string     `json:"uid"`
		Deleted   *time.Time `json:"deletionTimestamp"`
	} `json:"metadata"`
	Spec struct {
		Node        string `json:"nodeName"`
		HostNetwork bool   `json:"hostNetwork"`
	} `json:"spec"`
	Status struct {
		Phase  string `json:"phase"`
		PodIPs []struct {
			IP netip.Addr `json:"ip"`
		} `json:"podIPs"`
		Conditions []struct {
			Type   string `json:"type"`
			Status string `json:"status"`
		} `json:"conditions"`
		ContainerStatuses []struct {
			State struct {
				Running *struct{} `json:"running"`
			} `json:"state"`
		} `json:"containerStatuses"`
	} `json:"status"`
}

// name is the pod's, as in the alias of its device.
func (p *pod) name() string { return p.Metadata.Namespace + "/" + p.Metadata.Name }

func (p *pod) addresses() (all []netip.Addr) {
	for _, ip := range p.Status.PodIPs {
		all = append(all, ip.IP)
	}
	return all
}

func (p *pod) ready() bool {
	for _, c := range p.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status == "True"
		}
	}
	return false
}

// ended says that it runs no more and never will.
func (p *pod) ended() bool { return p.Status.Phase == "Succeeded" || p.Status.Phase == "Failed" }

// running says that it should be in the network as its status tells.
func (p *pod) running() bool {
	if p.Spec.HostNetwork || p.Metadata.Deleted != nil || p.Status.Phase != "Running" || len(p.Status.PodIPs) == 0 {
		return false
	}
	for _, c := range p.Status.ContainerStatuses {
		if c.State.Running == nil {
			return false
		}
	}
	return p.ready()
}

// service is what a soak looks at of one.
type service struct {
	Metadata struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec struct {
		Addresses []netip.Addr `json:"clusterIPs"`
		Ports     []struct {
			Port     uint16 `json:"port"`
			Protocol string `json:"protocol"`
		} `json:"ports"`
	} `json:"spec"`
}

// view is what the API server said at one time.
type view struct {
	pods     []pod
	services []service                     // of the soak's namespace
	named    map[netip.Addr]bool           // as serving, by an EndpointSlice of the soak's namespace
	problems map[string][]v1alpha1.Problem // by the node that tells them; "" for those of the Network
	nodes    []string                      // that have a NodeNetwork
}

// slice is what a soak looks at of an EndpointSlice.
type slice struct {
	Endpoints []struct {
		Addresses  []netip.Addr `json:"addresses"`
		Conditions struct {
			Serving bool `json:"serving"`
		} `json:"conditions"`
	} `json:"endpoints"`
}

type list[T any] struct {
	Items []T `json:"items"`
}

// look asks for all that is looked at each second.
func (c *cluster) look(ctx context.Context) (*view, error) {
	var pods list[pod]
	var found list[service]
	var endpoints list[slice]
	var nodes v1alpha1.NodeNetworkList
	var network v1alpha1.Network
	for _, question := range []struct {
		path string
		into any
	}{
		{"/api/v1/pods", &pods},
		{"/api/v1/namespaces/" + namespace + "/services", &found},
		{"/apis/discovery.k8s.io/v1/namespaces/" + namespace + "/endpointslices", &endpoints},
		{"/apis/fairlead.io/v1alpha1/nodenetworks", &nodes},
		{"/apis/fairlead.io/v1alpha1/networks/default", &network},
	} {
		if err := c.get(ctx, question.path, question.into); err != nil && !errors.Is(err, errAbsent) {
			return nil, err
		}
	}
	v := &view{
		pods: pods.Items, services: found.Items, named: map[netip.Addr]bool{},
		problems: map[string][]v1alpha1.Problem{"": network.Status.Problems},
	}
	for _, s := range endpoints.Items {
		for _, e := range s.Endpoints {
			for _, addr := range e.Addresses {
				v.named[addr] = v.named[addr] || e.Conditions.Serving
			}
		}
	}
	for _, node := range nodes.Items {
		v.nodes = append(v.nodes, node.Name)
		v.problems[node.Name] = node.Status.Problems
	}
	return v, nil
}
