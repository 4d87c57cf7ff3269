package forward

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/fairlead-net/fairlead/model"
	planned "github.com/fairlead-net/fairlead/plan/dns"
	"github.com/fairlead-net/fairlead/servers/dns"
)

// house is a server of names with a forwarder, as each node has it, at a port of
// a loopback address.
type house struct {
	*Forwarder
	at   netip.AddrPort
	told chan []model.Problem
}

// newHouse starts one. Options are made for the port that it will have.
func newHouse(t *testing.T, addr string, options func(at netip.AddrPort) Options) *house {
	t.Helper()
	packets, listener, at := listenOn(t, addr)
	_ = packets.Close()
	_ = listener.Close()
	h := &house{at: at, told: make(chan []model.Problem, 100)}
	h.Forwarder = New(options(at), func(all ...model.Problem) { h.told <- all }, slog.New(slog.DiscardHandler))
	zone, _ := planned.Compute(nil, &model.Snapshot{NamesKnown: true, Network: &model.Network{DNS: model.DefaultDNS()}})
	if zone == nil {
		t.Fatal("there is no zone")
	}
	server := dns.New(h.Forwarder, nil, slog.New(slog.DiscardHandler))
	server.Serve(&dns.Served{Zone: zone, Clients: dns.NewRanges([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")})})
	server.Listen([]netip.AddrPort{at})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{server.Run, h.Forwarder.Run} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() { cancel(); running.Wait() })
	client := miekg.Client{Net: "tcp", Timeout: time.Second}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) { // until it listens
		if _, _, err := client.Exchange(new(miekg.Msg).SetQuestion("dns-version.cluster.local.", miekg.TypeTXT), at.String()); err == nil {
			return h
		}
		if time.Now().After(deadline) {
			t.Fatal("the server does not listen")
		}
	}
}

func (h *house) ask(t *testing.T, network, name string, size uint16) *miekg.Msg {
	t.Helper()
	query := new(miekg.Msg).SetQuestion(name, miekg.TypeA)
	if size > 0 {
		query.SetEdns0(size, false)
	}
	client := miekg.Client{Net: network, Timeout: 6 * time.Second}
	answer, _, err := client.Exchange(query, h.at.String())
	if err != nil {
		t.Fatalf("%s by %s: %v", name, network, err)
	}
	return answer
}

// awaits returns when something is told for a reason.
func (h *house) awaits(reason string) {
	for all := range h.told {
		if slices.ContainsFunc(all, func(p model.Problem) bool { return p.Reason == reason }) {
			return
		}
	}
}

// TestWholeWay: from a client by the server and the forwarder to an upstream, and
// back, by UDP and TCP.
func TestWholeWay(t *testing.T) {
	var asked atomic.Int64 // without probes
	counted := func(answer func([]byte) [][]byte) func([]byte) [][]byte {
		return func(request []byte) [][]byte {
			if strings.Contains(string(request), "\x07example\x00") {
				asked.Add(1)
			}
			return answer(request)
		}
	}
	up := newSite(t, "127.0.0.61", counted(cutShort), counted(addresses(4000)))
	h := newHouse(t, "127.0.0.60", func(netip.AddrPort) Options {
		return Options{MaxTTL: -1, MaxNegativeTTL: -1, MaxStale: -1, Upstreams: []model.Upstream{{At: up.at}}}
	})
	if m := h.ask(t, "tcp", "WwW.Example.", 0); len(m.Answer) != 4000 || m.Question[0].Name != "WwW.Example." || m.Answer[0].Header().Name != "WwW.Example." {
		t.Errorf("by TCP: %d addresses of %v", len(m.Answer), m.Question)
	}
	before := asked.Load()
	for _, size := range []uint16{0, 512, 1232, 4096} {
		m := h.ask(t, "udp", "www.example.", size)
		m.Compress = true // so that Len counts what was sent
		if !m.Truncated || m.Rcode != 0 || m.Len() > max(512, int(size)) {
			t.Errorf("by UDP with %d bytes: %d bytes, truncated: %v", size, m.Len(), m.Truncated)
		}
	}
	if n := asked.Load() - before; before != 2 || n != 0 {
		t.Errorf("the upstream was asked %d times for what is kept", n)
	}
}

// TestServerAsItsOwnUpstream: by real packets. What is asked outside fails soon,
// the cluster's names are answered meanwhile, and who looks is told.
func TestServerAsItsOwnUpstream(t *testing.T) {
	h := newHouse(t, "127.0.0.62", func(at netip.AddrPort) Options { return Options{Upstreams: []model.Upstream{{At: at}}, Node: "n1"} })
	h.awaits("UpstreamLoops")
	began := time.Now()
	if m := h.ask(t, "udp", "www.example.", 0); m.Rcode != rcodeServFail {
		t.Errorf("got %v", m)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("a query that nobody can answer takes %s", took)
	}
	query := new(miekg.Msg).SetQuestion("dns-version.cluster.local.", miekg.TypeTXT)
	if m, err := miekg.Exchange(query, h.at.String()); err != nil || len(m.Answer) != 1 {
		t.Errorf("got %v, %v", m, err)
	}
}

// TestTwoServersInACircle: each is the other's upstream. Neither knows the other's
// marks, but a mark comes back by the other.
func TestTwoServersInACircle(t *testing.T) {
	silent := newSite(t, "127.0.0.63", nothing, nothing)
	first := newHouse(t, "127.0.0.64", func(netip.AddrPort) Options {
		return Options{Upstreams: []model.Upstream{{At: silent.at}}}
	})
	second := newHouse(t, "127.0.0.65", func(netip.AddrPort) Options {
		return Options{Upstreams: []model.Upstream{{At: first.at}}}
	})
	first.Follow(Options{Upstreams: []model.Upstream{{At: second.at}}})
	first.awaits("UpstreamLoops")
	for _, h := range []*house{first, second} {
		if m := h.ask(t, "udp", "www.example.", 0); m.Rcode != rcodeServFail {
			t.Errorf("got %v", m)
		}
	}
}
