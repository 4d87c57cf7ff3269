package routing

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
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
// names, send those that X-Send has, have the status of X-Status, and do what X-Try
// says (see acts). JUDGE is the address of somebody who decides, and MIRROR of one who
// is sent copies. A dialogue is
//
//	GET https://www.example.org/path
//	> Name: value      of the request
//	+ text             its body
//	@ ann              the certificate that the client shows: see newPKI
//	~ a.example.org    the name of TLS, if it is not that of the URL
//	< 200              what is wanted: the status (cut: there is no answer),
//	< Name: value      headers, of which an empty value wants none; of Cookie-NAME
//	                   what is behind the value of that cookie,
//	= text             and the first line of the body,
//	* text             and what somebody is sent a copy of,
//	x 100 Name 10      asked again so often, it is the same status, and the header has
//	                   so many values
//
// A request behind & is not waited for: its answer's body is left where it is, for as
// long as the backend holds it (X-Hold), until a line with a dot.
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
	pki            *pki
	held           []*http.Response
	asked          *askedBy // by which the last request went
	copies         chan string
	first          string // the name of the endpoint of half that does not answer
}

func start(t *testing.T, manifests []txtar.File) *stage {
	snapshot := &model.Snapshot{Revision: 1, Network: model.DefaultNetwork()}
	snapshot.Network.Ingress.NginxCompatible = true
	judge := judge(t)
	copies, watcher := mirror(t)
	for i := range manifests {
		manifests[i].Data = bytes.ReplaceAll(manifests[i].Data, []byte("JUDGE"), []byte(judge))
		manifests[i].Data = bytes.ReplaceAll(manifests[i].Data, []byte("MIRROR"), []byte(watcher))
	}
	for _, file := range manifests {
		if _, err := kube.ReadIngresses(bytes.NewReader(file.Data), "default", snapshot); err != nil {
			t.Fatalf("%s: %v", file.Name, err)
		}
	}
	certificates := newPKI(t)
	staff(t, snapshot, certificates.backend)
	table, _ := plan.Compute(nil, snapshot)
	certificate := selfSigned(t)
	server := gateway.New(gateway.Settings{Here: true, DrainIdle: time.Millisecond, Drain: time.Second}, slog.New(slog.DiscardHandler))
	router := New(nil, table, Sources{Here: true, Endpoints: plan.EndpointsOf(snapshot), Secret: secretsOf(t, manifests, certificates.texts), Challenge: ordering, StrictTransport: "max-age=31536000; includeSubDomains"})
	server.Serve(&gateway.Table{
		Router: router, Asks: router.Asks, Passes: router.Passes(), Checked: router.Checked(),
		Trusted:     []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate, nil },
	})
	half := plan.EndpointsOf(snapshot).At(plan.Backend{Service: model.ServiceKey{Namespace: "default", Name: "half"}})
	s := &stage{t: t, first: firstOf(half), copies: copies, pki: certificates, plain: freePort(t), secured: freePort(t)}
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

// ordering answers an authority that asks shop.example.org for a token of ours.
func ordering(host, token string) string {
	if host == "shop.example.org" && token == "ours" {
		return "ours.thumbprint"
	}
	return ""
}

// secretsOf are the Secrets of the manifests, which plans do not have.
func secretsOf(t *testing.T, manifests []txtar.File, texts map[string]string) func(plan.SecretKey) map[string][]byte {
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
				if other, ok := texts[text]; ok {
					text = other
				}
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
	if block[0] == "." {
		s.release()
		return
	}
	first, hold := strings.CutPrefix(block[0], "& ")
	method, url, _ := strings.Cut(first, " ")
	request, err := http.NewRequestWithContext(s.t.Context(), method, url, bodyOf(block))
	if err != nil {
		wrong("%v", err)
		return
	}
	for _, line := range block[1:] {
		if header, ok := strings.CutPrefix(line, "> "); ok {
			name, value, _ := strings.Cut(header, ": ")
			request.Header.Add(name, strings.ReplaceAll(value, "FIRST", s.first))
		}
	}
	response, err := s.sendAs(request, s.clientOf(block))
	if slices.Contains(block, "< cut") {
		if err == nil {
			wrong("status %d, and not the end of the connection", response.StatusCode)
		}
		return
	}
	if err != nil {
		wrong("%v", err)
		return
	}
	var body []byte
	if hold {
		s.asked.held.Store(true)
		s.held = append(s.held, response)
	} else {
		body, _ = io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err := s.asked.ended(); err != nil {
			wrong("the connection is not closed: %v", err)
		}
	}
	for _, line := range block[1:] {
		kind, want, _ := strings.Cut(line, " ")
		name, value, isHeader := strings.Cut(want, ":")
		switch value = strings.TrimSpace(value); {
		case kind == "<" && !isHeader && fmt.Sprint(response.StatusCode) != want:
			wrong("status %d, want %s, with %s", response.StatusCode, want, body)
		case kind == "<" && isHeader && !has(response.Header, name, value):
			wrong("header %s is %q, want %q", name, response.Header.Values(name), value)
		case kind == "*":
			select {
			case got := <-s.copies:
				if got != want {
					wrong("the copy is %q, want %q", got, want)
				}
			case <-time.After(5 * time.Second):
				wrong("there is no copy")
			}
		case kind == "=" && strings.TrimSuffix(string(body), "\n") != want:
			wrong("the body is %q, want %q", body, want)
		case kind == "x":
			if err := s.repeat(request, response.StatusCode, want); err != nil {
				wrong("%v", err)
			}
		}
	}
}

// firstOf is the name of the endpoint that nobody listens at.
func firstOf(all []netip.AddrPort) string {
	for _, at := range all {
		conn, err := net.Dial("tcp", at.String())
		if err != nil {
			return strconv.FormatUint(nameOf(at), 16)
		}
		_ = conn.Close()
	}
	return ""
}

// bodyOf is that of a request.
func bodyOf(block []string) io.Reader {
	for _, line := range block {
		if text, ok := strings.CutPrefix(line, "+ "); ok {
			return strings.NewReader(text)
		}
	}
	return http.NoBody
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
		if err := s.asked.ended(); err != nil {
			return err
		}
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
	if cookie, ok := strings.CutPrefix(name, "Cookie-"); ok {
		return slices.ContainsFunc(header.Values("Set-Cookie"), func(set string) bool {
			key, rest, _ := strings.Cut(set, "=")
			_, attributes, _ := strings.Cut(rest, "; ")
			return key == cookie && attributes == value
		})
	}
	all := header.Values(name)
	if value == "" {
		return len(all) == 0
	}
	return slices.Contains(all, value)
}

// release ends the requests that are held, and waits until their backends know.
func (s *stage) release() {
	for _, response := range s.held {
		_ = response.Body.Close()
	}
	s.held = nil
}

// clientOf is how the client of a request begins TLS.
func (s *stage) clientOf(block []string) *tls.Config {
	config := &tls.Config{InsecureSkipVerify: true} // it is our own, and nobody else listens
	for _, line := range block {
		if name, ok := strings.CutPrefix(line, "@ "); ok {
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return s.pki.clients[name], nil }
		}
		if name, ok := strings.CutPrefix(line, "~ "); ok {
			config.ServerName = name
		}
	}
	return config
}

func (s *stage) send(request *http.Request) (*http.Response, error) {
	return s.sendAs(request, s.clientOf(nil))
}

// askedBy is the connection of one request. The server closes it when the request has ended,
// which is a moment after its answer was read.
type askedBy struct {
	net.Conn
	held atomic.Bool // the client ends it
}

// Close is the client's, who leaves that to the server.
func (a *askedBy) Close() error {
	if a.held.Load() {
		return a.Conn.Close()
	}
	return nil
}

// ended waits until the server has closed it, or what is behind a server that passes it on.
func (a *askedBy) ended() error {
	defer a.Conn.Close()
	if tcp, ok := a.Conn.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
	if err := a.Conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, a.Conn); errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil // a reset is an end, too
}

// sendAs sends a request to where the server listens.
func (s *stage) sendAs(request *http.Request, as *tls.Config) (*http.Response, error) {
	transport := &http.Transport{
		DisableKeepAlives: true, DisableCompression: true, TLSClientConfig: as,
		DialContext: func(ctx context.Context, _, at string) (net.Conn, error) {
			to := s.plain
			if strings.HasSuffix(at, ":443") {
				to = s.secured
			}
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", to)
			s.asked = &askedBy{Conn: conn}
			return s.asked, err
		},
	}
	return transport.RoundTrip(request)
}
