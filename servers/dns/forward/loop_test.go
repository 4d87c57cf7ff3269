package forward

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/fairlead-net/fairlead/model"
	planned "github.com/fairlead-net/fairlead/plan/dns"
	"github.com/fairlead-net/fairlead/servers/dns"
)

// back is an upstream that asks a forwarder what it is asked, as a site's server
// would that has been told to.
func back(b **bench, hops *atomic.Int64) does {
	return func(ctx context.Context, a *ask) ([]byte, error) {
		hops.Add(1)
		wire, err := (*b).Answer(ctx, dns.Question{
			Name: planned.Name(a.name), Type: a.qtype, Class: classIN, DNSSEC: a.do, CheckingDisabled: a.cd,
			Client: netip.MustParseAddr("192.0.2.1"),
		}, nil)
		if err == nil && ctx.Err() != nil {
			err = ctx.Err()
		}
		return wire, err
	}
}

// TestLoop: an upstream that leads back is not asked, others are, and what to do
// is told, until it leads elsewhere.
func TestLoop(t *testing.T) {
	var hops atomic.Int64
	var self *bench
	inBubble(t, Options{Node: "n1"}, []does{dead, after(time.Millisecond, 60, "10.9.0.2")}, func(t *testing.T, b *bench) {
		self = b
		b.fakes[0].becomes(back(&self, &hops))
		time.Sleep(lastProbe + time.Second)
		synctest.Wait()
		told := *b.told.Load()
		if len(told) != 1 || told[0].Reason != "UpstreamLoops" || told[0].Name != "n1" {
			t.Fatalf("told is %v", told)
		}
		t.Log(told[0])
		before := hops.Load()
		for i := range 20 {
			if m, took := b.look(question(string(rune('a'+i))+".example", typeA)); addr(m) != "10.9.0.2" || took > time.Millisecond {
				t.Errorf("%v after %s", m, took)
			}
		}
		if n := hops.Load() - before; n > 0 {
			t.Errorf("it was asked %d times", n)
		}
		b.fakes[0].becomes(after(time.Millisecond, 60, "10.9.0.1"))
		time.Sleep(loopProbe + time.Second)
		synctest.Wait()
		if told := *b.told.Load(); len(told) != 0 {
			t.Errorf("told is still %v", told)
		}
	})
}

// TestOnlyOurselves: there is no other upstream. Queries fail at once, and none
// goes around.
func TestOnlyOurselves(t *testing.T) {
	var hops atomic.Int64
	var self *bench
	inBubble(t, Options{}, []does{dead}, func(t *testing.T, b *bench) {
		self = b
		b.fakes[0].becomes(back(&self, &hops))
		// Before it is known: a query waits for itself, and goes around no faster than
		// it is repeated.
		if m, took := b.look(question("early.example", typeA)); m.Rcode != rcodeServFail || took > 5*time.Second {
			t.Errorf("%v after %s", m, took)
		}
		if n := hops.Load(); n > 3*maxAttempts {
			t.Errorf("it went around %d times", n)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if told := *b.told.Load(); len(told) != 1 || told[0].Reason != "UpstreamLoops" {
			t.Errorf("told is %v", told)
		}
		if m, took := b.look(question("late.example", typeA)); m.Rcode != rcodeServFail || took > 0 {
			t.Errorf("%v after %s", m, took)
		}
	})
}

// TestMarksOfOthers: another cluster's server that asks us is like any client.
func TestMarksOfOthers(t *testing.T) {
	ours, theirs := newMarks(), newMarks()
	a := theirs.ask(rootName)
	if ours.isMark(a.name) || !theirs.isMark(a.name) {
		t.Errorf("%q is taken for whose it is not", a.name)
	}
	q := dns.Question{Name: planned.Name(a.name), Type: a.qtype, Class: classIN}
	if wire := theirs.answer(nil, q); ours.ours(wire, a) || !theirs.ours(wire, a) {
		t.Errorf("the answer is taken for whose it is not")
	}
	long := question("a234567890.b234567890.c234567890.d234567890.e234567890.f234567890.g234567890.h234567890.i234567890.j234567890.k234567890.l234567890.m234567890.n234567890.o234567890.p234567890.q234567890.r234567890.s234567890.t234567890", typeA)
	if a := ours.ask(string(long.Name)); len(a.name) > maxName || a.qtype != miekg.TypeSOA {
		t.Errorf("asked is %q", a.name)
	}
}

// TestResolvConfIsOurselves: by real sockets, a resolv.conf that names the address
// where the cluster's DNS answers, and one that names a server that asks it.
func TestResolvConfIsOurselves(t *testing.T) {
	var self atomic.Pointer[Forwarder]
	relay := func(request []byte) [][]byte {
		var m miekg.Msg
		f := self.Load()
		if m.Unpack(request) != nil || f == nil {
			return nil
		}
		q := question(m.Question[0].Name, m.Question[0].Qtype)
		wire, _ := f.Answer(context.Background(), q, nil)
		copy(wire, request[:2])
		return [][]byte{wire}
	}
	s := newSite(t, "127.0.0.57", relay, nothing)
	good := newSite(t, "127.0.0.58", addresses(2), nothing)
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	write(t, conf, "nameserver 10.96.0.10\n")
	told := make(chan []model.Problem, 10)
	f := New(Options{
		ResolvConf: conf, Own: []netip.Addr{netip.MustParseAddr("10.96.0.10")}, Node: "n1", MaxTTL: -1,
		Stubs: []model.StubDomain{
			{Zone: "loop.example", Upstreams: []model.Upstream{{At: s.at}}},
			{Zone: "good.example", Upstreams: []model.Upstream{{At: good.at}}},
		},
	}, func(all ...model.Problem) { told <- all }, slog.New(slog.NewTextHandler(io.Discard, nil)))
	self.Store(f)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	for {
		problems := <-told
		reasons := map[string]bool{}
		for _, p := range problems {
			reasons[p.Reason] = true
		}
		if reasons["UpstreamLoops"] && reasons["UpstreamIsOurselves"] && reasons["NoUpstreams"] {
			for _, p := range problems {
				t.Log(p)
			}
			break
		}
	}
	b := &bench{Forwarder: f, t: t}
	if m, _ := b.look(question("a.loop.example", typeA)); m.Rcode != rcodeServFail {
		t.Errorf("got %v", m)
	}
	if m, _ := b.look(question("www.elsewhere", typeA)); m.Rcode != rcodeServFail {
		t.Errorf("got %v", m)
	}
	if m, _ := b.look(question("a.good.example", typeA)); len(m.Answer) != 2 {
		t.Errorf("got %v", m)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
