package daemon

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/lab/build"
	"github.com/fairlead-net/fairlead/model"
)

// authority is a real one, Pebble, on loopback: it asks hosts at a port of ours, at the
// addresses that the test says.
type authority struct {
	options  model.ACMEOptions
	roots    *x509.CertPool
	port     uint16 // that it asks hosts at
	resolver *resolver
}

// authorityOptions are what differs between authorities.
type authorityOptions struct {
	life     time.Duration // of certificates
	external map[string]string
	blocked  []string
}

func newAuthority(t *testing.T, o authorityOptions) *authority {
	t.Helper()
	if testing.Short() {
		t.Skip("builds Pebble")
	}
	program, err := build.Request{Out: os.Stderr}.Pebble(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{port: commonPort(t), resolver: newResolver(t)}
	dir, at, admin := t.TempDir(), freePort(t), freePort(t)
	pair := pemPair(t, "localhost", time.Now().Add(time.Hour))
	a.options = model.ACMEOptions{Server: fmt.Sprintf("https://localhost:%d/dir", at.Port()), Email: "admin@example.org", CABundle: string(pair["tls.crt"])}
	config := map[string]any{
		"listenAddress": at.String(), "managementListenAddress": admin.String(), "httpPort": a.port, "tlsPort": 1,
		"certificate": filepath.Join(dir, "tls.crt"), "privateKey": filepath.Join(dir, "tls.key"),
		"keyAlgorithm": "ecdsa", "retryAfter": map[string]int{"authz": 1, "order": 1}, "domainBlocklist": o.blocked,
		"profiles": map[string]any{"default": map[string]any{"description": "of tests", "validityPeriod": int(cmp.Or(o.life, time.Hour).Seconds())}},
	}
	if o.external != nil {
		config["externalAccountBindingRequired"], config["externalAccountMACKeys"] = true, o.external
	}
	text, err := json.Marshal(map[string]any{"pebble": config})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"tls.crt": pair["tls.crt"], "tls.key": pair["tls.key"], "config.json": text} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var log lockedBuffer
	process := exec.Command(program, "-config", filepath.Join(dir, "config.json"), "-dnsserver", a.resolver.at)
	process.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_AUTHZREUSE=0")
	process.Stdout, process.Stderr = &log, &log
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	a.roots = rootsOf(t, "https://"+admin.String()+"/roots/0")
	return a
}

// rootsOf waits for the authority, and asks what it signs with.
func rootsOf(t *testing.T, url string) *x509.CertPool {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // it is the test's own
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		response, err := client.Get(url)
		if err != nil {
			continue
		}
		text, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		roots := x509.NewCertPool()
		if err == nil && roots.AppendCertsFromPEM(text) {
			return roots
		}
	}
	t.Fatal("the authority does not answer")
	return nil
}

// commonPort is one that two addresses of loopback have free.
func commonPort(t *testing.T) uint16 {
	t.Helper()
	for range 20 {
		at := freePort(t)
		if listener, err := net.Listen("tcp", netip.AddrPortFrom(gatewayAddresses[1], at.Port()).String()); err == nil {
			_ = listener.Close()
			return at.Port()
		}
	}
	t.Fatal("no port is free at two addresses")
	return 0
}

// resolver tells the authority where hosts are.
type resolver struct {
	at    string
	mu    sync.Mutex
	hosts map[string][]netip.Addr // of several, each answer has another one first
	asked map[string]int
}

func newResolver(t *testing.T) *resolver {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") // Pebble asks so
	if err != nil {
		t.Fatal(err)
	}
	r := &resolver{at: listener.Addr().String(), hosts: map[string][]netip.Addr{}, asked: map[string]int{}}
	server := &dns.Server{Listener: listener, Handler: r}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.ActivateAndServe() }()
	t.Cleanup(func() { _ = listener.Close(); <-ended })
	return r
}

func (r *resolver) set(host string, at ...netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hosts[host] = at
}

func (r *resolver) ServeDNS(w dns.ResponseWriter, query *dns.Msg) {
	answer := new(dns.Msg)
	answer.SetReply(query)
	host := strings.TrimSuffix(strings.ToLower(query.Question[0].Name), ".")
	r.mu.Lock()
	at := r.hosts[host]
	if query.Question[0].Qtype == dns.TypeA && len(at) > 0 {
		addr := at[r.asked[host]%len(at)]
		r.asked[host]++
		answer.Answer = append(answer.Answer, &dns.A{Hdr: dns.RR_Header{Name: query.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: addr.AsSlice()})
	} else if len(at) == 0 {
		answer.Rcode = dns.RcodeNameError
	}
	r.mu.Unlock()
	_ = w.WriteMsg(answer)
}

// gatewayAddresses are where the gateways of a site are.
var gatewayAddresses = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")}

// vault has the Secrets of a cluster, of which all gateways hear.
type vault struct {
	mu       sync.Mutex
	secrets  map[model.SecretKey]*model.Secret
	clusters []*cluster
	wrote    []string // names
	lead     chan struct{}
	fails    error
	later    []*model.Secret     // of which the second gateway is still to hear
	late     time.Duration       // after which the second gateway hears of what is written
	hold     func(*model.Secret) // called before each one is written
}

func newVault() *vault {
	return &vault{secrets: map[model.SecretKey]*model.Secret{}, lead: make(chan struct{}, 1)}
}

func (v *vault) ReadSecret(_ context.Context, key model.SecretKey) (*model.Secret, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.secrets[key], v.fails
}

func (v *vault) WriteSecret(ctx context.Context, secret *model.Secret) error {
	if v.hold != nil {
		v.hold(secret)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.fails != nil {
		return v.fails
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	v.secrets[secret.SecretKey] = secret
	v.wrote = append(v.wrote, secret.Name)
	for i, c := range v.clusters {
		if i > 0 && v.late > 0 {
			v.later = append(v.later, secret)
			time.AfterFunc(v.late, func() { v.deliver(c) })
			continue
		}
		c.put(secret)
	}
	return nil
}

// deliver tells of the next one, as a watch does: in the order of writing, whichever
// timer is the first to run.
func (v *vault) deliver(to *cluster) {
	v.mu.Lock()
	defer v.mu.Unlock()
	to.put(v.later[0])
	v.later = v.later[1:]
}

func (v *vault) DeleteSecret(_ context.Context, key model.SecretKey) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.secrets, key)
	for _, c := range v.clusters {
		c.drop(key)
	}
	return v.fails
}

func (v *vault) has(key model.SecretKey) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.secrets[key] != nil
}

// wroteTimes is how often a Secret was written.
func (v *vault) wroteTimes(name string) (n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, wrote := range v.wrote {
		if wrote == name {
			n++
		}
	}
	return n
}

func (c *cluster) drop(key model.SecretKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.secrets = c.secrets.Without(key)
	close(c.changed)
	c.changed = make(chan struct{})
}

// post is the Register of one gateway of several, of which one leads.
type post struct {
	*vault
	uid    string
	mu     sync.Mutex
	events []string
	leads  bool
	depose context.CancelFunc
}

func (p *post) Service() model.ServiceKey { return ownService }

func (p *post) Lead(ctx context.Context, lead func(context.Context) error) error {
	select {
	case <-ctx.Done():
		return nil
	case p.lead <- struct{}{}:
	}
	defer func() { <-p.lead }()
	leading, cancel := context.WithCancel(ctx)
	defer cancel()
	p.mu.Lock()
	p.leads, p.depose = true, cancel
	p.mu.Unlock()
	defer func() { p.mu.Lock(); p.leads = false; p.mu.Unlock() }()
	return lead(leading)
}

func (p *post) Follow(ctx context.Context, edit func(func(*kube.Entries)), synced func()) error {
	edit(func(e *kube.Entries) {
		for _, name := range []string{"web", "other"} {
			e.Ingresses = e.Ingresses.With(model.IngressKey{Namespace: "shop", Name: name}, &kube.Entry{UID: p.uid})
		}
	})
	synced()
	<-ctx.Done()
	return nil
}

func (p *post) Publish(context.Context, model.IngressKey, string, []string) error { return nil }

func (p *post) WriteEvent(_ context.Context, event kube.Event) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = append(p.events, fmt.Sprintf("%s %s: %s; %s", event.Object(), event.Reason, event.Message, event.Remedy))
	return nil
}

func (p *post) says(t *testing.T, words ...string) string {
	t.Helper()
	found := ""
	eventually(t, "an Event with "+strings.Join(words, ", "), func() string {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, event := range p.events {
			if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(event, word) }) {
				found = event
				return "an Event with " + strings.Join(words, ", ")
			}
		}
		return strings.Join(p.events, "\n")
	})
	return found
}
