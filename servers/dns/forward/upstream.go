package forward

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// upstream is a server that is asked. How it is, is known from what it is asked
// anyway; it is only asked for that (health.go) while it gives no answers.
type upstream struct {
	to        model.Upstream
	transport transport
	zone      string        // of the names it is asked about, on the wire
	suspect   chan struct{} // of one element: look after it
	counts    upstreamCounts

	mu       sync.Mutex
	rtt      rtt
	measured time.Time // when it has answered last; zero: never
	failures int       // in a row
	down     bool
	since    time.Time // of down
	looping  bool
	why      error // of the last failure
}

// rtt is how long answers take, smoothed (RFC 6298).
type rtt struct{ mean, deviation time.Duration }

func (r *rtt) add(took time.Duration) {
	if r.mean == 0 {
		r.mean, r.deviation = took, took/2
		return
	}
	r.deviation += ((took - r.mean).Abs() - r.deviation) / 4
	r.mean += (took - r.mean) / 8
}

// downAfter is how many queries in a row have to fail before an upstream is
// taken for gone: one lost packet says nothing.
const downAfter = 2

func newUpstream(to model.Upstream, t transport, zone string) *upstream {
	return &upstream{to: to, transport: t, zone: zone, suspect: make(chan struct{}, 1)}
}

// succeeded notes that it has answered, whatever it has said.
func (u *upstream) succeeded(took time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.rtt.add(took)
	u.measured, u.failures, u.down, u.why = time.Now(), 0, false, nil
}

// failed notes that it has not answered a query since it was put. One name that
// an upstream cannot resolve in time does not make it ill: it answers others
// meanwhile.
func (u *upstream) failed(asked time.Time, why error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.measured.After(asked) {
		return
	}
	u.why = why
	if u.failures++; u.failures < downAfter {
		return
	}
	u.fall()
}

// fall makes it down, if it is not, and looked after.
func (u *upstream) fall() {
	if u.down {
		return
	}
	u.down, u.since = true, time.Now()
	u.counts.broken.Add(1)
	select {
	case u.suspect <- struct{}{}:
	default:
	}
}

// standing is what an upstream is chosen by.
type standing struct {
	rtt           rtt
	measured      time.Time
	down, looping bool
	since         time.Time
	why           error
}

func (u *upstream) standing() standing {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.standingLocked()
}

func (u *upstream) standingLocked() standing {
	return standing{u.rtt, u.measured, u.down, u.looping, u.since, u.why}
}

// asked is what came of asking one upstream.
type asked struct {
	from   *upstream
	answer *answer // nil: none
	err    error
}

// ask asks it, and notes what comes of it. What comes and is of no use stands for
// SERVFAIL: the upstream is there, and another one may do better.
func (u *upstream) ask(ctx context.Context, a *ask, keep lifetimes) asked {
	began := time.Now()
	raw, err := u.transport.exchange(ctx, a)
	took := time.Since(began)
	if err != nil {
		if !errors.Is(context.Cause(ctx), errStopped) && !ours(err) {
			u.counts.failures.Add(1)
			u.failed(began, err)
		}
		a.trace.add(Step{Upstream: u.to.String(), Took: took, Text: describeError(err)})
		return asked{u, nil, err}
	}
	u.succeeded(took)
	answer, err := clean(raw, a, keep)
	if truncated(raw) {
		err = errNotWhole
	}
	if err != nil {
		u.counts.failures.Add(1)
		a.trace.add(Step{Upstream: u.to.String(), Took: took, Text: "its answer is of no use: " + err.Error()})
		return asked{u, silence(a, failureTTL), err}
	}
	answer.from = u
	u.counts.took(answer.rcode, took)
	a.trace.add(Step{Upstream: u.to.String(), Took: took, Text: describe(answer)})
	return asked{u, answer, nil}
}

// ours tells whether an error says nothing of the upstream, but of this process.
func ours(err error) bool {
	for _, is := range []error{errClosed, errBusy, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}

// describe says what an answer is, for people.
func describe(a *answer) string {
	text := rcodeText(a.rcode)
	if a.rcode == rcodeSuccess && a.negative() {
		text = "NOERROR without a record of that type"
	}
	text += fmt.Sprintf(", %d bytes, to be kept for %s", len(a.wire), a.ttl)
	if a.note != "" {
		text += " (" + a.note + ")"
	}
	return text
}

func describeError(err error) string {
	if errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		return "no answer in time"
	}
	return err.Error()
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}
