package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
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
	synctest.Test(t, func(t *testing.T) {
		feed := &model.Feed{}
		change(feed, "0")
		c := &Config{Node: testNode, Dataplanes: []dataplane.Dataplane{p}, Log: slog.New(slog.DiscardHandler)}
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
			s.Network = model.DefaultNetwork()
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

func TestHealth(t *testing.T) {
	done, waiting := make(chan struct{}), make(chan struct{})
	close(done)
	h := &health{loop: newLoop(&Config{}, nil), checks: checks{
		{"apiserver", done, nil},
		{"kernel", waiting, func() string { return "the plan has not been applied yet" }},
	}}
	get := func(path string) (int, string) {
		recorder := httptest.NewRecorder()
		h.mux().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, path, nil))
		return recorder.Code, recorder.Body.String()
	}
	code, text := get("/readyz")
	if code != http.StatusServiceUnavailable || text != "ok       apiserver\nwaiting  kernel: the plan has not been applied yet\n" {
		t.Errorf("%d %q", code, text)
	}
	close(waiting)
	if code, text := get("/readyz"); code != http.StatusOK {
		t.Errorf("%d %q", code, text)
	}
	h.loop.outcome.set(outcome{err: errors.New("broken")})
	if code, text := get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(text, "broken") {
		t.Errorf("%d %q", code, text)
	}
	h.loop.busy.Store(time.Now().Add(-time.Hour).UnixNano())
	if code, text := get("/healthz"); code != http.StatusServiceUnavailable {
		t.Errorf("%d %q", code, text)
	}
}
