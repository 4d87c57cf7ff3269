package forward

import (
	"hash/maphash"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// cache keeps answers in a bounded number of bytes. Who reads takes no lock and
// writes, at most, a bit that says that an answer is in use. What has to go is
// chosen by SIEVE (NSDI 2024): a hand goes from the oldest answer to the newest,
// spares once what was used since it came by last, and takes the first that was
// not. Names that are asked for once, as in a flood of random ones, so cost those
// in use nothing.
type cache struct {
	seed   maphash.Seed // secret, so that nobody can choose names that collide
	epoch  time.Time
	shards [cacheShards]shard
	// generation changes when upstreams do: what others have said before is only
	// of use while these say nothing.
	generation atomic.Uint32
}

const (
	cacheShards = 16 // a power of two
	// entryOverhead is what an entry takes besides its message, in bytes: itself,
	// its answer, its place among the buckets, and what allocation rounds up.
	entryOverhead = 320
	// bucketShare is how many bytes of the cache there are for each bucket: about
	// an entry.
	bucketShare = 512
	// largest is the share of a shard that one entry may take.
	largest = 4
)

// shard is a part of the cache that changes on its own.
type shard struct {
	buckets atomic.Pointer[buckets]
	counts  hitCounts

	mu      sync.Mutex
	newest  *entry
	oldest  *entry
	hand    *entry // nil: the oldest is next
	bytes   int
	most    int
	entries [kinds]int
	evicted [kinds]uint64
}

// buckets are where entries are found, by their hash: a power of two of chains.
type buckets []atomic.Pointer[entry]

// kind tells answers apart in metrics, by CoreDNS's words.
type kind uint8

const (
	success kind = iota
	denial
	kinds
)

func (k kind) String() string { return [...]string{"success", "denial"}[k] }

// hitCounts are kept for each shard, so that processors seldom share one.
type hitCounts struct {
	hits   [kinds]atomic.Uint64
	misses atomic.Uint64
	stale  atomic.Uint64
}

// entry is an answer that is kept. What can change in it is atomic, or guarded
// by the shard's lock.
type entry struct {
	key        string
	hash       uint64
	answer     *answer
	generation uint32
	stored     time.Duration // since the cache's epoch
	ends       time.Duration // when it is stale
	gone       time.Duration // when it is of no use even then

	used     atomic.Bool
	hits     atomic.Uint32 // counted up to popular
	renewing atomic.Bool   // somebody has begun to ask again before it ends
	retry    atomic.Int64  // a time.Duration: until then it is known that nobody answers

	chained atomic.Pointer[entry] // the next one in the bucket
	newer   *entry
	older   *entry
}

func newCache(most int) *cache {
	c := &cache{seed: maphash.MakeSeed(), epoch: time.Now()}
	c.resize(most)
	return c
}

// resize bounds the cache to another number of bytes.
func (c *cache) resize(most int) {
	most = max(most/cacheShards, 16<<10)
	for i := range c.shards {
		c.shards[i].resize(most, c.now())
	}
}

// resize makes room for as many entries as there may be. Who looks for one
// meanwhile may miss it: an entry is led to by its new chain before all of the
// others are, and only to such as are, too.
func (s *shard) resize(most int, now time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.most == most {
		return
	}
	s.most = most
	for s.bytes > s.most {
		s.evict(now)
	}
	next := make(buckets, 1<<bits.Len(uint(most/bucketShare)))
	for e := s.oldest; e != nil; e = e.newer {
		at := next.of(e.hash)
		e.chained.Store(at.Load())
		at.Store(e)
	}
	s.buckets.Store(&next)
}

// now is the time by which entries end. It is monotonic.
func (c *cache) now() time.Duration { return time.Since(c.epoch) }

// shardOf returns where a key belongs.
func (c *cache) shardOf(key []byte) (*shard, uint64) {
	hash := maphash.Bytes(c.seed, key)
	return &c.shards[hash%cacheShards], hash
}

func (s *shard) bucket(hash uint64) *atomic.Pointer[entry] { return s.buckets.Load().of(hash) }

func (b buckets) of(hash uint64) *atomic.Pointer[entry] {
	return &b[hash/cacheShards&uint64(len(b)-1)]
}

// find returns an entry, stale or not, and nil if there is none. It takes no lock.
func (s *shard) find(key []byte, hash uint64) *entry {
	for e := s.bucket(hash).Load(); e != nil; e = e.chained.Load() {
		if e.hash == hash && string(key) == e.key {
			if !e.used.Load() { // a read costs others nothing
				e.used.Store(true)
			}
			return e
		}
	}
	return nil
}

// fresh tells whether an entry may be given as it is.
func (c *cache) fresh(e *entry, now time.Duration) bool {
	return now < e.ends && e.generation == c.generation.Load()
}

// usable tells whether an entry may be given if nobody says anything newer.
func (e *entry) usable(now time.Duration) bool { return now < e.gone && !e.answer.failed() }

// put keeps an answer, from now until its end and for a while as stale. A failure
// takes the place of nothing that is of use.
func (c *cache) put(k string, a *answer, stale time.Duration) {
	if a.ttl <= 0 {
		return
	}
	now := c.now()
	e := &entry{
		key: k, hash: maphash.String(c.seed, k), answer: a, generation: c.generation.Load(),
		stored: now, ends: now + a.ttl, gone: now + a.ttl,
	}
	if !a.failed() {
		e.gone += stale
	}
	s := &c.shards[e.hash%cacheShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.cost() > s.most/largest {
		return
	}
	if old := s.find([]byte(k), e.hash); old != nil {
		if a.failed() && old.usable(now) {
			return
		}
		e.hits.Store(old.hits.Load() / 2) // what was popular is likely to stay so
		e.used.Store(true)
		s.remove(old)
	}
	for s.bytes+e.cost() > s.most {
		s.evict(now)
	}
	s.insert(e)
}

func (e *entry) cost() int {
	return entryOverhead + len(e.key) + cap(e.answer.wire) + 2*cap(e.answer.ttls)
}

func (e *entry) kind() kind {
	if e.answer.negative() || e.answer.failed() {
		return denial
	}
	return success
}

func (s *shard) insert(e *entry) {
	e.older = s.newest
	if s.newest != nil {
		s.newest.newer = e
	} else {
		s.oldest = e
	}
	s.newest = e
	s.bytes += e.cost()
	s.entries[e.kind()]++
	bucket := s.bucket(e.hash)
	e.chained.Store(bucket.Load())
	bucket.Store(e)
}

// remove takes an entry out. Who is reading it may go on: it still leads on to
// the rest of its bucket.
func (s *shard) remove(e *entry) {
	if s.hand == e {
		s.hand = e.newer
	}
	if e.older != nil {
		e.older.newer = e.newer
	} else {
		s.oldest = e.newer
	}
	if e.newer != nil {
		e.newer.older = e.older
	} else {
		s.newest = e.older
	}
	s.bytes -= e.cost()
	s.entries[e.kind()]--
	for at := s.bucket(e.hash); ; {
		here := at.Load()
		if here == e {
			at.Store(e.chained.Load())
			return
		}
		at = &here.chained
	}
}

// evict removes one entry. There is one: the cache would be within its bound.
func (s *shard) evict(now time.Duration) {
	e := s.hand
	for {
		if e == nil {
			e = s.oldest
		}
		if now >= e.gone || !e.used.Swap(false) {
			break
		}
		e = e.newer
	}
	s.hand = e
	s.remove(e)
	s.evicted[e.kind()]++
}

// renew makes all that is kept stale at once.
func (c *cache) renew() { c.generation.Add(1) }
