package routing

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	plan "github.com/fairlead-net/fairlead/plan/gateway"
	"github.com/fairlead-net/fairlead/servers/gateway"
)

// TestStories sends the requests of testdata/*.txtar to a server that has the
// manifests of the file, and compares the answers. Backends answer with the name of
// their Service, the method and the URL, send back headers of the request that X-Show
// names, send those that X-Send has, and have the status of X-Status. JUDGE is the address of somebody who decides. A dialogue is
//
//	GET https://www.example.org/path
//	> Name: value      of the request
//	< 200              what is wanted: the status,
//	< Name: value      headers, of which an empty value wants none,
//	= text             and the first line of the body
//	x 100 Name 10      asked again so often, it is the same status, and the header has
//	                   so many values
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("there are no stories", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := start(t, archive.Files)
			s.play(string(archive.Comment))
		})
	}
}

// stage is where a story plays.
type stage struct {
	t              *testing.T
	plain, secured string // where the server listens
}

func start(t *testing.T, manifests []txtar.File) *stage {
	snapshot := &model.Snapshot{Revision: 1, Network: model.DefaultNetwork()}
	snapshot.Network.Ingress.NginxCompatible = true
	judge := judge(t)
	for i := range manifests {
		manifests[i].Data = bytes.ReplaceAll(manifests[i].Data, []byte("JUDGE"), []byte(judge))
	}
	for _, file := range manifests {
		if _, err := kube.ReadIngresses(bytes.NewReader(file.Data), "default", snapshot); err != nil {
			t.Fatalf("%s: %v", file.Name, err)
		}
	}
	staff(t, snapshot)
	table, _ := plan.Compute(nil, snapshot)
	certificate := selfSigned(t)
	server := gateway.New(gateway.Settings{DrainIdle: time.Millisecond, Drain: time.Second}, slog.New(slog.DiscardHandler))
	server.Serve(&gateway.Table{
		Router:      New(nil, table, Sources{Endpoints: plan.EndpointsOf(snapshot), Secret: secretsOf(t, manifests)}),
		Trusted:     []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate, nil },
	})
	s := &stage{t: t, plain: freePort(t), secured: freePort(t)}
	server.Listen([]gateway.Listener{{At: netip.MustParseAddrPort(s.plain), Port: 80}, {At: netip.MustParseAddrPort(s.secured), Secure: true}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(5 * time.Second); len(server.Listening()) < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the server does not listen")
		}
	}
	return s
}

// secretsOf are the Secrets of the manifests, which plans do not have.
func secretsOf(t *testing.T, manifests []txtar.File) func(plan.SecretKey) map[string][]byte {
	all := map[plan.SecretKey]map[string][]byte{}
	for _, file := range manifests {
		for document := range bytes.SplitSeq(file.Data, []byte("\n---\n")) {
			var secret struct {
				Kind       string
				Metadata   struct{ Name string }
				StringData map[string]string
			}
			if err := yaml.Unmarshal(document, &secret); err != nil {
				t.Fatal(err)
			}
			if secret.Kind != "Secret" {
				continue
			}
			content := map[string][]byte{}
			for key, text := range secret.StringData {
				content[key] = []byte(text)
			}
			all[plan.SecretKey{Namespace: "default", Name: secret.Metadata.Name}] = content
		}
	}
	return func(key plan.SecretKey) map[string][]byte { return all[key] }
}

// freePort is one of loopback that nobody has at the moment.
func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// staff gives each Service that Ingresses name a server: many has three, ten
// has ten, and nobody none.
func staff(t *testing.T, snapshot *model.Snapshot) {
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
		count := max(1, map[string]int{"many": 3, "ten": 10}[key.Name])
		for n := range count {
			at := serve(t, key.Name)
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
			w.Header().Set("X-Asked", r.Method+" "+r.Header.Get("X-Original-Method")+" "+r.Header.Get("X-Original-URL")+" "+r.Header.Get("X-Real-IP"))
		}
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// serve is one endpoint of a Service.
func serve(t *testing.T, service string) netip.AddrPort {
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
		_, _ = io.Copy(io.Discard, r.Body)
		if status, err := strconv.Atoi(r.Header.Get("X-Status")); err == nil && service != "errors" {
			w.WriteHeader(status)
		}
		fmt.Fprintf(w, "%s %s %s\n", service, r.Method, r.RequestURI)
	})
	server.Start()
	t.Cleanup(server.Close)
	return netip.MustParseAddrPort(server.Listener.Addr().String())
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

// play sends the requests of a story.
func (s *stage) play(text string) {
	lines := bufio.NewScanner(strings.NewReader(text))
	number := 0
	var block []string
	flush := func() {
		if len(block) > 0 {
			s.ask(number-len(block), block)
		}
		block = nil
	}
	for lines.Scan() {
		number++
		switch line := strings.TrimSpace(lines.Text()); {
		case strings.HasPrefix(line, "#"):
		case line == "":
			flush()
		default:
			block = append(block, line)
		}
	}
	number++
	flush()
}

// ask sends one request, and compares the answer.
func (s *stage) ask(number int, block []string) {
	wrong := func(format string, args ...any) {
		s.t.Errorf("line %d: %s: "+format, append([]any{number, block[0]}, args...)...)
	}
	method, url, _ := strings.Cut(block[0], " ")
	request, err := http.NewRequestWithContext(s.t.Context(), method, url, http.NoBody)
	if err != nil {
		wrong("%v", err)
		return
	}
	for _, line := range block[1:] {
		if header, ok := strings.CutPrefix(line, "> "); ok {
			name, value, _ := strings.Cut(header, ": ")
			request.Header.Add(name, value)
		}
	}
	response, err := s.send(request)
	if err != nil {
		wrong("%v", err)
		return
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	for _, line := range block[1:] {
		kind, want, _ := strings.Cut(line, " ")
		name, value, isHeader := strings.Cut(want, ":")
		switch value = strings.TrimSpace(value); {
		case kind == "<" && !isHeader && fmt.Sprint(response.StatusCode) != want:
			wrong("status %d, want %s, with %s", response.StatusCode, want, body)
		case kind == "<" && isHeader && !has(response.Header, name, value):
			wrong("header %s is %q, want %q", name, response.Header.Values(name), value)
		case kind == "=" && strings.TrimSuffix(string(body), "\n") != want:
			wrong("the body is %q, want %q", body, want)
		case kind == "x":
			if err := s.repeat(request, response.StatusCode, want); err != nil {
				wrong("%v", err)
			}
		}
	}
}

// repeat sends a request again so often, and wants a header to have so many values.
func (s *stage) repeat(request *http.Request, status int, text string) error {
	var times, want int
	var name string
	if _, err := fmt.Sscan(text, &times, &name, &want); err != nil {
		return fmt.Errorf("%q: want TIMES HEADER VALUES: %w", text, err)
	}
	seen := map[string]bool{}
	for range times {
		response, err := s.send(request)
		if err != nil {
			return err
		}
		_ = response.Body.Close()
		if response.StatusCode != status {
			return fmt.Errorf("once it is status %d, and once %d", status, response.StatusCode)
		}
		seen[response.Header.Get(name)] = true
	}
	if len(seen) != want {
		return fmt.Errorf("header %s has %d values in %d answers, want %d", name, len(seen), times, want)
	}
	return nil
}

func has(header http.Header, name, value string) bool {
	all := header.Values(name)
	if value == "" {
		return len(all) == 0
	}
	return slices.Contains(all, value)
}

// send sends a request to where the server listens.
func (s *stage) send(request *http.Request) (*http.Response, error) {
	transport := &http.Transport{
		DisableKeepAlives: true, DisableCompression: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // it is our own, and nobody else listens
		DialContext: func(ctx context.Context, _, at string) (net.Conn, error) {
			to := s.plain
			if strings.HasSuffix(at, ":443") {
				to = s.secured
			}
			return new(net.Dialer).DialContext(ctx, "tcp", to)
		},
	}
	return transport.RoundTrip(request)
}
