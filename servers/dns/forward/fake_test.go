package forward

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/fairlead-net/fairlead/model"
	planned "github.com/fairlead-net/fairlead/plan/dns"
	"github.com/fairlead-net/fairlead/servers/dns"
)

// fake is an upstream without a network. It is told what to do with each ask.
type fake struct {
	mu     sync.Mutex
	do     func(ctx context.Context, a *ask) ([]byte, error)
	asked  atomic.Int64 // without probes
	probed atomic.Int64
	closed atomic.Bool
}

func (f *fake) exchange(ctx context.Context, a *ask) ([]byte, error) {
	if isProbe(a) {
		f.probed.Add(1)
	} else {
		f.asked.Add(1)
	}
	f.mu.Lock()
	do := f.do
	f.mu.Unlock()
	return do(ctx, a)
}

func (f *fake) becomes(do func(ctx context.Context, a *ask) ([]byte, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.do = do
}

func (f *fake) reused() (uint64, uint64) { return 0, 0 }
func (f *fake) close()                   { f.closed.Store(true) }

func isProbe(a *ask) bool { return a.local || a.qtype == miekg.TypeTXT && len(a.name) > 40 }

// after answers with an address that stands for the upstream, after a while.
func after(wait time.Duration, ttl uint32, addr string) func(context.Context, *ask) ([]byte, error) {
	return func(ctx context.Context, a *ask) ([]byte, error) {
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
		return respond(a, func(m *miekg.Msg) {
			if a.qtype != typeA {
				return
			}
			m.Answer = append(m.Answer, &miekg.A{Hdr: miekg.RR_Header{Name: m.Question[0].Name, Rrtype: typeA, Class: 1, Ttl: ttl}, A: netip.MustParseAddr(addr).AsSlice()})
		}), nil
	}
}

const typeA = miekg.TypeA

// says answers with an rcode.
func says(wait time.Duration, rcode int) func(context.Context, *ask) ([]byte, error) {
	return func(ctx context.Context, a *ask) ([]byte, error) {
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
		return respond(a, func(m *miekg.Msg) { m.Rcode = rcode }), nil
	}
}

// dead never answers.
func dead(ctx context.Context, a *ask) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

var errUnreachable = errors.New("connection refused")

func refused(context.Context, *ask) ([]byte, error) { return nil, errUnreachable }

func sleep(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func respond(a *ask, fill func(*miekg.Msg)) []byte {
	var m miekg.Msg
	if err := m.Unpack(a.pack(1, form{})); err != nil {
		panic(err)
	}
	m.Extra = nil
	m.Response, m.RecursionAvailable = true, true
	if !isProbe(a) {
		fill(&m)
	} else {
		m.Rcode = rcodeNXDomain
	}
	wire, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return wire
}

// bench is a forwarder with fakes for upstreams, which are 192.0.2.1 and so on.
type bench struct {
	*Forwarder
	t     *testing.T
	fakes []*fake
	told  atomic.Pointer[[]model.Problem]
	end   func()
}

// inBubble runs a test in which time passes when all wait.
func inBubble(t *testing.T, options Options, upstreams []func(context.Context, *ask) ([]byte, error), test func(t *testing.T, b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, options, upstreams)
		defer func() { b.end() }()
		test(t, b)
	})
}

func newBench(t *testing.T, options Options, upstreams []func(context.Context, *ask) ([]byte, error)) *bench {
	b := &bench{t: t}
	by := map[model.Upstream]*fake{}
	for i, do := range upstreams {
		to := model.Upstream{At: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i)}), 53)}
		b.fakes = append(b.fakes, &fake{do: do})
		by[to] = b.fakes[i]
		options.Upstreams = append(options.Upstreams, to)
	}
	if options.MaxTTL == 0 {
		options.MaxTTL, options.MaxNegativeTTL, options.MaxStale = -1, -1, -1
	}
	tell := func(all ...model.Problem) { b.told.Store(&all) }
	b.Forwarder = newWith(options, tell, slog.New(slog.NewTextHandler(io.Discard, nil)), func(to model.Upstream) transport {
		if f := by[to]; f != nil {
			return f
		}
		return &fake{do: refused}
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	b.end = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	synctest.Wait()
	return b
}

// question is one for an address, of a name in text.
func question(name string, qtype uint16) dns.Question {
	wire := make([]byte, maxName)
	n, err := miekg.PackDomainName(miekg.CanonicalName(name), wire, 0, nil, false)
	if err != nil {
		panic(err)
	}
	return dns.Question{Name: planned.Name(wire[:n]), Type: qtype, Class: classIN, Client: netip.MustParseAddr("10.0.0.1")}
}

// look asks as a server does, and returns the answer and how long it took.
func (b *bench) look(q dns.Question) (*miekg.Msg, time.Duration) {
	b.t.Helper()
	began := time.Now()
	wire, ok := b.Cached(q, nil)
	if !ok {
		var err error
		if wire, err = b.Answer(context.Background(), q, nil); err != nil {
			b.t.Errorf("Answer: %v", err)
		}
	}
	return b.read(q, wire), time.Since(began)
}

// read holds what the Server relies on.
func (b *bench) read(q dns.Question, wire []byte) *miekg.Msg {
	b.t.Helper()
	var m miekg.Msg
	if err := m.Unpack(wire); err != nil {
		b.t.Fatalf("the answer is no message: %v", err)
	}
	if m.Id != 0 || !m.Response || len(m.Question) != 1 || m.IsEdns0() != nil ||
		string(wire[headerLen:headerLen+len(q.Name)]) != string(q.Name) || m.Question[0].Qtype != q.Type {
		b.t.Errorf("the answer is not of the form that the Server relies on:\n%v", &m)
	}
	return &m
}

// addr is the one address in an answer, or what it says else.
func addr(m *miekg.Msg) string {
	if len(m.Answer) == 1 {
		if a, ok := m.Answer[0].(*miekg.A); ok {
			return a.A.String()
		}
	}
	return miekg.RcodeToString[m.Rcode]
}
