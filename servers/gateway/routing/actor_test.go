package routing

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// acts count how often each request came to a backend, over all of its endpoints,
// and has it do what X-Try says for that time.
type acts struct {
	mu   sync.Mutex
	seen map[string]int
}

// play does what is wanted, and tells whether that was all.
func (a *acts) play(w http.ResponseWriter, r *http.Request) (done bool) {
	wanted := strings.Fields(r.Header.Get("X-Try"))
	if len(wanted) == 0 {
		return false
	}
	a.mu.Lock()
	if a.seen == nil {
		a.seen = map[string]int{}
	}
	key := r.Host + r.RequestURI
	n := a.seen[key]
	a.seen[key]++
	a.mu.Unlock()
	w.Header().Set("Seen-Try", strconv.Itoa(n+1))
	switch act := wanted[min(n, len(wanted)-1)]; act {
	case "close", "junk":
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil && act == "junk" {
			_, err = conn.Write([]byte("HELO example.org\r\n\r\n"))
		}
		if err == nil {
			_ = conn.Close()
		}
		return true
	case "silent":
		<-r.Context().Done()
		return true
	default:
		status, _ := strconv.Atoi(act)
		w.WriteHeader(status)
		return false
	}
}

// closedPort is an address of loopback that nobody listens at.
func closedPort() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "127.0.0.1:1"
	}
	defer listener.Close()
	return listener.Addr().String()
}

// mirror is who is sent copies, and tells of them.
func mirror(t *testing.T) (copies chan string, at string) {
	copies = make(chan string, 16)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		host := r.Host
		if host == r.Context().Value(http.LocalAddrContextKey).(net.Addr).String() {
			host = "MIRROR"
		}
		copies <- strings.TrimSpace(fmt.Sprintf("%s %s %s %s %s", r.Method, host, r.RequestURI, r.Header.Get("X-Mine"), body))
		w.WriteHeader(http.StatusInternalServerError)
	}))
	t.Cleanup(server.Close)
	return copies, server.Listener.Addr().String()
}

// endpointsOf are how many a Service has, if not one.
var endpointsOf = map[string]int{"many": 3, "legion": 5, "half": 2, "ten": 10}

// staff gives each Service that Ingresses name a server: some have more, of those of
// half one cannot be reached, nobody has none, and addressed has its own address
// alone.
func staff(t *testing.T, snapshot *model.Snapshot, certificate *tls.Certificate) {
	names := map[model.ServiceKey]bool{}
	for _, ingress := range snapshot.Ingresses.All() {
		add := func(b model.IngressBackend) {
			names[model.ServiceKey{Namespace: ingress.Namespace, Name: b.Service}] = true
		}
		for _, rule := range ingress.Rules {
			for _, path := range rule.Paths {
				add(path.Backend)
			}
		}
		if ingress.Default != nil {
			add(*ingress.Default)
		}
		for _, a := range ingress.Annotations {
			if strings.HasSuffix(a.Key, "/default-backend") {
				add(model.IngressBackend{Service: a.Value})
			}
		}
	}
	for key := range names {
		snapshot.Services = snapshot.Services.With(key, &model.Service{ServiceKey: key, Ports: []model.ServicePort{
			{Name: "http", Protocol: model.TCP, Port: 80},
		}})
		if key.Name == "nobody" {
			continue
		}
		if key.Name == "addressed" {
			at := serve(t, key.Name, &acts{}, certificate)
			snapshot.Services = snapshot.Services.With(key, &model.Service{
				ServiceKey: key, ClusterIPs: []netip.Addr{at.Addr()}, Ports: []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: at.Port()}},
			})
			continue
		}
		plays := &acts{}
		for n := range max(1, endpointsOf[key.Name]) {
			at := netip.MustParseAddrPort(closedPort())
			if key.Name != "half" || n > 0 {
				at = serve(t, key.Name, plays, certificate)
			}
			slice := &model.EndpointSlice{
				SliceKey: model.SliceKey{Namespace: key.Namespace, Name: fmt.Sprint(key.Name, n)}, Service: key.Name,
				Ports:     []model.EndpointPort{{Name: "http", Protocol: model.TCP, Port: at.Port()}},
				Endpoints: []model.Endpoint{{Address: at.Addr(), Ready: true, Serving: true}},
			}
			snapshot.Slices = snapshot.Slices.With(slice.SliceKey, slice)
		}
	}
}

// judge is where somebody decides about requests: who has a cookie user is that user,
// unless he is evil.
func judge(t *testing.T) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Set-Cookie", "judged=1")
		user, err := r.Cookie("user")
		switch {
		case err != nil:
			w.Header().Set("WWW-Authenticate", "Judge")
			w.WriteHeader(http.StatusUnauthorized)
		case user.Value == "evil":
			w.WriteHeader(http.StatusForbidden)
		case user.Value == "broken":
			w.WriteHeader(http.StatusBadGateway)
		default:
			w.Header().Set("X-User", user.Value)
			w.Header().Set("X-Back", r.Header.Get("X-Auth-Request-Redirect"))
			w.Header().Set("X-Asked", r.Method+" "+r.Header.Get("X-Original-Method")+" "+r.Header.Get("X-Original-URL")+" "+r.Header.Get("X-Real-IP"))
		}
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// serve is one endpoint of a Service. sealed and grpcs speak TLS, and grpc and grpcs
// HTTP/2.
func serve(t *testing.T, service string, plays *acts, certificate *tls.Certificate) netip.AddrPort {
	server := httptest.NewUnstartedServer(nil)
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, name := range strings.Fields(r.Header.Get("X-Show")) {
			w.Header()["Seen-"+name] = r.Header.Values(name)
		}
		w.Header().Set("Seen-Host", r.Host)
		w.Header().Set("Seen-At", server.Listener.Addr().String())
		w.Header().Set("Server", "backend")
		for _, field := range r.Header.Values("X-Send") { // NAME: VALUE, which the backend sends
			name, value, _ := strings.Cut(field, ": ")
			w.Header().Add(name, value)
		}
		if body, _ := io.ReadAll(r.Body); len(body) > 0 {
			w.Header().Set("Seen-Body", string(body))
		}
		if r.TLS != nil {
			w.Header().Set("Seen-Name", r.TLS.ServerName)
			for _, shown := range r.TLS.PeerCertificates {
				w.Header().Set("Seen-Certificate", shown.Subject.CommonName)
			}
		}
		w.Header().Set("Seen-Proto", r.Proto)
		if plays.play(w, r) {
			return
		}
		if r.Header.Get("X-Hold") != "" {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
		if status, err := strconv.Atoi(r.Header.Get("X-Status")); err == nil && service != "errors" {
			w.WriteHeader(status)
		}
		fmt.Fprintf(w, "%s %s %s\n", service, r.Method, r.RequestURI)
	})
	begin(server, service, certificate)
	t.Cleanup(server.Close)
	return netip.MustParseAddrPort(server.Listener.Addr().String())
}

// begin has a server speak what a Service of its name does.
func begin(server *httptest.Server, service string, certificate *tls.Certificate) {
	server.Config.ErrorLog = log.New(io.Discard, "", 0)     // who is not trusted is told so
	server.Config.SetKeepAlivesEnabled(service != "legion") // a connection that was kept may be tried beside
	if strings.HasPrefix(service, "grpc") {
		server.Config.Protocols = new(http.Protocols)
		server.Config.Protocols.SetHTTP2(true)
		server.Config.Protocols.SetUnencryptedHTTP2(true)
	}
	if service != "sealed" && service != "grpcs" {
		server.Start()
		return
	}
	server.EnableHTTP2 = service == "grpcs"
	server.TLS = &tls.Config{Certificates: []tls.Certificate{*certificate}, ClientAuth: tls.RequestClientCert}
	server.StartTLS()
}

func selfSigned(t *testing.T) *tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"*.example.org"}}
	made, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{made}, PrivateKey: key}
}
