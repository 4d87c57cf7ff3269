package forward

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	miekg "github.com/miekg/dns"
)

type does = func(context.Context, *ask) ([]byte, error)

// TestFirstGoodAnswer: what clients get, and after how long, of upstreams that do
// this and that.
func TestFirstGoodAnswer(t *testing.T) {
	ms := time.Millisecond
	for _, test := range []struct {
		name      string
		upstreams []does
		want      string
		within    time.Duration
	}{
		{"one", []does{after(10*ms, 60, "10.9.0.1")}, "10.9.0.1", 10 * ms},
		{"slow then fast", []does{after(900*ms, 60, "10.9.0.1"), after(10*ms, 60, "10.9.0.2")}, "10.9.0.2", 510 * ms},
		{"dead then fast", []does{dead, after(10*ms, 60, "10.9.0.2")}, "10.9.0.2", 510 * ms},
		{"refused then fast", []does{refused, after(10*ms, 60, "10.9.0.2")}, "10.9.0.2", 10 * ms},
		{"SERVFAIL then fast", []does{says(5*ms, rcodeServFail), after(10*ms, 60, "10.9.0.2")}, "10.9.0.2", 15 * ms},
		{"REFUSED by all", []does{says(5*ms, rcodeRefused), says(5*ms, rcodeServFail)}, "REFUSED", 10 * ms},
		{"garbage then fast", []does{garbage, after(10*ms, 60, "10.9.0.2")}, "10.9.0.2", 10 * ms},
		{"only garbage", []does{garbage}, "SERVFAIL", 0},
		{"NXDOMAIN is good", []does{says(5*ms, rcodeNXDomain), after(10*ms, 60, "10.9.0.2")}, "NXDOMAIN", 5 * ms},
		{"one dead", []does{dead}, "SERVFAIL", 4500 * ms},
		{"all dead", []does{dead, dead, dead}, "SERVFAIL", 4500 * ms},
		{"none", nil, "SERVFAIL", 0},
		{"a second is slow to be resolved", []does{after(1900*ms, 60, "10.9.0.1")}, "10.9.0.1", 1900 * ms},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, Options{Ordered: true, ResolvConf: "/nowhere/resolv.conf"}, test.upstreams, func(t *testing.T, b *bench) {
				m, took := b.look(question("www.example", typeA))
				if addr(m) != test.want || took > test.within {
					t.Errorf("%s after %s, want %s within %s", addr(m), took, test.want, test.within)
				}
			})
		})
	}
}

// garbage is not what was asked for.
func garbage(_ context.Context, a *ask) ([]byte, error) {
	return respond(a, func(m *miekg.Msg) {
		rr, _ := miekg.NewRR("bank.example. 60 A 10.6.6.6")
		m.Answer = append(m.Answer, rr)
	}), nil
}

// TestGarbageIsNoIllness: a domain whose answers are of no use leaves its upstream
// well.
func TestGarbageIsNoIllness(t *testing.T) {
	inBubble(t, Options{}, []does{garbage}, func(t *testing.T, b *bench) {
		for i := range 20 {
			b.look(question(fmt.Sprintf("a%d.example", i), typeA))
		}
		u := b.routes.Load().upstreams[0]
		if u.standing().down || u.counts.failures.Load() != 20 {
			t.Errorf("down: %v, failures: %d", u.standing().down, u.counts.failures.Load())
		}
	})
}

// TestLostPacket: one upstream, of whose packets the first is lost.
func TestLostPacket(t *testing.T) {
	inBubble(t, Options{}, []does{after(0, 60, "10.9.0.1")}, func(t *testing.T, b *bench) {
		var lost atomic.Bool
		b.fakes[0].becomes(func(ctx context.Context, a *ask) ([]byte, error) {
			if !lost.Swap(true) {
				return dead(ctx, a)
			}
			return after(5*time.Millisecond, 60, "10.9.0.1")(ctx, a)
		})
		if m, took := b.look(question("www.example", typeA)); addr(m) != "10.9.0.1" || took > 1100*time.Millisecond {
			t.Errorf("%s after %s", addr(m), took)
		}
	})
}

// TestFastestIsAsked: the faster one is found whatever the order, and found again
// when another one has become faster. No client waits for a slow one to be
// measured.
func TestFastestIsAsked(t *testing.T) {
	ms := time.Millisecond
	inBubble(t, Options{}, []does{after(40*ms, 60, "10.9.0.1"), after(5*ms, 60, "10.9.0.2"), after(20*ms, 60, "10.9.0.3")}, func(t *testing.T, b *bench) {
		ask := func(n int, word string) (who map[string]int, longest time.Duration) {
			who = map[string]int{}
			for i := range n {
				m, took := b.look(question(fmt.Sprintf("%s%d.example", word, i), typeA))
				who[addr(m)]++
				longest = max(longest, took)
			}
			return who, longest
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if who, longest := ask(200, "a"); who["10.9.0.2"] != 200 || longest > 5*ms {
			t.Errorf("answers are by %v, the slowest after %s", who, longest)
		}
		b.fakes[1].becomes(after(80*ms, 60, "10.9.0.2"))
		b.fakes[0].becomes(after(1*ms, 60, "10.9.0.1"))
		ask(400, "b")
		if who, _ := ask(100, "c"); who["10.9.0.1"] < 98 {
			t.Errorf("after a change of speed, answers are by %v", who)
		}
	})
}

// TestOrdered: the first is asked as long as it answers, though others are faster.
func TestOrdered(t *testing.T) {
	ms := time.Millisecond
	inBubble(t, Options{Ordered: true}, []does{after(30*ms, 60, "10.9.0.1"), after(ms, 60, "10.9.0.2")}, func(t *testing.T, b *bench) {
		for i := range 100 {
			if m, _ := b.look(question(fmt.Sprintf("a%d.example", i), typeA)); addr(m) != "10.9.0.1" {
				t.Fatalf("question %d is answered by %s", i, addr(m))
			}
		}
		if n := b.fakes[1].asked.Load(); n != 0 {
			t.Errorf("the second was asked %d times", n)
		}
		b.fakes[0].becomes(dead)
		for i := range 20 {
			b.look(question(fmt.Sprintf("b%d.example", i), typeA))
			time.Sleep(200 * ms)
		}
		if _, took := b.look(question("c.example", typeA)); took > 2*ms {
			t.Errorf("while the first is down, an answer takes %s", took)
		}
		b.fakes[0].becomes(after(30*ms, 60, "10.9.0.1"))
		time.Sleep(lastProbe + time.Second)
		if m, _ := b.look(question("d.example", typeA)); addr(m) != "10.9.0.1" {
			t.Errorf("after its return the first is not asked: %s", addr(m))
		}
	})
}

// TestFlapping: an upstream that comes and goes costs no answer while another one
// is there, and is probed, not asked, while it is gone.
func TestFlapping(t *testing.T) {
	ms := time.Millisecond
	inBubble(t, Options{}, []does{after(ms, 60, "10.9.0.1"), after(10*ms, 60, "10.9.0.2")}, func(t *testing.T, b *bench) {
		for round := range 20 {
			if round%2 == 0 {
				b.fakes[0].becomes(dead)
			} else {
				b.fakes[0].becomes(after(ms, 60, "10.9.0.1"))
			}
			for i := range 100 {
				m, took := b.look(question(fmt.Sprintf("a%d-%d.example", round, i), typeA))
				if m.Rcode != 0 || took > maxHedge+50*ms {
					t.Fatalf("round %d, question %d: %s after %s", round, i, addr(m), took)
				}
				time.Sleep(50 * ms)
			}
		}
	})
}

// TestOneSlowNameIsNoIllness: a name that an upstream cannot resolve leaves it
// well, since it answers others.
func TestOneSlowNameIsNoIllness(t *testing.T) {
	ms := time.Millisecond
	inBubble(t, Options{}, []does{after(ms, 60, "10.9.0.1"), after(10*ms, 60, "10.9.0.2")}, func(t *testing.T, b *bench) {
		bad := question("bad.example", typeA)
		slow := func(ctx context.Context, a *ask) ([]byte, error) {
			if a.name == string(bad.Name) {
				return dead(ctx, a)
			}
			return after(ms, 60, "10.9.0.1")(ctx, a)
		}
		b.fakes[0].becomes(slow)
		b.fakes[1].becomes(slow)
		for i := range 300 {
			go b.look(bad)
			if m, took := b.look(question(fmt.Sprintf("a%d.example", i), typeA)); m.Rcode != 0 || took > 2*ms {
				t.Fatalf("question %d: %s after %s", i, addr(m), took)
			}
			time.Sleep(30 * ms)
		}
		for _, u := range b.routes.Load().upstreams {
			if u.counts.broken.Load() > 0 {
				t.Errorf("%s was taken for down", u.to)
			}
		}
		time.Sleep(10 * time.Second)
	})
}

// TestIsland: an upstream that knows the names of its site, and nothing of the rest
// of the world, about which it is silent, is well.
func TestIsland(t *testing.T) {
	ms := time.Millisecond
	inBubble(t, Options{}, []does{dead}, func(t *testing.T, b *bench) {
		b.fakes[0].becomes(func(ctx context.Context, a *ask) ([]byte, error) {
			if a.local || strings.HasSuffix(a.name, "\x04corp\x00") {
				return after(ms, 60, "10.9.0.1")(ctx, a)
			}
			return dead(ctx, a)
		})
		time.Sleep(lastProbe)
		for i := range 20 {
			if m, took := b.look(question(fmt.Sprintf("a%d.corp", i), typeA)); addr(m) != "10.9.0.1" || took > ms {
				t.Errorf("%s after %s", addr(m), took)
			}
			b.look(question(fmt.Sprintf("a%d.example", i), typeA))
			time.Sleep(time.Second)
			if b.routes.Load().upstreams[0].standing().down {
				t.Fatal("it is taken for down")
			}
		}
		if told := b.told.Load(); told != nil && len(*told) > 0 {
			t.Errorf("told is %v", *told)
		}
	})
}

// TestDeadIsTold: nobody answers, for long; it is told with what to do, and untold
// when it is over, which is noticed by itself.
func TestDeadIsTold(t *testing.T) {
	inBubble(t, Options{Node: "n1"}, []does{dead, refused}, func(t *testing.T, b *bench) {
		time.Sleep(time.Minute)
		synctest.Wait()
		told := *b.told.Load()
		if len(told) != 1 || told[0].Reason != "UpstreamsDown" || told[0].Object() != "Node/n1" || told[0].Remedy == "" {
			t.Fatalf("told is %v", told)
		}
		t.Log(told[0])
		if m, took := b.look(question("x.example", typeA)); m.Rcode != rcodeServFail || took > 4500*time.Millisecond {
			t.Errorf("%s after %s", addr(m), took)
		}
		b.fakes[1].becomes(after(time.Millisecond, 60, "10.9.0.2"))
		time.Sleep(lastProbe + lookEach)
		synctest.Wait()
		if told := *b.told.Load(); len(told) != 0 {
			t.Errorf("told is still %v", told)
		}
		if m, took := b.look(question("y.example", typeA)); addr(m) != "10.9.0.2" || took > 10*time.Millisecond {
			t.Errorf("%s after %s", addr(m), took)
		}
	})
}
