package gateway

import (
	"cmp"
	"fmt"
	"maps"
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
//
// There may be thousands, of which most count little: each has memory of what it has
// seen, and of each core by itself only what is seen often.
type Meter struct {
	Names

	newest   atomic.Pointer[series] // of a list
	connects atomic.Pointer[durations]
}

// series is what was done with one method and one status.
type series struct {
	next           *series
	method, status uint8
	few            few
	many           atomic.Pointer[byCore] // nil: few has all
}

// mostFew is how many requests of a series all cores count in one place, and write to
// the same memory for.
const mostFew = 1 << 18

// few counts what is not much.
type few struct {
	took, answered                                 [len(durationBounds) + 1]atomic.Uint32
	received, sent                                 [len(sizeBounds) + 1]atomic.Uint32
	tookSum, answeredSum, receivedSum, answerBytes atomic.Int64
}

// byCore are what the clients of each core have caused, so that no two cores write
// to the same memory; those of cores that are more share.
type byCore [8]atomic.Pointer[tally]

// tally is what clients of a core have done with one method and one status.
type tally struct {
	took     durations // until all was answered
	answered durations // by an endpoint, likewise
	received sizes
	sent     sizes
	_        [64]byte
}

// outcome is that of a request, in nanoseconds and bytes.
type outcome struct {
	took, answered int64 // answered: negative if no endpoint has
	received, sent int64
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

// durations and sizes count what lies between bounds, with one more for what is
// beyond, and add it up.
type (
	durations struct {
		buckets [len(durationBounds) + 1]atomic.Uint64
		sum     atomic.Int64
	}
	sizes struct {
		buckets [len(sizeBounds) + 1]atomic.Uint64
		sum     atomic.Int64
	}
)

// place is the bucket of a number.
func place(bounds []int64, n int64) int {
	at := 0
	for at < len(bounds) && n > bounds[at] {
		at++
	}
	return at
}

func (d *durations) count(n int64) {
	d.buckets[place(durationBounds[:], n)].Add(1)
	d.sum.Add(n)
}

func (s *sizes) count(n int64) {
	s.buckets[place(sizeBounds[:], n)].Add(1)
	s.sum.Add(n)
}

// made returns what a pointer has, which is made when it is asked for first.
func made[T any](p *atomic.Pointer[T]) *T {
	if v := p.Load(); v != nil {
		return v
	}
	p.CompareAndSwap(nil, new(T))
	return p.Load()
}

// count takes note of a request of a client of some core.
func (m *Meter) count(method []byte, status, core int, o *outcome) {
	s := m.series(uint8(methodPlace(method)), uint8(statusPlace(status)))
	if many := s.many.Load(); many != nil {
		made(&many[core%len(many)]).count(o)
	} else if s.few.count(o) >= mostFew {
		s.many.CompareAndSwap(nil, new(byCore))
	}
}

// Counts tells whether it has counted anything.
func (m *Meter) Counts() bool { return m.newest.Load() != nil || m.connects.Load() != nil }

// series finds one, or makes it. There are few of a route, of methods times statuses.
func (m *Meter) series(method, status uint8) *series {
	for {
		newest := m.newest.Load()
		for s := newest; s != nil; s = s.next {
			if s.method == method && s.status == status {
				return s
			}
		}
		s := &series{next: newest, method: method, status: status}
		if m.newest.CompareAndSwap(newest, s) {
			return s
		}
	}
}

// count returns how often it has come to the same bucket.
func (f *few) count(o *outcome) uint32 {
	n := f.took[place(durationBounds[:], o.took)].Add(1)
	f.tookSum.Add(o.took)
	if o.answered >= 0 {
		f.answered[place(durationBounds[:], o.answered)].Add(1)
		f.answeredSum.Add(o.answered)
	}
	f.received[place(sizeBounds[:], o.received)].Add(1)
	f.receivedSum.Add(o.received)
	f.sent[place(sizeBounds[:], o.sent)].Add(1)
	f.answerBytes.Add(o.sent)
	return n
}

func (t *tally) count(o *outcome) {
	t.took.count(o.took)
	if o.answered >= 0 {
		t.answered.count(o.answered)
	}
	t.received.count(o.received)
	t.sent.count(o.sent)
}

// Histogram is one as Prometheus has it. Its unit is the second or the byte.
type Histogram struct {
	Count  uint64
	Sum    float64
	Bounds []float64 // that are the same for all
	UpTo   []uint64  // how many are no more than each bound
}

// Bounds as histograms have them.
var (
	durationUnits = inUnits(durationBounds[:], float64(time.Second))
	sizeUnits     = inUnits(sizeBounds[:], 1)
)

func inUnits(bounds []int64, unit float64) (all []float64) {
	for _, bound := range bounds {
		all = append(all, float64(bound)/unit)
	}
	return all
}

// Series are the requests of one method and one status. Where a client was gone
// before an answer, the status is 499, as nginx has it.
type Series struct {
	Method, Status          string
	Took                    Histogram // from the first byte of the request to the last of the answer
	Answered                Histogram // of those that an endpoint has answered: from when it was asked
	RequestSize, AnswerSize Histogram // with heads
}

// SeriesOf returns what some meters have counted, together, sorted by method and
// status. What is counted meanwhile may be in it partly.
func SeriesOf(meters ...*Meter) (all []Series) {
	type kind struct{ method, status uint8 }
	sums := map[kind]*Series{}
	for _, m := range meters {
		for s := m.newest.Load(); s != nil; s = s.next {
			k := kind{s.method, s.status}
			if sums[k] == nil {
				sums[k] = &Series{Method: methods[s.method], Status: statusText(int(s.status))}
			}
			sums[k].add(s)
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(sums), func(a, b kind) int {
		return cmp.Or(cmp.Compare(a.method, b.method), cmp.Compare(a.status, b.status))
	}) {
		if sums[k].Took.Count > 0 {
			all = append(all, *sums[k])
		}
	}
	return all
}

func (s *Series) add(of *series) {
	f := &of.few
	addFew(&s.Took, f.took[:], durationUnits, &f.tookSum, float64(time.Second))
	addFew(&s.Answered, f.answered[:], durationUnits, &f.answeredSum, float64(time.Second))
	addFew(&s.RequestSize, f.received[:], sizeUnits, &f.receivedSum, 1)
	addFew(&s.AnswerSize, f.sent[:], sizeUnits, &f.answerBytes, 1)
	many := of.many.Load()
	if many == nil {
		return
	}
	for core := range many {
		if t := many[core].Load(); t != nil {
			addMany(&s.Took, t.took.buckets[:], durationUnits, &t.took.sum, float64(time.Second))
			addMany(&s.Answered, t.answered.buckets[:], durationUnits, &t.answered.sum, float64(time.Second))
			addMany(&s.RequestSize, t.received.buckets[:], sizeUnits, &t.received.sum, 1)
			addMany(&s.AnswerSize, t.sent.buckets[:], sizeUnits, &t.sent.sum, 1)
		}
	}
}

// ConnectsOf returns how long connections to endpoints took to be made.
func ConnectsOf(meters ...*Meter) (h Histogram) {
	for _, m := range meters {
		if made := m.connects.Load(); made != nil {
			addMany(&h, made.buckets[:], durationUnits, &made.sum, float64(time.Second))
		}
	}
	return h
}

func addFew(to *Histogram, buckets []atomic.Uint32, bounds []float64, sum *atomic.Int64, unit float64) {
	add(to, func(i int) uint64 { return uint64(buckets[i].Load()) }, bounds, sum, unit)
}

func addMany(to *Histogram, buckets []atomic.Uint64, bounds []float64, sum *atomic.Int64, unit float64) {
	add(to, func(i int) uint64 { return buckets[i].Load() }, bounds, sum, unit)
}

// add adds buckets to a histogram, in a unit.
func add(to *Histogram, bucket func(i int) uint64, bounds []float64, sum *atomic.Int64, unit float64) {
	if to.UpTo == nil {
		to.Bounds, to.UpTo = bounds, make([]uint64, len(bounds))
	}
	below := uint64(0)
	for i := range bounds {
		below += bucket(i)
		to.UpTo[i] += below
	}
	to.Count += below + bucket(len(bounds))
	to.Sum += float64(sum.Load()) / unit
}
