package daemon

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/model"
	plan "github.com/fairlead-net/fairlead/plan/gateway"
)

// cluster is a Source in the test's hands.
type cluster struct {
	feed   chan *model.Feed
	synced chan struct{}

	mu      sync.Mutex
	named   model.Map[model.SecretKey, int]
	late    bool // some Secrets are not known yet
	secrets model.Map[model.SecretKey, *model.Secret]
	changed chan struct{}
	unfed   []model.Problem
}

func (c *cluster) Run(ctx context.Context, feed *model.Feed) error {
	c.feed <- feed
	<-ctx.Done()
	return nil
}

func (c *cluster) Synced() <-chan struct{} { return c.synced }

func (c *cluster) Name(named model.Map[model.SecretKey, int]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.named = named
}

func (c *cluster) Secrets() (model.Map[model.SecretKey, *model.Secret], bool, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.secrets, c.late, c.changed
}

func (c *cluster) Problems() []model.Problem {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unfed
}

func (c *cluster) Changed() <-chan struct{} { return nil }

func (c *cluster) put(secret *model.Secret) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.secrets = c.secrets.With(secret.SecretKey, secret)
	close(c.changed)
	c.changed = make(chan struct{})
}

// pemPair is a certificate of a host that ends at some time, with its key.
func pemPair(t *testing.T, host string, until time.Time) map[string][]byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: until, DNSNames: []string{host}}
	made, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"tls.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made}),
		"tls.key": pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}),
	}
}

func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return netip.MustParseAddrPort(listener.Addr().String())
}

// addShop leads shop.example.org to a backend.
func addShop(s *model.Snapshot, at netip.AddrPort) {
	s.Network = model.DefaultNetwork()
	key := model.ServiceKey{Namespace: "shop", Name: "web"}
	s.Services = s.Services.With(key, &model.Service{ServiceKey: key, Ports: []model.ServicePort{{Protocol: model.TCP, Port: 80}}})
	slice := &model.EndpointSlice{
		SliceKey: model.SliceKey(key), Service: key.Name, Ports: []model.EndpointPort{{Protocol: model.TCP, Port: at.Port()}},
		Endpoints: []model.Endpoint{{Address: at.Addr(), Ready: true, Serving: true}},
	}
	s.Slices = s.Slices.With(slice.SliceKey, slice)
	ingress := &model.HTTPIngress{
		IngressKey: model.IngressKey(key), Class: plan.Class, TLS: []model.IngressTLS{{Secret: "pair"}},
		Rules: []model.IngressRule{{Host: "shop.example.org", Paths: []model.IngressPath{{
			Path: "/", Type: model.PathPrefix, Backend: model.IngressBackend{Service: "web", Port: 80},
		}}}},
	}
	s.Ingresses = s.Ingresses.With(ingress.IngressKey, ingress)
}

// TestRun: it listens once it knows all, follows what changes, and says what is
// wrong with a Secret.
func TestRun(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "backend") }))
	t.Cleanup(backend.Close)
	c := &cluster{feed: make(chan *model.Feed, 1), synced: make(chan struct{}), changed: make(chan struct{})}
	var log lockedBuffer
	at := freePort(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- Run(ctx, Config{Source: c, HTTPS: []netip.AddrPort{at}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	feed := <-c.feed
	if conn, err := net.Dial("tcp", at.String()); err == nil {
		_ = conn.Close()
		t.Error("it listens before it knows anything")
	}
	feed.Edit(func(s *model.Snapshot) { addShop(s, netip.MustParseAddrPort(backend.Listener.Addr().String())) })
	close(c.synced)
	eventually(t, "200 backend fairlead.invalid", func() string { return ask(at) })
	log.says(t, "the Secret does not exist")
	pair := model.SecretKey{Namespace: "shop", Name: "pair"}
	c.put(&model.Secret{SecretKey: pair, Content: pemPair(t, "shop.example.org", time.Now().Add(time.Hour))})
	eventually(t, "200 backend shop.example.org", func() string { return ask(at) })
	c.put(&model.Secret{SecretKey: pair, Content: pemPair(t, "shop.example.org", time.Now().Add(-time.Hour))})
	eventually(t, "200 backend fairlead.invalid", func() string { return ask(at) })
	log.says(t, "has expired")
	feed.Edit(func(s *model.Snapshot) { s.Ingresses = model.Map[model.IngressKey, *model.HTTPIngress]{} })
	eventually(t, "404", func() string { return strings.Fields(ask(at))[0] })
}

// ask returns the status, the body, and whose certificate it was.
func ask(at netip.AddrPort) string {
	transport := &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // it is looked at
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", at.String())
		},
	}
	request, _ := http.NewRequest(http.MethodGet, "https://shop.example.org/", http.NoBody)
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return fmt.Sprintf("%d %s %s", response.StatusCode, body, response.TLS.PeerCertificates[0].DNSNames[0])
}

func eventually(t *testing.T, want string, is func() string) {
	t.Helper()
	got := ""
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if got = is(); got == want {
			return
		}
	}
	t.Fatalf("%s, want %s", got, want)
}

// says waits until the log does: what is said comes after what is served.
func (l *lockedBuffer) says(t *testing.T, what string) {
	t.Helper()
	eventually(t, what, func() string {
		if text := l.String(); !strings.Contains(text, what) {
			return text
		}
		return what
	})
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestLingers: who is told to end says so, and serves on until clients are sent
// elsewhere; what changes meanwhile is followed.
func TestLingers(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "backend") }))
	t.Cleanup(backend.Close)
	c := &cluster{feed: make(chan *model.Feed, 1), synced: make(chan struct{}), changed: make(chan struct{})}
	at, health := freePort(t), freePort(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	const linger = 1500 * time.Millisecond
	go func() {
		ended <- Run(ctx, Config{Source: c, HTTPS: []netip.AddrPort{at}, HealthAddress: health.String(), Linger: linger, Log: slog.New(slog.DiscardHandler)})
	}()
	feed := <-c.feed
	feed.Edit(func(s *model.Snapshot) { addShop(s, netip.MustParseAddrPort(backend.Listener.Addr().String())) })
	close(c.synced)
	eventually(t, "200 backend fairlead.invalid", func() string { return ask(at) })
	ready := func() string {
		response, err := http.Get("http://" + health.String() + "/readyz")
		if err != nil {
			return err.Error()
		}
		defer response.Body.Close()
		return response.Status
	}
	eventually(t, "200 OK", ready)
	began := time.Now()
	cancel()
	eventually(t, "503 Service Unavailable", ready)
	for time.Since(began) < linger/3 {
		if got := ask(at); got != "200 backend fairlead.invalid" {
			t.Fatal(got)
		}
	}
	feed.Edit(func(s *model.Snapshot) { s.Ingresses = model.Map[model.IngressKey, *model.HTTPIngress]{} })
	eventually(t, "404", func() string { return strings.Fields(ask(at))[0] })
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took < linger {
		t.Errorf("it ended after %v", took)
	}
}

// TestNamesSecrets: what Ingresses name is asked for, and nothing else; a host that has
// another certificate from now on does not have the default one until it is known.
func TestNamesSecrets(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "backend") }))
	t.Cleanup(backend.Close)
	c := &cluster{feed: make(chan *model.Feed, 1), synced: make(chan struct{}), changed: make(chan struct{})}
	at := freePort(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- Run(ctx, Config{
			Source: c, HTTPS: []netip.AddrPort{at}, Log: slog.New(slog.DiscardHandler),
			DefaultCertificate: model.SecretKey{Namespace: "kube-system", Name: "default"},
		})
	}()
	t.Cleanup(func() { cancel(); <-ended })
	named := func() string {
		c.mu.Lock()
		defer c.mu.Unlock()
		var all []string
		for key := range c.named.All() {
			all = append(all, key.String())
		}
		slices.Sort(all)
		return strings.Join(all, " ")
	}
	pair := model.SecretKey{Namespace: "shop", Name: "pair"}
	c.put(&model.Secret{SecretKey: pair, Content: pemPair(t, "shop.example.org", time.Now().Add(time.Hour))})
	feed := <-c.feed
	feed.Edit(func(s *model.Snapshot) { addShop(s, netip.MustParseAddrPort(backend.Listener.Addr().String())) })
	close(c.synced)
	eventually(t, "200 backend shop.example.org", func() string { return ask(at) })
	eventually(t, "kube-system/default shop/pair", named)

	// The default certificate.
	c.put(&model.Secret{SecretKey: model.SecretKey{Namespace: "kube-system", Name: "default"}, Content: pemPair(t, "default.example.org", time.Now().Add(time.Hour))})
	c.wait(true)
	feed.Edit(func(s *model.Snapshot) {
		key := model.IngressKey{Namespace: "shop", Name: "web"}
		old, _ := s.Ingresses.Get(key)
		next := *old
		next.TLS = []model.IngressTLS{{Secret: "other"}}
		s.Ingresses = s.Ingresses.With(key, &next)
	})
	eventually(t, "kube-system/default shop/other", named)
	if got := ask(at); got != "200 backend shop.example.org" {
		t.Errorf("while the other certificate is not known, %s", got)
	}
	c.put(&model.Secret{SecretKey: model.SecretKey{Namespace: "shop", Name: "other"}, Content: pemPair(t, "*.example.org", time.Now().Add(time.Hour))})
	c.wait(false)
	eventually(t, "200 backend *.example.org", func() string { return ask(at) })

	// One that does not come is not waited for for ever.
	c.wait(true)
	feed.Edit(func(s *model.Snapshot) {
		key := model.IngressKey{Namespace: "shop", Name: "web"}
		old, _ := s.Ingresses.Get(key)
		next := *old
		next.TLS = []model.IngressTLS{{Secret: "third"}}
		s.Ingresses = s.Ingresses.With(key, &next)
	})
	eventually(t, "200 backend default.example.org", func() string { return ask(at) })
}

// wait has the API server owe an answer, or not.
func (c *cluster) wait(late bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.late = late
	close(c.changed)
	c.changed = make(chan struct{})
}
