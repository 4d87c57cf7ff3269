package forward

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/fairlead-net/fairlead/servers/dns"
)

// kept makes an answer of a size, which is kept for a while.
func kept(size int, ttl time.Duration) *answer {
	return &answer{wire: make([]byte, size), ttl: ttl}
}

// TestCacheIsBounded: whatever is put, the bytes stay within their bound, counts
// are right, and what a shard holds is what its buckets and its queue hold.
func TestCacheIsBounded(t *testing.T) {
	c := newCache(1 << 20)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 50000 {
		size := 40 + random.IntN(400)
		if i%100 == 0 {
			size = random.IntN(maxMessage)
		}
		c.put(fmt.Sprintf("name-%d", random.IntN(20000)), kept(size, time.Hour), time.Hour)
		if i%5000 == 0 {
			c.check(t, 1<<20)
		}
	}
	c.check(t, 1<<20)
}

// TestCacheTakesWhatItSays: the memory of the process, by the collector's own
// count.
func TestCacheTakesWhatItSays(t *testing.T) {
	heap := func() uint64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	const most = 16 << 20
	before := heap()
	c := newCache(most)
	a := &ask{name: "\x03www\x07example\x00", qtype: typeA}
	raw := respond(a, func(m *miekg.Msg) {
		m.Answer = records(t, []string{"www.example. 60 CNAME a.cdn.example.", "a.cdn.example. 60 A 10.0.0.1"})
	})
	like, err := clean(raw, a, hour)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50000 {
		kept := *like
		kept.wire, kept.ttls = bytes.Clone(like.wire), slices.Clone(like.ttls)
		c.put(fmt.Sprintf("\x10name-%09d\x07example\x00abc", i), &kept, 0)
	}
	took := heap() - before
	t.Logf("%d entries in %d bytes", c.shards[0].entries[success]*cacheShards, took)
	if took > most || took < most/2 {
		t.Errorf("the cache takes %d bytes, and should take up to %d", took, most)
	}
	runtime.KeepAlive(c)
}

// TestCacheIsResized: what is in use is found after it, as far as there is room.
func TestCacheIsResized(t *testing.T) {
	c := newCache(1 << 20)
	for i := range 1000 {
		c.put(fmt.Sprintf("name-%d", i), kept(100, time.Hour), 0)
	}
	found := func() (n int) {
		for i := range 1000 {
			k := fmt.Appendf(nil, "name-%d", i)
			if s, hash := c.shardOf(k); s.find(k, hash) != nil {
				n++
			}
		}
		return n
	}
	for _, mebibytes := range []int{64, 1, 2} {
		c.resize(mebibytes << 20)
		c.check(t, mebibytes<<20)
		if n := found(); n != 1000 {
			t.Errorf("at %d MiB %d are found", mebibytes, n)
		}
	}
	c.resize(256 << 10)
	c.check(t, 256<<10)
	if n := found(); n < 300 || n > 800 {
		t.Errorf("of a cache that holds less %d are found", n)
	}
}

func (c *cache) check(t *testing.T, most int) {
	t.Helper()
	total := 0
	for i := range c.shards {
		s := &c.shards[i]
		bytes, queued, chained := 0, map[*entry]bool{}, 0
		for e := s.oldest; e != nil; e = e.newer {
			bytes += e.cost()
			queued[e] = true
			if e.newer != nil && e.newer.older != e || e.newer == nil && s.newest != e {
				t.Fatalf("shard %d: the queue is not linked both ways", i)
			}
		}
		all := *s.buckets.Load()
		for b := range all {
			for e := all[b].Load(); e != nil; e = e.chained.Load() {
				chained++
				if !queued[e] {
					t.Fatalf("shard %d: an entry is found that is not queued", i)
				}
			}
		}
		if bytes != s.bytes || chained != len(queued) || s.entries[success]+s.entries[denial] != chained {
			t.Fatalf("shard %d: %d bytes counted as %d, %d queued, %d found, counted as %v", i, bytes, s.bytes, len(queued), chained, s.entries)
		}
		total += bytes
	}
	if total > most {
		t.Fatalf("%d bytes, more than %d", total, most)
	}
}

// TestCacheSparesWhatIsUsed: a flood of names that are asked for once leaves what
// is in use.
func TestCacheSparesWhatIsUsed(t *testing.T) {
	c := newCache(1 << 20)
	popular := func(i int) []byte { return fmt.Appendf(nil, "popular-%d", i) }
	const names = 500
	for i := range names {
		c.put(string(popular(i)), kept(100, time.Hour), 0)
	}
	for i := range 100000 {
		c.put(fmt.Sprintf("random-%d", i), kept(100, time.Hour), 0)
		if i%2 == 0 {
			s, hash := c.shardOf(popular(i / 2 % names))
			s.find(popular(i/2%names), hash)
		}
	}
	left := 0
	for i := range names {
		if s, hash := c.shardOf(popular(i)); s.find(popular(i), hash) != nil {
			left++
		}
	}
	if left < names*95/100 {
		t.Errorf("of %d names in use %d are left", names, left)
	}
}

// TestCacheIsReadWithoutLocks: readers never find what is not theirs, while it
// changes; with -race, nothing else either.
func TestCacheIsReadWithoutLocks(t *testing.T) {
	c := newCache(256 << 10)
	var all sync.WaitGroup
	all.Go(func() {
		for i := range 50 {
			c.resize((1 + i%4) * 256 << 10)
		}
		c.resize(256 << 10)
	})
	for worker := range 4 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(worker), 0))
			for range 20000 {
				k := fmt.Appendf(nil, "name-%d", random.IntN(2000))
				s, hash := c.shardOf(k)
				if e := s.find(k, hash); e != nil && e.key != string(k) {
					t.Errorf("%s finds %s", k, e.key)
				}
				if worker%2 == 0 {
					c.put(string(k), kept(200, time.Hour), 0)
				}
			}
		})
	}
	all.Wait()
	c.check(t, 256<<10)
}

// TestTTLs: answers are counted down, end when they say, are given as stale no
// longer than allowed, and bounded by the options.
func TestTTLs(t *testing.T) {
	ms := time.Millisecond
	options := Options{MaxTTL: 100 * time.Second, MaxNegativeTTL: 20 * time.Second, MaxStale: 50 * time.Second}
	inBubble(t, options, []does{after(ms, 60, "10.9.0.1")}, func(t *testing.T, b *bench) {
		q := question("www.example", typeA)
		ttl := func(want string, seconds uint32) {
			t.Helper()
			m, _ := b.look(q)
			if addr(m) != want || len(m.Answer) > 0 && m.Answer[0].Header().Ttl != seconds {
				t.Errorf("got %v, want %s for %d s", m, want, seconds)
			}
		}
		ttl("10.9.0.1", 60)
		time.Sleep(25*time.Second + ms)
		ttl("10.9.0.1", 35)
		if n := b.fakes[0].asked.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		b.fakes[0].becomes(refused)
		time.Sleep(45 * time.Second)
		ttl("10.9.0.1", 30) // stale, after nobody answered
		began := time.Now()
		ttl("10.9.0.1", 30)
		if took := time.Since(began); took > 0 {
			t.Errorf("a stale answer takes %s although nobody answers", took)
		}
		time.Sleep(41 * time.Second)
		ttl("SERVFAIL", 0)

		b.fakes[0].becomes(after(ms, 86400, "10.9.0.2"))
		time.Sleep(lastProbe + time.Second)
		ttl("10.9.0.2", 100)
		b.fakes[0].becomes(after(ms, 0, "10.9.0.3"))
		time.Sleep(100 * time.Second)
		asked := b.fakes[0].asked.Load()
		ttl("10.9.0.3", 0)
		ttl("10.9.0.3", 0)
		if n := b.fakes[0].asked.Load() - asked; n != 2 {
			t.Errorf("an answer of TTL 0 is given again: asked %d times", n)
		}
	})
}

// TestNegative: RFC 2308, for NXDOMAIN and for names without the type.
func TestNegative(t *testing.T) {
	for _, test := range []struct {
		name      string
		rcode     int
		ttl, min  uint32
		kept      time.Duration
		authority bool
	}{
		{"NXDOMAIN, by the minimum", rcodeNXDomain, 3600, 15, 15 * time.Second, true},
		{"NXDOMAIN, by the TTL of the SOA", rcodeNXDomain, 10, 3600, 10 * time.Second, true},
		{"NXDOMAIN, by the option", rcodeNXDomain, 3600, 3600, 30 * time.Second, true},
		{"no record of the type", rcodeSuccess, 3600, 15, 15 * time.Second, true},
		{"nothing that says for how long", rcodeSuccess, 0, 0, unsignedTTL, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, Options{}, []does{func(_ context.Context, a *ask) ([]byte, error) {
				return respond(a, func(m *miekg.Msg) {
					m.Rcode = test.rcode
					if test.authority {
						m.Ns = []miekg.RR{&miekg.SOA{
							Hdr: miekg.RR_Header{Name: "example.", Rrtype: miekg.TypeSOA, Class: 1, Ttl: test.ttl},
							Ns:  "ns.example.", Mbox: "m.example.", Minttl: test.min,
						}}
					}
				}), nil
			}}, func(t *testing.T, b *bench) {
				q := question("www.example", typeA)
				m, _ := b.look(q)
				if m.Rcode != test.rcode || test.authority && (len(m.Ns) != 1 || m.Ns[0].Header().Ttl != uint32(test.kept/time.Second)) {
					t.Errorf("got %v", m)
				}
				time.Sleep(test.kept - time.Millisecond)
				b.look(q)
				if n := b.fakes[0].asked.Load(); n != 1 {
					t.Errorf("asked %d times before the end", n)
				}
				time.Sleep(time.Millisecond)
				b.look(q)
				if n := b.fakes[0].asked.Load(); n != 2 {
					t.Errorf("asked %d times after the end", n)
				}
			})
		})
	}
}

// TestFailureIsKeptShortly: RFC 9520.
func TestFailureIsKeptShortly(t *testing.T) {
	inBubble(t, Options{}, []does{says(time.Millisecond, rcodeServFail)}, func(t *testing.T, b *bench) {
		q := question("www.example", typeA)
		for range 10 {
			if m, _ := b.look(q); m.Rcode != rcodeServFail {
				t.Errorf("got %v", m)
			}
		}
		if n := b.fakes[0].asked.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		b.fakes[0].becomes(after(time.Millisecond, 60, "10.9.0.1"))
		time.Sleep(failureTTL)
		if m, _ := b.look(q); addr(m) != "10.9.0.1" {
			t.Errorf("got %v", m)
		}
	})
}

// TestStaleWhileSlow: a client does not wait longer than it would, if there is
// something to give; the answer that comes late is kept.
func TestStaleWhileSlow(t *testing.T) {
	inBubble(t, Options{}, []does{after(time.Millisecond, 60, "10.9.0.1")}, func(t *testing.T, b *bench) {
		q := question("www.example", typeA)
		b.look(q)
		time.Sleep(2 * time.Minute)
		b.fakes[0].becomes(after(1500*time.Millisecond, 60, "10.9.0.2"))
		if m, took := b.look(q); addr(m) != "10.9.0.1" || took != 800*time.Millisecond || m.Answer[0].Header().Ttl != 30 {
			t.Errorf("after %s: %v", took, m)
		}
		time.Sleep(time.Second)
		if m, took := b.look(q); addr(m) != "10.9.0.2" || took != 0 {
			t.Errorf("after %s: %v", took, m)
		}
	})
}

// TestPrefetch: a name that many ask for never makes anybody wait; one that few
// ask for is let end.
func TestPrefetch(t *testing.T) {
	inBubble(t, Options{}, []does{after(50*time.Millisecond, 60, "10.9.0.1")}, func(t *testing.T, b *bench) {
		often, seldom := question("often.example", typeA), question("seldom.example", typeA)
		b.look(often)
		b.look(seldom)
		for i := range 600 {
			time.Sleep(time.Second)
			if i == 56 { // once, shortly before its end
				b.look(seldom)
			}
			if i == 60 {
				if _, took := b.look(seldom); took == 0 {
					t.Errorf("a name that hardly anybody asks for was renewed")
				}
			}
			if _, took := b.look(often); took > 0 {
				t.Fatalf("second %d: a client waits for %s", i, took)
			}
		}
		asked := b.fakes[0].asked.Load()
		if asked < 13 || asked > 14 { // 600 s, renewed after 54 s each, and twice the other
			t.Errorf("asked %d times", asked)
		}
	})
}

// TestStaleWhileFailing: an answer that has ended is not lost because upstreams
// fail, and they are not asked about it all the time.
func TestStaleWhileFailing(t *testing.T) {
	inBubble(t, Options{}, []does{after(time.Millisecond, 60, "10.9.0.1")}, func(t *testing.T, b *bench) {
		q := question("www.example", typeA)
		b.look(q)
		for range popular {
			b.look(q)
		}
		b.fakes[0].becomes(says(time.Millisecond, rcodeServFail))
		time.Sleep(59 * time.Second)
		asked := b.fakes[0].asked.Load()
		for i := range 1000 {
			if m, took := b.look(q); addr(m) != "10.9.0.1" || took > time.Millisecond {
				t.Fatalf("%d: after %s: %v", i, took, m)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if n := b.fakes[0].asked.Load() - asked; n < 2 || n > 3 {
			t.Errorf("asked %d times in 10 s", n)
		}
	})
}

// TestOtherUpstreams: what others have said is not given, unless those who are
// asked now say nothing.
func TestOtherUpstreams(t *testing.T) {
	inBubble(t, Options{}, []does{after(time.Millisecond, 600, "10.9.0.1"), after(time.Millisecond, 600, "10.9.0.2")}, func(t *testing.T, b *bench) {
		all := b.options.Load().Upstreams
		options := *b.options.Load()
		options.Upstreams = all[:1]
		b.Follow(options)
		q := question("www.example", typeA)
		if m, _ := b.look(q); addr(m) != "10.9.0.1" {
			t.Fatalf("got %v", m)
		}
		time.Sleep(5 * time.Second) // the second one is closed
		b.fakes[1].closed.Store(false)
		options.Upstreams = all[1:]
		b.Follow(options)
		if m, _ := b.look(q); addr(m) != "10.9.0.2" {
			t.Errorf("got %v", m)
		}
		time.Sleep(time.Minute)
		if !b.fakes[0].closed.Load() || b.fakes[1].closed.Load() {
			t.Errorf("closed are %v and %v", b.fakes[0].closed.Load(), b.fakes[1].closed.Load())
		}
		b.fakes[0].becomes(refused)
		options.Upstreams = all[:1]
		b.Follow(options)
		if m, _ := b.look(q); addr(m) != "10.9.0.2" || m.Answer[0].Header().Ttl != 30 {
			t.Errorf("got %v", m)
		}
	})
}

// TestKeptApart: DO and CD and types and names are questions of their own.
func TestKeptApart(t *testing.T) {
	inBubble(t, Options{}, []does{after(0, 60, "10.9.0.1")}, func(t *testing.T, b *bench) {
		base := question("www.example", typeA)
		do, cd, aaaa, other := base, base, base, question("ww.wexample", typeA)
		do.DNSSEC, cd.CheckingDisabled, aaaa.Type = true, true, miekg.TypeAAAA
		for i, q := range []dns.Question{base, do, cd, aaaa, other} {
			b.look(q)
			b.look(q)
			if n := b.fakes[0].asked.Load(); n != int64(i+1) {
				t.Errorf("after question %d: asked %d times", i, n)
			}
		}
	})
}
