package kube

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	coordination "k8s.io/client-go/kubernetes/typed/coordination/v1"
	core "k8s.io/client-go/kubernetes/typed/core/v1"
	discovery "k8s.io/client-go/kubernetes/typed/discovery/v1"
	networking "k8s.io/client-go/kubernetes/typed/networking/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
)

// Options say where the API server is and who we are to it. The zero value
// suits a pod that mounts /etc/kubernetes of its node, and a user with a
// kubeconfig.
type Options struct {
	Servers    []string // of the API server, tried first: host, host:port or URL; those of $FAIRLEAD_APISERVERS are added
	Kubeconfig string   // if set, all is taken from it, as kubectl does
	StateDir   string   // keeps the addresses of API servers over restarts; empty: nowhere
	UserAgent  string   // "fairlead" if empty

	// Credentials is the directory of a service account's token and ca.crt.
	// Empty means where Kubernetes mounts it; if that is not there,
	// kubectl's rules apply.
	Credentials string
	// KubeletConfigs are kubeconfigs of the node, from which the address of the
	// API server is taken. Empty means the places where distributions have them.
	KubeletConfigs []string
}

const serversVariable = "FAIRLEAD_APISERVERS" // comma separated

const serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount"

// Client is a connection to the API server. Requests find a server that works
// each time the connection is lost.
type Client struct {
	core         core.CoreV1Interface
	discovery    discovery.DiscoveryV1Interface
	networking   networking.NetworkingV1Interface
	coordination coordination.CoordinationV1Interface
	fairlead     rest.Interface

	nodes, pods, services, slices, hosts, policies sparseClient
	ingresses, entries                             sparseClient // of gateways
	clusterPolicies, kinds                         rest.Interface
	metadata                                       rest.Interface // of core objects

	servers *servers     // nil with a kubeconfig
	config  *rest.Config // as it was connected

	clock     *clock
	publisher publisher
}

// Connect prepares a client. It does not wait for the network: requests do. An
// error means that what is on disk does not say how to connect.
func Connect(o Options) (*Client, error) {
	config, servers, err := o.config()
	if err != nil {
		return nil, err
	}
	config.UserAgent = o.UserAgent
	if config.UserAgent == "" {
		config.UserAgent = "fairlead"
	}
	// A node asks little, but nothing that it asks may queue behind the rest.
	config.QPS, config.Burst = 50, 100
	return newClient(config, servers)
}

func (o Options) config() (*rest.Config, *servers, error) {
	credentials := o.Credentials
	if credentials == "" {
		credentials = serviceAccount
	}
	if o.Kubeconfig == "" {
		_, err := os.Stat(filepath.Join(credentials, "token"))
		if err == nil || o.Credentials != "" {
			return o.podConfig(credentials)
		}
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.Kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, nil, errors.New("no cluster is configured: give --kubeconfig or set KUBECONFIG")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	return config, nil, nil
}

// podConfig is for a pod: its own credentials, but the node's way to the API
// server.
func (o Options) podConfig(credentials string) (*rest.Config, *servers, error) {
	s := &servers{
		configured:  append(o.Servers, strings.Split(os.Getenv(serversVariable), ",")...),
		kubeconfigs: o.KubeletConfigs,
		tls:         tlsFromCA(filepath.Join(credentials, "ca.crt")),
	}
	if len(s.kubeconfigs) == 0 {
		s.kubeconfigs = []string{
			"/etc/kubernetes/kubelet.conf", // kubeadm
			"/var/lib/kubelet/kubeconfig",
			"/var/lib/rancher/k3s/agent/kubelet.kubeconfig",
			"/var/lib/rancher/rke2/agent/kubelet.kubeconfig",
		}
	}
	if o.StateDir != "" {
		s.path = filepath.Join(o.StateDir, "apiservers.json")
	}
	transport := &http.Transport{
		DialTLSContext:      s.dial,
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 4,
		IdleConnTimeout:     90 * time.Second,
		// A server that has vanished is found out by a ping: TCP would take
		// 15 minutes (tcp_retries2) to give up on a watch.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second},
	}
	return &rest.Config{
		Host:            "https://" + serverName,
		Transport:       transport,
		BearerTokenFile: filepath.Join(credentials, "token"),
	}, s, nil
}

func newClient(config *rest.Config, servers *servers) (*Client, error) {
	wrap := func(err error) error { return fmt.Errorf("preparing the connection to the API server: %w", err) }
	clock := &clock{}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return &dated{next, clock} })
	transport, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, wrap(err)
	}
	typed := rest.CopyConfig(config)
	typed.ContentType = runtime.ContentTypeProtobuf
	typed.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	c := &Client{servers: servers, config: config, clock: clock}
	if c.core, err = core.NewForConfigAndClient(typed, transport); err != nil {
		return nil, wrap(err)
	}
	if c.discovery, err = discovery.NewForConfigAndClient(typed, transport); err != nil {
		return nil, wrap(err)
	}
	if c.networking, err = networking.NewForConfigAndClient(typed, transport); err != nil {
		return nil, wrap(err)
	}
	if c.coordination, err = coordination.NewForConfigAndClient(typed, transport); err != nil {
		return nil, wrap(err)
	}
	if err := c.readSparsely(typed, transport); err != nil {
		return nil, wrap(err)
	}
	if c.metadata, err = metadataClient(typed, transport); err != nil {
		return nil, wrap(err)
	}
	if c.fairlead, err = customClient(v1alpha1.GroupVersion(), config, transport); err != nil {
		return nil, wrap(err)
	}
	if c.clusterPolicies, err = customClient(schema.GroupVersion(v1alpha2.GroupVersion), config, transport); err != nil {
		return nil, wrap(err)
	}
	if c.kinds, err = customClient(kindsVersion, config, transport); err != nil {
		return nil, wrap(err)
	}
	return c, nil
}

// kindsVersion is that of CustomResourceDefinitions, of which the names are read.
var kindsVersion = schema.GroupVersion{Group: "apiextensions.k8s.io", Version: "v1"}

// customClient is for kinds that a CustomResourceDefinition has brought, and for
// those definitions.
func customClient(version schema.GroupVersion, config *rest.Config, transport *http.Client) (rest.Interface, error) {
	config = rest.CopyConfig(config)
	config.APIPath, config.GroupVersion = "/apis", &version
	config.NegotiatedSerializer = serializer.NewCodecFactory(newScheme()).WithoutConversion()
	return rest.RESTClientForConfigAndClient(config, transport)
}

func (c *Client) readSparsely(config *rest.Config, transport *http.Client) (err error) {
	if c.nodes, err = newSparseClient(sparseNodes, config, transport); err != nil {
		return err
	}
	if c.pods, err = newSparseClient(sparsePods, config, transport); err != nil {
		return err
	}
	if c.services, err = newSparseClient(sparseServices, config, transport); err != nil {
		return err
	}
	if c.slices, err = newSparseClient(sparseSlices, config, transport); err != nil {
		return err
	}
	if c.hosts, err = newSparseClient(sparseHosts, config, transport); err != nil {
		return err
	}
	if c.policies, err = newSparseClient(sparsePolicies, config, transport); err != nil {
		return err
	}
	if c.ingresses, err = newSparseClient(sparseIngresses, config, transport); err != nil {
		return err
	}
	c.entries, err = newSparseClient(sparseEntries, config, transport)
	return err
}

func newScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	// These return nil always.
	_ = v1alpha1.AddToScheme(scheme)
	_ = v1alpha2.Install(scheme)
	scheme.AddKnownTypeWithName(kindsVersion.WithKind("CustomResourceDefinition"), &metav1.PartialObjectMetadata{})
	scheme.AddKnownTypeWithName(kindsVersion.WithKind("CustomResourceDefinitionList"), &metav1.PartialObjectMetadataList{})
	metav1.AddToGroupVersion(scheme, kindsVersion)
	return scheme
}

// IsNotFound tells whether the API server has no such object, or no such kind.
func IsNotFound(err error) bool { return apierrors.IsNotFound(err) }

// IsForbidden tells whether the user may not do what was asked for.
func IsForbidden(err error) bool { return apierrors.IsForbidden(err) }

// refusal is how an API server says whom it forbids what: verb, resource, API group, and
// the namespace, if the user was to have the right in one.
var refusal = regexp.MustCompile(`User ".*" cannot (\S+) resource "([^"]+)" in API group "([^"]*)"(?: in the namespace "([^"]+)"| at the cluster scope)?`)

// Forbidden says who may not do what, without the name of the object, and which right is
// lacking, such as "list nodes"; that is empty if the error does not say it.
func Forbidden(err error) (why, right string) {
	parts := refusal.FindStringSubmatch(err.Error())
	if parts == nil {
		return err.Error(), ""
	}
	right = parts[1] + " " + parts[2]
	if parts[3] != "" {
		right += "." + parts[3]
	}
	if parts[4] != "" {
		right += " in namespace " + parts[4]
	}
	return parts[0], right
}

// IsOfContent tells whether an error is about what was to be written, and not about who
// writes it, or where: others may be written all the same.
func IsOfContent(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsRequestEntityTooLargeError(err)
}

// IsOfObject tells whether an error is about the one object that was written: it is
// another by now, its namespace ends or has a quota, or an admission webhook does not
// like it. Others may be written all the same.
func IsOfObject(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) ||
		apierrors.IsNotFound(err) || apierrors.IsRequestEntityTooLargeError(err)
}
