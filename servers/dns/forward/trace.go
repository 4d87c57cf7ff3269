package forward

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/fairlead-net/fairlead/servers/dns"
)

// Step is something that was done for a question.
type Step struct {
	At       time.Duration // since the question was put
	Took     time.Duration // 0: not measured
	Upstream string        // who was asked; empty: nobody
	Text     string        // what was done, or came of it
}

// Trace is what was done for one question. A nil one takes in nothing.
type Trace struct {
	began time.Time

	mu    sync.Mutex
	steps []Step
}

func newTrace() *Trace { return &Trace{began: time.Now()} }

// say adds a step.
func (t *Trace) say(format string, args ...any) {
	if t != nil {
		t.add(Step{Text: fmt.Sprintf(format, args...)})
	}
}

func (t *Trace) add(s Step) {
	if t == nil {
		return
	}
	s.At = time.Since(t.began)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.steps = append(t.steps, s)
}

// Steps are what was done up to now, in its order.
func (t *Trace) Steps() []Step {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]Step(nil), t.steps...)
}

// Trace answers a question, and says what was done for it. If anew, what is kept
// is not used. The question is not merged with others.
func (f *Forwarder) Trace(ctx context.Context, q dns.Question, anew bool) ([]byte, []Step) {
	t := newTrace()
	release, ok := f.flights.hold()
	if q.Class != classIN || !ok {
		attribute(q, dns.ByServer, nil)
		t.say("only questions of class IN are asked, and only while the server runs")
		return fail(nil, q, rcodeRefused), t.Steps()
	}
	defer release()
	var k key
	raw := keyOf(q, &k)
	s, hash := f.cache.shardOf(raw)
	old := s.find(raw, hash)
	now := f.cache.now()
	t.sayCached(f.cache, old, now)
	if old != nil && !anew && f.cache.fresh(old, now) {
		attribute(q, dns.ByCache, old.answer.from)
		return old.answer.tell(nil, now-old.stored, false), t.Steps()
	}
	a := askOf(string(raw))
	a.trace = t
	found, err := f.find(ctx, string(raw), a)
	switch {
	case found != nil && !found.failed():
		credit(q, found)
		return found.tell(nil, 0, false), t.Steps()
	case old != nil && old.usable(f.cache.now()):
		attribute(q, dns.ByStale, old.answer.from)
		t.say("no upstream has an answer: the one that is kept is given although it has ended")
		return old.answer.tell(nil, 0, true), t.Steps()
	case found != nil:
		credit(q, found)
		return found.tell(nil, 0, false), t.Steps()
	}
	credit(q, nil)
	t.say("%v", err)
	return fail(nil, q, rcodeServFail), t.Steps()
}

func (t *Trace) sayCached(c *cache, e *entry, now time.Duration) {
	switch {
	case e == nil:
		t.say("no answer is kept")
	case c.fresh(e, now):
		t.say("an answer is kept: %s old, for another %s: %s", round100(now-e.stored), round100(e.ends-now), describe(e.answer))
	case e.usable(now) && e.generation != c.generation.Load():
		t.say("an answer is kept that other upstreams have given: %s old", round100(now-e.stored))
	case e.usable(now):
		t.say("an answer is kept that has ended %s ago", round100(now-e.ends))
	default:
		t.say("the answer that was kept has ended")
	}
}

func (t *Trace) sayGroup(g *group) {
	if t == nil {
		return
	}
	about := "all names"
	if g.zone != rootName {
		about = nameText(g.zone)
	}
	t.say("%d upstreams are asked about %s", len(g.upstreams), about)
	for _, u := range g.upstreams {
		s := u.standing()
		text := fmt.Sprintf("answers in about %s", s.rtt.mean.Round(10*time.Microsecond))
		switch {
		case s.looping:
			text = "leads back here, and is not asked"
		case s.down:
			text = "is down: " + describeError(s.why)
		case s.rtt.mean == 0:
			text = "has not answered yet"
		}
		t.add(Step{Upstream: u.to.String(), Text: text})
	}
}

func round100(d time.Duration) time.Duration { return d.Round(100 * time.Millisecond) }
