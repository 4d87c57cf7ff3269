// Package forward finds names that are not of the cluster: it asks the upstreams
// of the node or those it is told, each question once however many clients want
// to know, and keeps what they say for as long as they say, in bounded memory.
// It resolves nothing itself, and knows nothing of the cluster's names. It speaks
// UDP, TCP, TLS and HTTPS to upstreams; to clients it speaks through servers/dns
// alone. A Forwarder is run once; all else may be called at any time, from
// anywhere.
package forward

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/servers/dns"
)

// Forwarder is a dns.Forwarder.
type Forwarder struct {
	tell    func(...model.Problem)
	log     *slog.Logger
	options atomic.Pointer[Options]
	connect func(model.Upstream) transport

	cache   *cache
	flights *flights
	routes  atomic.Pointer[routes]
	marks   *marks
	counts  counts

	base   context.Context // of all that is asked; ends with Run
	stop   context.CancelCauseFunc
	asking sync.WaitGroup

	changed chan struct{} // of one element: look at options and resolv.conf
	noted   chan struct{} // of one element: look at how upstreams are

	mu      sync.Mutex // guards what follows: one change at a time
	conf    resolvConf
	problem []model.Problem // of what was configured
}

var _ dns.Forwarder = (*Forwarder)(nil)

// New returns a forwarder that answers from the moment on. What there is to mend
// is told by Run, with all of it, whenever that has changed.
func New(options Options, tell func(...model.Problem), log *slog.Logger) *Forwarder {
	return newWith(options, tell, log, dialing{mixed: options.MixCase}.connect)
}

func newWith(options Options, tell func(...model.Problem), log *slog.Logger, connect func(model.Upstream) transport) *Forwarder {
	f := &Forwarder{
		tell: tell, log: log, connect: connect,
		flights: newFlights(), marks: newMarks(),
		changed: make(chan struct{}, 1), noted: make(chan struct{}, 1),
	}
	f.base, f.stop = context.WithCancelCause(context.Background())
	f.routes.Store(&routes{})
	f.options.Store(options.withDefaults())
	f.cache = newCache(int(f.options.Load().CacheBytes))
	f.configure()
	return f
}

// prefetchAt is what part of an answer's time is left when it is renewed, and
// popular how many clients have to have asked for it by then.
const (
	prefetchAt  = 10 // a tenth
	popular     = 3
	minPrefetch = 10 * time.Second // of an answer's time: what is short is not worth it
)

// Cached implements dns.Forwarder.
func (f *Forwarder) Cached(q dns.Question, into []byte) ([]byte, bool) {
	if q.Class != classIN {
		return into, false
	}
	var k key
	raw := keyOf(q, &k)
	s, hash := f.cache.shardOf(raw)
	e := s.find(raw, hash)
	if e == nil {
		return into, false // Answer counts it
	}
	now := f.cache.now()
	if f.cache.fresh(e, now) {
		s.counts.hits[e.kind()].Add(1)
		if e.hits.Load() < popular {
			e.hits.Add(1)
		} else if e.prefetches(now) {
			f.renew(raw, e)
		}
		return e.answer.tell(into, now-e.stored, false), true
	}
	if e.usable(now) && now < time.Duration(e.retry.Load()) {
		s.counts.stale.Add(1)
		return e.answer.tell(into, 0, true), true
	}
	return into, false
}

// prefetches tells whether an answer is to be renewed, and nobody has begun to.
func (e *entry) prefetches(now time.Duration) bool {
	ttl := e.ends - e.stored
	return ttl >= minPrefetch && e.ends-now < ttl/prefetchAt && now >= time.Duration(e.retry.Load()) &&
		!e.answer.failed() && !e.renewing.Swap(true)
}

func (f *Forwarder) renew(raw []byte, e *entry) {
	if f.flights.renew(raw, f.fly) {
		f.counts.prefetch.Add(1)
	} else {
		e.renewing.Store(false)
	}
}

// Answer implements dns.Forwarder. Its error is always nil.
func (f *Forwarder) Answer(ctx context.Context, q dns.Question, into []byte) ([]byte, error) {
	if q.Class != classIN {
		return fail(into, q, rcodeRefused), nil
	}
	if done, ok := f.Cached(q, into); ok { // since it was looked up last
		attribute(q, dns.ByCache, nil)
		return done, nil
	}
	if f.marks.isMark(string(q.Name)) {
		attribute(q, dns.ByServer, nil)
		return f.marks.answer(into, q), nil
	}
	var k key
	raw := keyOf(q, &k)
	s, hash := f.cache.shardOf(raw)
	s.counts.misses.Add(1)
	options := f.options.Load()
	at, led, ok := f.flights.join(raw, q.Client, options, f.fly)
	if !ok {
		f.counts.rejected.Add(1)
		return f.stale(s, s.find(raw, hash), q, into), nil
	}
	defer f.flights.leave(q.Client, led)
	if !led {
		f.counts.merged.Add(1)
	}
	var patience <-chan time.Time
	old := s.find(raw, hash)
	if old != nil && old.usable(f.cache.now()) {
		timer := time.NewTimer(options.Patience)
		defer timer.Stop()
		patience = timer.C
	}
	select {
	case <-at.done:
		if at.answer != nil && (!at.answer.failed() || old == nil || !old.usable(f.cache.now())) {
			credit(q, at.answer)
			return at.answer.tell(into, 0, false), nil
		}
	case <-patience:
		f.postpone(raw) // others do not wait as long again
	case <-ctx.Done():
	}
	return f.stale(s, old, q, into), nil
}

// stale appends an answer that has ended, if there is one, or that there is none.
func (f *Forwarder) stale(s *shard, old *entry, q dns.Question, into []byte) []byte {
	if old == nil || !old.usable(f.cache.now()) {
		credit(q, nil)
		return fail(into, q, rcodeServFail)
	}
	attribute(q, dns.ByStale, old.answer.from)
	s.counts.stale.Add(1)
	return old.answer.tell(into, 0, true)
}

// retryStale is for how long a stale answer is given at once after nobody has
// given a newer one.
const retryStale = 5 * time.Second

// fly asks a question for all who wait for it.
func (f *Forwarder) fly(key string, at *flight) {
	at.answer, at.err = f.find(f.base, key, askOf(key))
}

// find asks upstreams, and keeps what they say. The answer is nil if they say
// nothing.
func (f *Forwarder) find(ctx context.Context, key string, a *ask) (*answer, error) {
	options := f.options.Load()
	if known := special(a, options); known != nil {
		a.trace.say("the name means the same everywhere: no upstream is asked")
		f.cache.put(key, known, 0)
		return known, nil
	}
	g := f.routes.Load().match(a.name)
	var found *answer
	err := errNoUpstream
	if g != nil {
		a.trace.sayGroup(g)
		found, err = f.resolve(ctx, a, g)
	}
	if err == errNoUpstream {
		f.counts.noBackend.Add(1)
		return nil, err
	}
	if found == nil {
		found = silence(a, silenceTTL)
	}
	if found.failed() {
		f.postpone([]byte(key))
	}
	f.cache.put(key, found, options.MaxStale)
	return found, err
}

// silence stands for the answer that no upstream has given, so that clients that
// ask again at once do not make them be asked at once (RFC 9520).
func silence(a *ask, ttl time.Duration) *answer {
	q := dns.Question{Name: nameOf(a), Type: a.qtype, Class: classIN}
	return &answer{wire: fail(nil, q, rcodeServFail), rcode: rcodeServFail, ttl: ttl}
}

// silenceTTL is for how long, if nothing was said at all: the shortest that there
// may be, since whether a network is there again shows when it is asked.
const silenceTTL = time.Second

// postpone lets a stale answer be given at once for a while, though it is not
// known any more whether it is still true: who is asked is slow or gone.
func (f *Forwarder) postpone(raw []byte) {
	s, hash := f.cache.shardOf(raw)
	if e := s.find(raw, hash); e != nil {
		e.renewing.Store(false)
		e.retry.Store(int64(f.cache.now() + retryStale))
	}
}
