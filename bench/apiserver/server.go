// Package apiserver simulates an API server for benchmarks, on loopback: what agents
// and gateways ask of it, with objects that whoever measures puts in. It is no API
// server for tests of what is right: it validates nothing. A Server may be used
// concurrently.
package apiserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
)

// Server is an API server as far as agents and gateways ask: get, list, create, update and
// watch, initial events and bookmarks included, over TLS and HTTP/2. It validates
// nothing and forgets nothing until it is told to.
type Server struct {
	Authority []byte         // of its certificate, PEM
	Address   netip.AddrPort // where it listens
	Requests  Tally          // by verb and resource; connections are "connect"
	Watches   atomic.Int64   // that are open and have all that there is

	config *tls.Config
	http   *http.Server

	mu          sync.Mutex
	revision    int
	collections map[string]*collection // by path
	changed     chan struct{}          // closed and replaced at each event
	open        map[net.Conn]struct{}
}

// collection is all objects of a resource.
type collection struct {
	resource string
	version  schema.GroupVersion
	empty    runtime.Object // what a bookmark is made of
	list     runtime.Object // what a list is made of; nil: a list is not answered
	wire     wire

	items  map[string]*item
	events []event // by revision
	oldest int     // watches from before get 410 Gone
}

// item is an object as it is written.
type item struct {
	object []byte
	added  []byte // a frame of a watch
}

type event struct {
	revision int
	frame    []byte
}

// Paths of what there is.
const (
	Nodes        = "/api/v1/nodes"
	Pods         = "/api/v1/pods"
	Services     = "/api/v1/services"
	Slices       = "/apis/discovery.k8s.io/v1/endpointslices"
	ServiceCIDRs = "/apis/networking.k8s.io/v1/servicecidrs"
	Namespaces   = "/api/v1/namespaces"
	Policies     = "/apis/networking.k8s.io/v1/networkpolicies"
	Kinds        = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
	Networks     = "/apis/fairlead.io/v1alpha1/networks"
	Reports      = "/apis/fairlead.io/v1alpha1/nodenetworks"
	Ingresses    = "/apis/networking.k8s.io/v1/ingresses"
	Classes      = "/apis/networking.k8s.io/v1/ingressclasses"
	Secrets      = "/api/v1/secrets"
)

// secretMetadata is where those are who watch Secrets without what they have.
const secretMetadata = Secrets + metadataOnly

// metadataOnly is appended to the path of a request that asks for nothing else.
const metadataOnly = ";metadata"

// metadataOf is an object without the rest of it.
func metadataOf(o Object) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{Kind: "PartialObjectMetadata", APIVersion: metav1.SchemeGroupVersion.String()},
		ObjectMeta: metav1.ObjectMeta{Namespace: o.GetNamespace(), Name: o.GetName(), ResourceVersion: o.GetResourceVersion()},
	}
}

// Name is whom its certificate is for.
const Name = "kubernetes.default.svc"

// New returns one that listens.
func New() (*Server, error) {
	s := &Server{changed: make(chan struct{}), open: map[net.Conn]struct{}{}, collections: map[string]*collection{}}
	fairlead := v1alpha1.GroupVersion()
	for path, c := range map[string]*collection{
		Nodes:          {resource: "nodes", version: corev1.SchemeGroupVersion, empty: &corev1.Node{}, list: &corev1.NodeList{}},
		Pods:           {resource: "pods", version: corev1.SchemeGroupVersion, empty: &corev1.Pod{}, list: &corev1.PodList{}},
		Services:       {resource: "services", version: corev1.SchemeGroupVersion, empty: &corev1.Service{}, list: &corev1.ServiceList{}},
		Slices:         {resource: "endpointslices", version: discoveryv1.SchemeGroupVersion, empty: &discoveryv1.EndpointSlice{}, list: &discoveryv1.EndpointSliceList{}},
		ServiceCIDRs:   {resource: "servicecidrs", version: networkingv1.SchemeGroupVersion, empty: &networkingv1.ServiceCIDR{}, list: &networkingv1.ServiceCIDRList{}},
		Namespaces:     {resource: "namespaces", version: corev1.SchemeGroupVersion, empty: &corev1.Namespace{}, list: &corev1.NamespaceList{}},
		Policies:       {resource: "networkpolicies", version: networkingv1.SchemeGroupVersion, empty: &networkingv1.NetworkPolicy{}, list: &networkingv1.NetworkPolicyList{}},
		Ingresses:      {resource: "ingresses", version: networkingv1.SchemeGroupVersion, empty: &networkingv1.Ingress{}, list: &networkingv1.IngressList{}},
		Classes:        {resource: "ingressclasses", version: networkingv1.SchemeGroupVersion, empty: &networkingv1.IngressClass{}, list: &networkingv1.IngressClassList{}},
		Secrets:        {resource: "secrets", version: corev1.SchemeGroupVersion, empty: &corev1.Secret{}, list: &corev1.SecretList{}},
		secretMetadata: {resource: "secrets", version: metav1.SchemeGroupVersion, empty: metadataOf(&corev1.Secret{})},
		// That of ClusterNetworkPolicies is not there.
		Kinds: {resource: "customresourcedefinitions", version: schema.GroupVersion{Group: "apiextensions.k8s.io", Version: "v1"}, empty: &metav1.PartialObjectMetadata{
			TypeMeta: metav1.TypeMeta{Kind: "CustomResourceDefinition", APIVersion: "apiextensions.k8s.io/v1"},
		}},
		Networks: {resource: "networks", version: fairlead, empty: &v1alpha1.Network{TypeMeta: TypeOf("Network")}},
		Reports:  {resource: "nodenetworks", version: fairlead, empty: &v1alpha1.NodeNetwork{TypeMeta: TypeOf("NodeNetwork")}},
	} {
		var err error
		if c.wire, err = newWire(c.version == fairlead || path == Kinds); err != nil {
			return nil, err
		}
		c.wire.typed = path == secretMetadata
		c.items = map[string]*item{}
		s.collections[path] = c
	}
	certificate, authority, err := certify(Name)
	if err != nil {
		return nil, err
	}
	s.Authority = authority
	s.config = &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12}
	return s, s.Listen()
}

// TypeOf is the type of a kind of Fairlead's own.
func TypeOf(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{Kind: kind, APIVersion: v1alpha1.GroupVersion().String()}
}

// certify makes a certificate that is its own authority.
func certify(name string) (certificate tls.Certificate, authority []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return certificate, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	certificate = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), err
}

// Listen serves on loopback, at the same address each time.
func (s *Server) Listen() error {
	listener, err := net.Listen("tcp", netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), s.Address.Port()).String())
	if err != nil {
		return fmt.Errorf("serve the API: %w", err)
	}
	s.Address = listener.Addr().(*net.TCPAddr).AddrPort()
	s.http = &http.Server{
		Handler: http.HandlerFunc(s.serve), TLSConfig: s.config,
		ErrorLog: log.New(io.Discard, "", 0), // connections that break, which is what is measured
		ConnState: func(conn net.Conn, state http.ConnState) {
			s.mu.Lock()
			defer s.mu.Unlock()
			switch state {
			case http.StateNew:
				s.Requests.count("connect")
				s.open[conn] = struct{}{}
			case http.StateClosed, http.StateHijacked:
				delete(s.open, conn)
			}
		},
	}
	go func() { _ = s.http.ServeTLS(listener, "", "") }()
	return nil
}

// End is what a server does that goes away: nobody is told.
func (s *Server) End() { _ = s.http.Close() }

// Drop breaks all connections.
func (s *Server) Drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.open {
		_ = conn.Close()
	}
}

// Forget makes every watch that resumes be answered 410 Gone.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision++
	for _, c := range s.collections {
		c.events, c.oldest = nil, s.revision
	}
}

// Object is what is kept of a Kubernetes object.
type Object interface {
	runtime.Object
	metav1.Object
}

// Put creates or replaces an object and tells the watches.
func (s *Server) Put(path string, o Object) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision++
	o.SetResourceVersion(strconv.Itoa(s.revision))
	if path == Secrets {
		if err := s.put(secretMetadata, metadataOf(o)); err != nil {
			return err
		}
	}
	return s.put(path, o)
}

// put is for an object of the present revision.
func (s *Server) put(path string, o Object) error {
	c := s.collections[path]
	key := o.GetNamespace() + "/" + o.GetName()
	kind := watch.Modified
	if c.items[key] == nil {
		kind = watch.Added
	}
	made := &item{}
	var err error
	if made.object, err = c.wire.object(c.version, o); err == nil {
		made.added, err = c.wire.event(watch.Added, made.object)
	}
	frame := made.added
	if err == nil && kind != watch.Added {
		frame, err = c.wire.event(kind, made.object)
	}
	if err != nil {
		return fmt.Errorf("encode %s %s: %w", c.resource, key, err)
	}
	c.items[key] = made
	s.tell(c, frame)
	return nil
}

// Remove deletes an object and tells the watches.
func (s *Server) Remove(path string, o Object) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision++
	o.SetResourceVersion(strconv.Itoa(s.revision))
	if path == Secrets {
		if err := s.remove(secretMetadata, metadataOf(o)); err != nil {
			return err
		}
	}
	return s.remove(path, o)
}

// remove is put's counterpart.
func (s *Server) remove(path string, o Object) error {
	c := s.collections[path]
	content, err := c.wire.object(c.version, o)
	if err != nil {
		return fmt.Errorf("encode %s %s: %w", c.resource, o.GetName(), err)
	}
	frame, err := c.wire.event(watch.Deleted, content)
	delete(c.items, o.GetNamespace()+"/"+o.GetName())
	s.tell(c, frame)
	return err
}

func (s *Server) tell(c *collection, frame []byte) {
	c.events = append(c.events, event{s.revision, frame})
	close(s.changed)
	s.changed = make(chan struct{})
}

// bookmark says that all until a revision was sent.
func (c *collection) bookmark(revision int, initial bool) ([]byte, error) {
	mark := c.empty.DeepCopyObject()
	to, err := meta.Accessor(mark)
	if err != nil {
		return nil, err
	}
	to.SetResourceVersion(strconv.Itoa(revision))
	if initial {
		to.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	content, err := c.wire.object(c.version, mark)
	if err != nil {
		return nil, err
	}
	return c.wire.event(watch.Bookmark, content)
}

// errGone is the answer to a watch whose beginning is forgotten.
var errGone = errors.New("too old resource version")

// Settle forgets the events so far, which is for what was put in before anybody
// watched, and returns how many bytes all objects have on the wire.
func (s *Server) Settle() (bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.collections {
		c.events = nil
		for _, item := range c.items {
			bytes += int64(len(item.added))
		}
	}
	return bytes
}
