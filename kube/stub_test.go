package kube

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/fairlead-net/fairlead/model"
)

// stub is an API server: collections of objects with get, list, create, update
// and watch, as the wire has them. It validates nothing.
type stub struct {
	t      testing.TB
	server *httptest.Server
	ca     []byte // PEM

	mu        sync.Mutex
	revision  int
	objects   map[string]map[string]any // by path
	events    []stubEvent
	oldest    int           // watches from before get 410 Gone
	changed   chan struct{} // closed and replaced at each event
	missing   map[string]bool
	forbidden map[string]bool
	protobuf  bool // is what Kubernetes' own kinds are sent in, not JSON
	noStreams bool // sendInitialEvents is refused, as before Kubernetes 1.32
	requests  []string
	patches   []string            // QUERY BODY of each; they change nothing
	answered  func(*http.Request) // nil, or called of each before its answer has ended
	ahead     time.Duration       // of this machine's clock
	sent      int                 // Secrets by watches that had what is in them
}

type stubEvent struct {
	revision   int
	collection string
	kind       string
	object     map[string]any
}

func newStub(t testing.TB) *stub {
	s := &stub{t: t, forbidden: map[string]bool{}, objects: map[string]map[string]any{}, changed: make(chan struct{}), missing: map[string]bool{clusterPoliciesPath: true}}
	certificate, ca := issue(t, serverName)
	s.ca = ca
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	s.server.EnableHTTP2 = true
	s.server.StartTLS()
	t.Cleanup(s.server.Close)
	return s
}

// issue makes a certificate that is its own authority.
func issue(t testing.TB, name string) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// client connects as a pod does.
func (s *stub) client(o Options) *Client {
	s.t.Helper()
	o.Credentials = s.t.TempDir()
	for name, content := range map[string][]byte{"token": []byte("secret"), "ca.crt": s.ca} {
		if err := os.WriteFile(filepath.Join(o.Credentials, name), content, 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	if o.Servers == nil {
		o.Servers = []string{s.server.URL}
	}
	client, err := Connect(o)
	if err != nil {
		s.t.Fatal(err)
	}
	return client
}

const (
	nodesPath        = "/api/v1/nodes"
	podsPath         = "/api/v1/pods"
	networksPath     = "/apis/fairlead.io/v1alpha1/networks"
	nodeNetworksPath = "/apis/fairlead.io/v1alpha1/nodenetworks"
	servicesPath     = "/api/v1/services"
	slicesPath       = "/apis/discovery.k8s.io/v1/endpointslices"
	cidrsPath        = "/apis/networking.k8s.io/v1/servicecidrs"

	namespacesPath      = "/api/v1/namespaces"
	policiesPath        = "/apis/networking.k8s.io/v1/networkpolicies"
	ingressesPath       = "/apis/networking.k8s.io/v1/ingresses"
	kindsPath           = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
	clusterPoliciesPath = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies"
)

// put creates or replaces an object given as YAML-like JSON.
func (s *stub) put(collection, text string) {
	s.t.Helper()
	object := map[string]any{}
	if err := json.Unmarshal([]byte(text), &object); err != nil {
		s.t.Fatalf("%v in %s", err, text)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store(collection, object)
}

func (s *stub) store(collection string, object map[string]any) {
	metadata := object["metadata"].(map[string]any)
	path := collection + "/" + metadata["name"].(string)
	kind := "MODIFIED"
	if s.objects[path] == nil {
		kind = "ADDED"
	}
	s.revision++
	metadata["resourceVersion"] = strconv.Itoa(s.revision)
	s.objects[path] = object
	s.emit(stubEvent{s.revision, collection, kind, object})
}

func (s *stub) remove(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	object := s.objects[path]
	delete(s.objects, path)
	s.revision++
	s.emit(stubEvent{s.revision, path[:strings.LastIndex(path, "/")], "DELETED", object})
}

func (s *stub) emit(event stubEvent) {
	s.events = append(s.events, event)
	close(s.changed)
	s.changed = make(chan struct{})
}

// forget removes an object so that no watch is told: all connections break,
// and the history is gone when they come back.
func (s *stub) forget(path string) {
	s.mu.Lock()
	delete(s.objects, path)
	s.revision++
	s.events, s.oldest = nil, s.revision
	s.mu.Unlock()
	s.server.CloseClientConnections()
}

// forbid has a path answered with 403, or not any more.
func (s *stub) forbid(path string, is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forbidden[path] = is
}

func (s *stub) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+r.URL.Path)
	collection := r.URL.Path
	gone, forbidden := s.missing[collection], s.forbidden[collection]
	_, isObject := s.objects[collection]
	if s.answered != nil {
		defer s.answered(r)
	}
	w.Header().Set("Date", time.Now().Add(s.ahead).UTC().Format(http.TimeFormat))
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if s.protobuf && r.Method == http.MethodGet && !strings.HasPrefix(collection, "/apis/fairlead.io/") && collection != clusterPoliciesPath && collection != kindsPath {
		w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
		w = protobufWriter{w, s.t}
	}
	switch {
	case r.Header.Get("Authorization") != "Bearer secret":
		refuse(w, http.StatusUnauthorized, "Unauthorized")
	case forbidden:
		refuse(w, http.StatusForbidden, "Forbidden")
	case gone:
		refuse(w, http.StatusNotFound, "NotFound")
	case r.Method == http.MethodPost || r.Method == http.MethodPut:
		s.write(w, r)
	case r.Method == http.MethodPatch:
		s.patch(w, r)
	case r.URL.Query().Get("watch") != "":
		s.watch(w, r)
	case isObject:
		s.mu.Lock()
		defer s.mu.Unlock()
		reply(w, s.objects[collection])
	case isCollection(collection):
		s.mu.Lock()
		defer s.mu.Unlock()
		kind, version := kindOf(collection)
		reply(w, map[string]any{
			"kind": kind + "List", "apiVersion": version, "items": s.list(collection),
			"metadata": map[string]any{"resourceVersion": strconv.Itoa(s.revision)},
		})
	default:
		refuse(w, http.StatusNotFound, "NotFound")
	}
}

func isCollection(path string) bool {
	switch path[strings.LastIndex(path, "/")+1:] {
	case "nodes", "pods", "networks", "nodenetworks", "services", "endpointslices", "servicecidrs",
		"namespaces", "networkpolicies", "clusternetworkpolicies", "customresourcedefinitions", "ingresses", "ingressclasses", "secrets":
		return true
	}
	return false
}

func (s *stub) list(collection string) []any {
	items := []any{}
	for path, object := range s.objects {
		if path[:strings.LastIndex(path, "/")] == collection {
			items = append(items, object)
		}
	}
	return items
}

func (s *stub) write(w http.ResponseWriter, r *http.Request) {
	object, err := decode(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	path, collection := strings.TrimSuffix(r.URL.Path, "/status"), r.URL.Path
	if r.Method == http.MethodPut {
		collection = path[:strings.LastIndex(path, "/")]
		old := s.objects[path]
		if old == nil {
			refuse(w, http.StatusNotFound, "NotFound")
			return
		}
		given := object["metadata"].(map[string]any)["resourceVersion"]
		if given != old["metadata"].(map[string]any)["resourceVersion"] {
			refuse(w, http.StatusConflict, "Conflict")
			return
		}
	}
	s.store(collection, object)
	reply(w, object)
}

// patch notes what is asked, and answers with what there is.
func (s *stub) patch(w http.ResponseWriter, r *http.Request) {
	content, err := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	object := s.objects[strings.TrimSuffix(r.URL.Path, "/status")]
	if s.forbidden["409 "+r.URL.Path] {
		refuse(w, http.StatusConflict, "Conflict")
		return
	}
	if err != nil || object == nil {
		refuse(w, http.StatusNotFound, "NotFound")
		return
	}
	s.patches = append(s.patches, r.URL.RawQuery+" "+string(content))
	reply(w, object)
}

// decode reads what a client sends: JSON, or protobuf for Kubernetes' own kinds.
func decode(r *http.Request) (map[string]any, error) {
	content, err := io.ReadAll(r.Body)
	if err == nil && r.Header.Get("Content-Type") == runtime.ContentTypeProtobuf {
		var typed runtime.Object
		if typed, _, err = scheme.Codecs.UniversalDeserializer().Decode(content, nil, nil); err == nil {
			content, err = json.Marshal(typed)
		}
	}
	object := map[string]any{}
	if err == nil {
		err = json.Unmarshal(content, &object)
	}
	return object, err
}

func (s *stub) watch(w http.ResponseWriter, r *http.Request) {
	query, collection := r.URL.Query(), r.URL.Path
	partly := strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadata")
	send := func(kind string, object any) {
		if whole, ok := object.(map[string]any); ok && partly {
			object = map[string]any{"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": whole["metadata"]}
		} else if collection == "/api/v1/secrets" {
			s.sent++
		}
		reply(w, map[string]any{"type": kind, "object": object})
	}
	s.mu.Lock()
	from, _ := strconv.Atoi(query.Get("resourceVersion"))
	switch {
	case query.Get("sendInitialEvents") != "" && s.noStreams:
		s.mu.Unlock()
		refuse(w, http.StatusUnprocessableEntity, "Invalid")
		return
	case query.Get("sendInitialEvents") != "":
		items := s.list(collection)
		from = s.revision
		kind, version := kindOf(collection)
		for _, item := range items {
			send("ADDED", item)
		}
		send("BOOKMARK", map[string]any{"kind": kind, "apiVersion": version, "metadata": map[string]any{
			"resourceVersion": strconv.Itoa(from),
			"annotations":     map[string]any{"k8s.io/initial-events-end": "true"},
		}})
	case from < s.oldest:
		s.mu.Unlock()
		refuse(w, http.StatusGone, "Expired")
		return
	}
	s.mu.Unlock()
	for {
		w.(http.Flusher).Flush()
		s.mu.Lock()
		changed := s.changed
		for _, event := range s.events {
			if event.revision > from && event.collection == collection {
				send(event.kind, event.object)
				from = event.revision
			}
		}
		s.mu.Unlock()
		w.(http.Flusher).Flush()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

func kindOf(collection string) (kind, version string) {
	switch collection {
	case nodesPath:
		return "Node", "v1"
	case podsPath, "/api/v1/namespaces/kube-system/pods":
		return "Pod", "v1"
	case networksPath:
		return "Network", "fairlead.io/v1alpha1"
	case nodeNetworksPath:
		return "NodeNetwork", "fairlead.io/v1alpha1"
	case servicesPath, "/api/v1/namespaces/kube-system/services":
		return "Service", "v1"
	case ingressesPath:
		return "Ingress", "networking.k8s.io/v1"
	case "/apis/networking.k8s.io/v1/ingressclasses":
		return "IngressClass", "networking.k8s.io/v1"
	case "/api/v1/secrets":
		return "Secret", "v1"
	case cidrsPath:
		return "ServiceCIDR", "networking.k8s.io/v1"
	case namespacesPath:
		return "Namespace", "v1"
	case policiesPath:
		return "NetworkPolicy", "networking.k8s.io/v1"
	case kindsPath:
		return "CustomResourceDefinition", "apiextensions.k8s.io/v1"
	case clusterPoliciesPath:
		return "ClusterNetworkPolicy", "policy.networking.k8s.io/v1alpha2"
	default:
		return "EndpointSlice", "discovery.k8s.io/v1"
	}
}

func reply(w http.ResponseWriter, object any) {
	_ = json.NewEncoder(w).Encode(object) // the client may have gone
}

func refuse(w http.ResponseWriter, code int, reason string) {
	w.WriteHeader(code)
	reply(w, map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason})
}

// count is how many requests there were of this kind.
func (s *stub) count(request string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	count := 0
	for _, made := range s.requests {
		if made == request {
			count++
		}
	}
	return count
}

func stubNode(name, rest string) string {
	return fmt.Sprintf(`{"kind": "Node", "apiVersion": "v1", "metadata": {"name": %q, "uid": "uid-of-%s"}, %s}`, name, name, rest)
}

func stubPod(name, rest string) string {
	return fmt.Sprintf(`{"kind": "Pod", "apiVersion": "v1", "metadata": {"namespace": "default", "name": %q}, %s}`, name, rest)
}

func stubNetwork(spec string) string {
	return fmt.Sprintf(`{"kind": "Network", "apiVersion": "fairlead.io/v1alpha1", "metadata": {"name": "default"}, "spec": {%s}}`, spec)
}

// until waits for a snapshot of which is holds.
func until(t *testing.T, feed *model.Feed, what string, is func(*model.Snapshot) bool) *model.Snapshot {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		snapshot, changed := feed.Latest()
		if is(snapshot) {
			return snapshot
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("%s: not seen; the snapshot is %+v", what, snapshot)
		}
	}
}
