package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"
	apps "k8s.io/client-go/kubernetes/typed/apps/v1"
	authorization "k8s.io/client-go/kubernetes/typed/authorization/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-net/fairlead/model"
)

// Survey is what a cluster is before Fairlead is installed.
type Survey struct {
	Version    string // of the API server, such as v1.36.3
	Nodes      []NodeSurvey
	DaemonSets []string // namespace/name, of all namespaces
	KubeProxy  string   // its mode; "none" if it was not found, "unknown" if its configuration could not be read
	Lacking    []string // what the user may not do and has to, in words
}

// NodeSurvey is one node.
type NodeSurvey struct {
	Node    *model.Node
	OS      string // linux
	Kernel  string // such as 6.1.0-30-amd64
	Runtime string // such as containerd://2.1.0
	NoAgent bool   // it has a label by which agents stay away
	Silent  bool   // its kubelet has said nothing for a while: it is off, or cut off
}

// Survey asks the API server. It needs no more rights than to list nodes and
// DaemonSets.
func (c *Client) Survey(ctx context.Context) (*Survey, error) {
	s := &Survey{}
	text, err := c.core.RESTClient().Get().AbsPath("/version").DoRaw(ctx)
	var info version.Info
	if err == nil {
		err = json.Unmarshal(text, &info)
	}
	if err != nil {
		return nil, fmt.Errorf("ask the API server for its version: %w", err)
	}
	s.Version = info.GitVersion
	nodes, err := c.core.Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	for i := range nodes.Items {
		node := &nodes.Items[i]
		converted := convertNode(node).value
		s.Nodes = append(s.Nodes, NodeSurvey{
			Node: converted, OS: node.Status.NodeInfo.OperatingSystem, Kernel: node.Status.NodeInfo.KernelVersion,
			Runtime: node.Status.NodeInfo.ContainerRuntimeVersion, NoAgent: converted.WithoutAgent() != "",
			Silent: nodeSilent(node),
		})
	}
	sets, err := apps.NewForConfig(c.config)
	if err != nil {
		return nil, err
	}
	all, err := sets.DaemonSets(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list DaemonSets: %w", err)
	}
	s.KubeProxy = "none"
	for i := range all.Items {
		s.DaemonSets = append(s.DaemonSets, all.Items[i].Namespace+"/"+all.Items[i].Name)
		if all.Items[i].Name == "kube-proxy" {
			s.KubeProxy = "unknown"
		}
	}
	if proxy, err := c.core.ConfigMaps(SystemNamespace).Get(ctx, "kube-proxy", metav1.GetOptions{}); err == nil {
		s.KubeProxy = proxyMode(proxy)
	}
	s.Lacking, err = c.lacking(ctx)
	return s, err
}

// proxyMode reads the ConfigMap that kubeadm makes.
func proxyMode(object *corev1.ConfigMap) string {
	var config struct{ Mode string }
	if yaml.Unmarshal([]byte(object.Data["config.conf"]), &config) != nil {
		return "unknown"
	}
	if config.Mode == "" {
		return "iptables" // its default
	}
	return config.Mode
}

// installs are the rights that installing takes: verb, group, resource, namespace.
var installs = [][4]string{
	{"create", "apiextensions.k8s.io", "customresourcedefinitions", ""},
	{"create", "rbac.authorization.k8s.io", "clusterroles", ""},
	{"escalate", "rbac.authorization.k8s.io", "clusterroles", ""},
	{"create", "admissionregistration.k8s.io", "validatingadmissionpolicies", ""},
	{"create", "apps", "daemonsets", SystemNamespace},
	{"create", "apps", "deployments", SystemNamespace},
	{"create", "rbac.authorization.k8s.io", "roles", metav1.NamespaceDefault},
}

func (c *Client) lacking(ctx context.Context) (words []string, err error) {
	client, err := authorization.NewForConfig(c.config)
	if err != nil {
		return nil, err
	}
	for _, right := range installs {
		answer, err := client.SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
				Verb: right[0], Group: right[1], Resource: right[2], Namespace: right[3],
			}},
		}, metav1.CreateOptions{})
		if apierrors.IsForbidden(err) {
			return []string{"ask what it may do"}, nil
		}
		if err != nil {
			return nil, fmt.Errorf("ask what this user may do: %w", err)
		}
		if !answer.Status.Allowed {
			words = append(words, strings.TrimSpace(right[0]+" "+right[2]+"."+right[1]+" "+right[3]))
		}
	}
	return words, nil
}
