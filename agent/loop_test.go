package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-net/fairlead/dataplane"
	"github.com/fairlead-net/fairlead/dataplane/fake"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

// plane records revisions and answers as told.
type plane struct {
	mu      sync.Mutex
	applied []uint64
	answer  func() ([]model.Problem, error) // nil: all is well
	slow    bool                            // each apply takes a second
}

func (p *plane) Apply(_ context.Context, node *plan.Node) ([]model.Problem, error) {
	if p.slow {
		time.Sleep(time.Second)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.applied = append(p.applied, node.Revision)
	if p.answer != nil {
		return p.answer()
	}
	return nil, nil
}

func (p *plane) revisions() []uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]uint64(nil), p.applied...)
}

// within runs a loop over a plane in a bubble of time, until the test ends.
func within(t *testing.T, p dataplane.Dataplane, test func(*testing.T, *loop, *model.Feed)) {
	withinAll(t, []dataplane.Dataplane{p}, test)
}

func withinAll(t *testing.T, planes []dataplane.Dataplane, test func(*testing.T, *loop, *model.Feed)) {
	synctest.Test(t, func(t *testing.T) {
		feed := &model.Feed{}
		change(feed, "0")
		c := &Config{Node: testNode, Dataplanes: planes, Log: slog.New(slog.DiscardHandler)}
		l := newLoop(c, feed)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- l.Run(ctx) }()
		test(t, l, feed)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func change(feed *model.Feed, name string) uint64 {
	return feed.Edit(func(s *model.Snapshot) { s.Nodes = s.Nodes.With(name, &model.Node{Name: name}) })
}

func TestWaitAppliedWaitsForItsRevision(t *testing.T) {
	p := &plane{slow: true}
	within(t, p, func(t *testing.T, l *loop, feed *model.Feed) {
		synctest.Wait()
		revision := change(feed, "a")
		began := time.Now()
		result, err := l.waitApplied(t.Context(), revision)
		// The turn that was under way is not enough.
		if err != nil || result.plan.Revision < revision || time.Since(began) != 2*time.Second {
			t.Errorf("after %v: revision %d, wanted %d; %v", time.Since(began), result.plan.Revision, revision, err)
		}
	})
}

func TestChangesAreTakenTogether(t *testing.T) {
	p := &plane{slow: true}
	within(t, p, func(t *testing.T, l *loop, feed *model.Feed) {
		synctest.Wait()
		var last uint64
		for _, name := range strings.Split("a b c d e f g h", " ") {
			last = change(feed, name)
		}
		if _, err := l.waitApplied(t.Context(), last); err != nil {
			t.Error(err)
		}
		if got := p.revisions(); len(got) != 2 {
			t.Errorf("applied %v", got)
		}
	})
}

// A kernel that fails is asked again, ever more slowly, whatever changes; those
// who wait learn why.
func TestFailureIsRetriedWithoutSpinning(t *testing.T) {
	broken := true
	p := &plane{}
	p.answer = func() ([]model.Problem, error) {
		if broken {
			return nil, errors.New("the socket is broken")
		}
		return nil, nil
	}
	within(t, p, func(t *testing.T, l *loop, feed *model.Feed) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for _, name := range strings.Split("a b c d e f g h", " ") {
			change(feed, name)
		}
		if _, err := l.waitApplied(ctx, 1); err == nil || !strings.Contains(err.Error(), "the socket is broken") {
			t.Errorf("waiting said %v", err)
		}
		if isDone(l.began) {
			t.Error("it counts as begun")
		}
		if n := len(p.revisions()); n < 8 || n > 16 {
			t.Errorf("applied %d times in a minute", n)
		}
		p.mu.Lock()
		broken = false
		p.mu.Unlock()
		if _, err := l.waitApplied(t.Context(), change(feed, "z")); err != nil || !isDone(l.began) {
			t.Errorf("after the repair: %v", err)
		}
	})
}

// What the kernel refused is tried again though nothing changes, and does not
// delay what does.
func TestRefusedIsRetried(t *testing.T) {
	refused := model.Problem{Kind: "Node", Name: testNode, Reason: "KernelRefused"}
	p := &plane{answer: func() ([]model.Problem, error) { return []model.Problem{refused}, nil }}
	within(t, p, func(t *testing.T, l *loop, feed *model.Feed) {
		began := time.Now()
		result, err := l.waitApplied(t.Context(), change(feed, "a"))
		if err != nil || time.Since(began) > 0 || len(result.refused) != 1 {
			t.Errorf("after %v: %v, %v", time.Since(began), result.refused, err)
		}
		time.Sleep(10 * time.Second)
		if n := len(p.revisions()); n < 4 || n > 7 {
			t.Errorf("applied %d times in 10 s", n)
		}
	})
}

// However often the cluster changes, what was refused is tried again soon; and
// at once as often as at first when something else is refused.
func TestChangesDoNotDelayRefused(t *testing.T) {
	p, name := &plane{}, "a"
	p.answer = func() ([]model.Problem, error) { return []model.Problem{{Name: name}}, nil }
	within(t, p, func(t *testing.T, l *loop, feed *model.Feed) {
		settle := func() {
			t.Helper()
			before := len(p.revisions())
			if time.Sleep(1200 * time.Millisecond); len(p.revisions()) != before+1 {
				t.Errorf("applied %d times in 1.2 s, want 1", len(p.revisions())-before)
			}
		}
		for n := range 20 {
			_, err := l.waitApplied(t.Context(), change(feed, strings.Repeat("n", n)))
			must(t, err)
		}
		settle()
		time.Sleep(10 * time.Minute)
		p.mu.Lock()
		name = "b"
		p.mu.Unlock()
		_, err := l.waitApplied(t.Context(), change(feed, "z"))
		must(t, err)
		settle()
	})
}

// A pod is not connected before every data plane has what concerns it: one of
// them filters. What fails is tried again, without spinning.
func TestAllAreWaitedFor(t *testing.T) {
	broken := true
	routes, filter := &plane{}, &plane{}
	filter.answer = func() ([]model.Problem, error) {
		if broken {
			return nil, errors.New("the table is too large")
		}
		return nil, nil
	}
	withinAll(t, []dataplane.Dataplane{routes, filter}, func(t *testing.T, l *loop, feed *model.Feed) {
		revision := change(feed, "n")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := l.waitApplied(ctx, revision); err == nil || !strings.Contains(err.Error(), "the table is too large") {
			t.Fatalf("waiting said %v", err)
		}
		if n := len(filter.revisions()); n < 8 || n > 16 {
			t.Errorf("applied %d times in a minute", n)
		}
		if isDone(l.began) {
			t.Error("it counts as begun")
		}
		filter.mu.Lock()
		broken = false
		filter.mu.Unlock()
		if _, err := l.waitApplied(t.Context(), revision); err != nil || !isDone(l.began) {
			t.Errorf("after the repair: %v", err)
		}
	})
}

// What the kernel dropped with an interface is back as soon as the feed has the
// interface anew, though it looks as before.
func TestNewLinkIsReadBack(t *testing.T) {
	kernel := fake.NewKernel()
	within(t, fake.New(kernel), func(t *testing.T, l *loop, feed *model.Feed) {
		networks := []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}
		kernel.AddDevice("uplink", networks...)
		peer := &model.Node{
			Name: "peer", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.2")},
			PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24")},
		}
		applied := func() string {
			result, err := l.waitApplied(t.Context(), feed.Edit(func(s *model.Snapshot) {
				s.Network = model.DefaultNetwork()
				s.Nodes = s.Nodes.With(testNode, newCluster("10.244.1.0/24").node).With(peer.Name, peer)
				s.Links = s.Links.With("uplink", &model.Link{Name: "uplink", MTU: 1500, Addresses: networks})
			}))
			must(t, err)
			if len(result.refused) > 0 {
				t.Errorf("refused: %v", result.refused)
			}
			return kernel.State()
		}
		before := applied()
		kernel.RemoveDevice("uplink")
		kernel.AddDevice("uplink", networks...)
		if after := applied(); after != before || !strings.Contains(before, "via 192.0.2.2") {
			t.Errorf("there is\n%sthere was\n%s", after, before)
		}
	})
}

// If an uplink is down, the routes to a thousand nodes need not all say so.
func TestProblemsAreCondensed(t *testing.T) {
	var many []model.Problem
	for n := range 100 {
		many = append(many, model.Problem{Name: testNode, Reason: "DeviceDown", Field: strings.Repeat("f", 100-n)})
	}
	many = append(many, model.Problem{Name: testNode, Reason: "Conflict", Field: "z"})
	last := many[100]
	shown := condense(many)
	if len(shown) != 11 || shown[0].Field != "f" || shown[0].Message != " (and 90 more)" || shown[10] != last || many[100] != last {
		t.Errorf("%d: %v", len(shown), shown)
	}
}

// ADD learns that its own route was refused, and leaves nothing; the pods of
// others are not concerned.
func TestRouteOfAPodIsRefused(t *testing.T) {
	kernel := fake.NewKernel()
	within(t, fake.New(kernel), func(t *testing.T, l *loop, feed *model.Feed) {
		cluster := newCluster("10.244.1.0/24")
		uplink := &model.Link{Name: "uplink", MTU: 1500, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}}
		kernel.AddDevice("uplink", uplink.Addresses...)
		kernel.AddDevice("fl0")
		good := &model.Attachment{AttachmentKey: keyOf("good"), Device: "fl0", Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.1")}}
		bad := &model.Attachment{AttachmentKey: keyOf("bad"), Device: "missing", Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.2")}}
		revision := feed.Edit(func(s *model.Snapshot) {
			s.Network, s.PoliciesKnown = model.DefaultNetwork(), true
			s.Nodes = s.Nodes.With(testNode, cluster.node)
			s.Links = s.Links.With("uplink", uplink)
			s.Attachments = s.Attachments.With(good.AttachmentKey, good).With(bad.AttachmentKey, bad)
		})
		a := &attacher{node: testNode, feed: feed, loop: l}
		if err := a.waitRoutes(t.Context(), good, revision); err != nil {
			t.Errorf("of the other pod: %v", err)
		}
		if err := a.waitRoutes(t.Context(), bad, revision); err == nil || !strings.Contains(err.Error(), "10.244.1.2") {
			t.Errorf("got %v", err)
		}
	})
}
