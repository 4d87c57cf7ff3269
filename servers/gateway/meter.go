package gateway

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// Names say what a Meter counts, as metrics and the access log write it. The engine
// does not read them.
type Names struct {
	Host, Path         string
	Namespace, Ingress string
	Service, Port      string
	Canary             bool
}

// Meter counts the requests of a route, by method and status. A router names it in
// Request.Meter; it goes on from table to table for as long as routers name it. The
// zero value is ready.
//
// What a client can choose is bounded: methods and statuses that are not usual count
// as one, and requests for which a router names no Meter are all those of one.
type Meter struct {
	Names

	by       [len(methods)]atomic.Pointer[byStatus]
	connects histogram[durationBuckets]
}

// byStatus is memory of its own, since few methods are used.
type byStatus [len(statuses)]atomic.Pointer[byCore]

// byCore are what the clients of each core have caused, so that no two cores write
// to the same memory; those of cores that are more share.
type byCore [8]atomic.Pointer[tally]

// tally is what clients of a core have done with one method and one status.
type tally struct {
	took     histogram[durationBuckets] // until all was answered
	answered histogram[durationBuckets] // by an endpoint, likewise
	received histogram[sizeBuckets]
	sent     histogram[sizeBuckets]
	_        [64]byte
}

// methods are those that are told apart.
var methods = [...]string{"other", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}

func methodPlace(method []byte) int {
	switch string(method) {
	case "GET":
		return 1
	case "HEAD":
		return 2
	case "POST":
		return 3
	case "PUT":
		return 4
	case "DELETE":
		return 5
	case "OPTIONS":
		return 6
	case "PATCH":
		return 7
	}
	return 0
}

// statuses are those that are told apart. The first ones are all others of their
// first digit.
var statuses = [...]int{
	0, 1, 2, 3, 4, 5, 101, 103, 200, 201, 202, 203, 204, 205, 206, 207, 300, 301, 302, 303, 304, 307, 308,
	400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 421, 422, 423, 424, 425, 426,
	428, 429, 431, 444, 451, 499, 500, 501, 502, 503, 504, 505, 507, 511,
}

// statusPlaces has the place of each.
var statusPlaces = func() (all [600]uint8) {
	for status := range all {
		all[status] = uint8(status / 100)
	}
	for place, status := range statuses[6:] {
		all[status] = uint8(place + 6)
	}
	return all
}()

func statusPlace(status int) int {
	if status < 0 || status >= len(statusPlaces) {
		return 0
	}
	return int(statusPlaces[status])
}

func statusText(place int) string {
	switch status := statuses[place]; {
	case status >= 100:
		return fmt.Sprint(status)
	case status > 0:
		return fmt.Sprintf("%dxx", status)
	}
	return "other"
}

// Bounds of buckets, in nanoseconds and in bytes. Those of durations are Prometheus'
// own and some below, since much is answered faster; those of sizes are as
// ingress-nginx has them.
var (
	durationBounds = [...]int64{
		5e5, 1e6, 2.5e6, 5e6, 1e7, 2.5e7, 5e7, 1e8, 2.5e8, 5e8, 1e9, 2.5e9, 5e9, 1e10, 6e10,
	}
	sizeBounds = [...]int64{10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000}
)

// durationBuckets and sizeBuckets count, with one more for what is beyond.
type (
	durationBuckets [len(durationBounds) + 1]atomic.Uint64
	sizeBuckets     [len(sizeBounds) + 1]atomic.Uint64
)

// histogram counts what lies between bounds, and adds it up.
type histogram[T durationBuckets | sizeBuckets] struct {
	buckets T
	sum     atomic.Int64
}

func duration(h *histogram[durationBuckets], n int64) {
	at := 0
	for at < len(durationBounds) && n > durationBounds[at] {
		at++
	}
	h.buckets[at].Add(1)
	h.sum.Add(n)
}

func size(h *histogram[sizeBuckets], n int64) {
	at := 0
	for at < len(sizeBounds) && n > sizeBounds[at] {
		at++
	}
	h.buckets[at].Add(1)
	h.sum.Add(n)
}

// made returns what a pointer has, which is made when it is asked for first.
func made[T any](p *atomic.Pointer[T]) *T {
	if v := p.Load(); v != nil {
		return v
	}
	p.CompareAndSwap(nil, new(T))
	return p.Load()
}

func (m *Meter) tally(method []byte, status, core int) *tally {
	of := made(&made(&m.by[methodPlace(method)])[statusPlace(status)])
	return made(&of[core%len(of)])
}

// Histogram is one as Prometheus has it: a bucket counts all up to its bound. Its
// unit is the second or the byte.
type Histogram struct {
	Count   uint64
	Sum     float64
	Buckets map[float64]uint64
}

// Series are the requests of one method and one status. Where a client was gone
// before an answer, the status is 499, as nginx has it.
type Series struct {
	Method, Status          string
	Took                    Histogram // from the first byte of the request to the last of the answer
	Answered                Histogram // of those that an endpoint has answered: from when it was asked
	RequestSize, AnswerSize Histogram // with heads
}

// SeriesOf returns what some meters have counted, together. What is counted
// meanwhile may be in it partly.
func SeriesOf(meters ...*Meter) (all []Series) {
	for method := range methods {
		if !slices.ContainsFunc(meters, func(m *Meter) bool { return m.by[method].Load() != nil }) {
			continue
		}
		for status := range statuses {
			s := Series{Method: methods[method]}
			for _, m := range meters {
				if by := m.by[method].Load(); by != nil {
					s.add(by[status].Load())
				}
			}
			if s.Took.Count > 0 {
				s.Status = statusText(status)
				all = append(all, s)
			}
		}
	}
	return all
}

func (s *Series) add(cores *byCore) {
	if cores == nil {
		return
	}
	for core := range cores {
		if t := cores[core].Load(); t != nil {
			add(&s.Took, t.took.buckets[:], durationBounds[:], &t.took.sum, float64(time.Second))
			add(&s.Answered, t.answered.buckets[:], durationBounds[:], &t.answered.sum, float64(time.Second))
			add(&s.RequestSize, t.received.buckets[:], sizeBounds[:], &t.received.sum, 1)
			add(&s.AnswerSize, t.sent.buckets[:], sizeBounds[:], &t.sent.sum, 1)
		}
	}
}

// ConnectsOf returns how long connections to endpoints took to be made.
func ConnectsOf(meters ...*Meter) (h Histogram) {
	for _, m := range meters {
		add(&h, m.connects.buckets[:], durationBounds[:], &m.connects.sum, float64(time.Second))
	}
	return h
}

// add adds buckets to a histogram, in a unit.
func add(to *Histogram, buckets []atomic.Uint64, bounds []int64, sum *atomic.Int64, unit float64) {
	if to.Buckets == nil {
		to.Buckets = make(map[float64]uint64, len(bounds))
	}
	below := uint64(0)
	for i := range buckets {
		below += buckets[i].Load()
		if i < len(bounds) {
			to.Buckets[float64(bounds[i])/unit] += below
		}
	}
	to.Count += below
	to.Sum += float64(sum.Load()) / unit
}
