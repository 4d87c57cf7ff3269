package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/servers/dns/feed"
)

// node is an agent's end of the socket, and a daemon.
type node struct {
	t     *testing.T
	dir   string
	feed  *model.Feed
	at    string // what the agent says
	own   string // what the command line says
	agent context.CancelFunc
	sends *feed.Sender
}

// begin starts an agent that knows one Service, and a daemon.
func begin(t *testing.T) *node {
	t.Helper()
	n := &node{t: t, dir: t.TempDir(), feed: &model.Feed{}}
	n.at, n.own = fmt.Sprintf("127.0.0.1:%d", freePort(t)), fmt.Sprintf("127.0.0.2:%d", freePort(t))
	conf := "nameserver 127.0.0.9\nsearch corp.example\n" // where nobody listens
	if err := os.WriteFile(filepath.Join(n.dir, "resolv.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	n.startAgent()
	return n
}

// freePort is one of TCP that nobody has.
func freePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

func (n *node) startAgent() {
	ctx, cancel := context.WithCancel(n.t.Context())
	n.sends = &feed.Sender{Feed: n.feed, Dir: filepath.Join(n.dir, "run"), User: os.Getuid(), Log: slog.New(slog.DiscardHandler), Boot: bootID()}
	n.sends.Serve(feed.Serving{Listen: []netip.AddrPort{netip.MustParseAddrPort(n.at)}, Clients: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = n.sends.Run(ctx)
	}()
	n.agent = func() { cancel(); <-ended }
	n.t.Cleanup(n.agent)
}

// startDaemon returns what stops it.
func (n *node) startDaemon() context.CancelFunc {
	n.t.Helper()
	tell, ended := n.startLingering(0)
	return func() { tell(); <-ended }
}

// startLingering returns what tells it to end, and what is closed when it has.
func (n *node) startLingering(linger time.Duration) (context.CancelFunc, <-chan struct{}) {
	ctx, cancel := context.WithCancel(n.t.Context())
	state := filepath.Join(n.dir, "state")
	if err := os.MkdirAll(state, 0o700); err != nil {
		n.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = Run(ctx, Config{Linger: linger, Socket: filepath.Join(n.dir, "run", feed.Socket), StateDir: state, ResolvConf: filepath.Join(n.dir, "resolv.conf"), Listen: []netip.AddrPort{netip.MustParseAddrPort(n.own)}, Clients: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Log: slog.New(slog.DiscardHandler)})
	}()
	n.t.Cleanup(func() { cancel(); <-ended })
	return cancel, ended
}

// ask returns an rcode and the answers, or what went wrong.
func (n *node) ask(network, name string, kind uint16) string {
	n.t.Helper()
	return n.askAt(network, n.at, name, kind)
}

func (n *node) askAt(network, at, name string, kind uint16) string {
	n.t.Helper()
	query := new(dns.Msg).SetQuestion(name, kind)
	answer, _, err := (&dns.Client{Net: network, Timeout: time.Second}).Exchange(query, at)
	if err != nil {
		return err.Error()
	}
	text := []string{dns.RcodeToString[answer.Rcode]}
	for _, r := range answer.Answer {
		text = append(text, strings.TrimPrefix(r.String(), r.Header().String()))
	}
	return strings.Join(text, " ")
}

// eventually waits for an answer.
func (n *node) eventually(name string, kind uint16, want string) {
	n.t.Helper()
	n.eventuallyAt(n.at, name, kind, want)
}

func (n *node) eventuallyAt(at, name string, kind uint16, want string) {
	n.t.Helper()
	got := ""
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if got = n.askAt("udp", at, name, kind); got == want {
			return
		}
	}
	n.t.Fatalf("%s: %s, want %s", name, got, want)
}

func (n *node) put(name, addr string) uint64 {
	key := model.ServiceKey{Namespace: "default", Name: name}
	return n.feed.Edit(func(s *model.Snapshot) {
		s.Services = s.Services.With(key, &model.Service{ServiceKey: key, ClusterIPs: []netip.Addr{netip.MustParseAddr(addr)}})
	})
}

func (n *node) know() {
	n.feed.Edit(func(s *model.Snapshot) { s.Network, s.NamesKnown = model.DefaultNetwork(), true })
}

// waitConnected waits until the server has dialled the agent.
func (n *node) waitConnected() {
	n.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, connected := n.sends.Serves(); connected {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatal("the server does not dial the agent")
		}
	}
}

// TestPath: SERVFAIL until the agent knows, then answers; what changes shows, the
// agent learns that it is served, and what was known is served on without it,
// over a restart.
func TestPath(t *testing.T) {
	n := begin(t)
	stop := n.startDaemon()
	n.put("web", "10.96.0.20")
	n.waitConnected()
	n.eventuallyAt(n.own, "web.default.svc.cluster.local.", dns.TypeA, "SERVFAIL")
	if got := n.ask("udp", "web.default.svc.cluster.local.", dns.TypeA); !strings.Contains(got, "refused") {
		t.Errorf("where others could be asked: %s", got)
	}
	n.know()
	n.eventually("web.default.svc.cluster.local.", dns.TypeA, "NOERROR 10.96.0.20")
	for _, network := range []string{"udp", "tcp"} {
		if got := n.ask(network, "other.default.svc.cluster.local.", dns.TypeA); got != "NXDOMAIN" {
			t.Errorf("a name that is not there: %s", got)
		}
		if got := n.ask(network, "example.org.", dns.TypeA); got != "SERVFAIL" {
			t.Errorf("a name of the outside, without an upstream that answers: %s", got)
		}
	}
	revision := n.put("web", "10.96.0.21")
	n.eventually("web.default.svc.cluster.local.", dns.TypeA, "NOERROR 10.96.0.21")
	if got, want := n.ask("tcp", "_fairlead.cluster.local.", dns.TypeTXT), fmt.Sprintf(`NOERROR "revision=%d"`, revision); got != want {
		t.Errorf("health: %s, want %s", got, want)
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if served, connected := n.sends.Serves(); connected && served == revision {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("the agent hears that %d is served (%v), want %d", served, connected, revision)
		}
	}

	n.agent()
	if got := n.ask("udp", "web.default.svc.cluster.local.", dns.TypeA); got != "NOERROR 10.96.0.21" {
		t.Errorf("without an agent: %s", got)
	}
	stop()
	if got := n.ask("udp", "web.default.svc.cluster.local.", dns.TypeA); !strings.Contains(got, "refused") {
		t.Errorf("after its end: %s", got)
	}
	stop = n.startDaemon()
	n.eventually("web.default.svc.cluster.local.", dns.TypeA, "NOERROR 10.96.0.21")
	if got := n.ask("udp", "other.default.svc.cluster.local.", dns.TypeA); got != "NXDOMAIN" {
		t.Errorf("a name that is not there, after a restart in the same boot: %s", got)
	}

	// A new agent that has not read all yet takes nothing away.
	n.feed = &model.Feed{}
	n.put("late", "10.96.0.22")
	n.startAgent()
	n.waitConnected()
	if got := n.ask("udp", "web.default.svc.cluster.local.", dns.TypeA); got != "NOERROR 10.96.0.21" {
		t.Errorf("while a new agent starts: %s", got)
	}
	n.know()
	n.eventually("late.default.svc.cluster.local.", dns.TypeA, "NOERROR 10.96.0.22")
	n.eventually("web.default.svc.cluster.local.", dns.TypeA, "NXDOMAIN")
	stop()
}

// TestLingers: who is told to end answers until the next one does.
func TestLingers(t *testing.T) {
	n := begin(t)
	n.put("web", "10.96.0.20")
	n.know()
	const linger = 1500 * time.Millisecond
	end, ended := n.startLingering(linger)
	n.eventually("web.default.svc.cluster.local.", dns.TypeA, "NOERROR 10.96.0.20")
	began := time.Now()
	end()
	for time.Since(began) < linger/3 {
		if got := n.ask("udp", "web.default.svc.cluster.local.", dns.TypeA); got != "NOERROR 10.96.0.20" {
			t.Fatalf("%s after it was told to end: %s", time.Since(began), got)
		}
	}
	<-ended
	if took := time.Since(began); took < linger {
		t.Errorf("it ended after %s", took)
	}
}
