package kube

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// TestTurns lets the watches of 5,000 agents break in one moment, and counts
// those that come back in each second.
func TestTurns(t *testing.T) {
	const agents, timeout = 5000, int64(600)
	for _, test := range []struct {
		name  string
		again bool
		tried bool          // to go on, which was refused
		after time.Duration // the watch has lasted, and a minute more
		most  int           // in a second
		all   time.Duration // by when all are back
	}{
		{"broken", false, false, time.Minute, 650, 10 * time.Second},
		{"forgotten", true, false, time.Minute, 200, 50 * time.Second},
		{"forgotten, as the answer says", true, true, time.Minute, 200, 50 * time.Second},
		{"ended by itself", false, false, time.Duration(timeout) * time.Second, agents, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var all []*turns
				for range agents {
					one := &turns{agents: func() int { return agents }}
					if err := one.wait(t.Context(), true); err != nil {
						t.Fatal(err)
					}
					number := timeout
					one.began(&number)
					all = append(all, one)
				}
				time.Sleep(test.after)
				for _, one := range all {
					if test.tried {
						go func() { _ = one.wait(t.Context(), false) }()
					}
				}
				time.Sleep(time.Minute)
				began := time.Now()
				back := make(chan time.Duration, agents)
				for _, one := range all {
					go func() {
						_ = one.wait(t.Context(), test.again)
						back <- time.Since(began)
					}()
				}
				perSecond, last := map[int]int{}, time.Duration(0)
				for range agents {
					after := <-back
					perSecond[int(after.Seconds())]++
					last = max(last, after)
				}
				for second, count := range perSecond {
					if count > test.most {
						t.Errorf("%d came back in second %d, more than %d", count, second, test.most)
					}
				}
				if last > test.all {
					t.Errorf("the last came back after %v, later than %v", last, test.all)
				}
			})
		})
	}
}

// TestTurnsAfterOutage lets the API server be away for as long as turns take, and for
// longer than watches last, and counts those that come back in each second after it.
func TestTurnsAfterOutage(t *testing.T) {
	const watches = 9
	for away, agents := range map[time.Duration]int{10 * time.Second: 5000, 15 * time.Minute: 1000} {
		synctest.Test(t, func(t *testing.T) {
			timeout := int64(600)
			began, came := time.Now(), make(chan time.Duration, agents*watches)
			for range agents {
				shared := newEntrance()
				for range watches {
					one := &turns{shared: shared, agents: func() int { return agents }}
					one.began(&timeout)
					go func() {
						err := one.ask(t.Context(), false, func() error {
							if time.Since(began) < away {
								return errors.New("connection refused")
							}
							return nil
						})
						if err != nil {
							t.Error(err)
						}
						came <- time.Since(began) - away
					}()
				}
			}
			perSecond, last := map[int]int{}, time.Duration(0)
			for range agents * watches {
				after := <-came
				perSecond[int(after.Seconds())]++
				last = max(last, after)
			}
			for second, count := range perSecond {
				if count > watches*800 {
					t.Errorf("away for %v: %d watches came back in second %d", away, count, second)
				}
			}
			if last > time.Minute {
				t.Errorf("away for %v: the last came back after %v", away, last)
			}
		})
	}
}

// TestTurnsEndWithContext: an agent that stops does not wait for its turn.
func TestTurnsEndWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := &turns{agents: func() int { return 1_000_000_000 }}
		one.began(nil)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := one.wait(ctx, true); err == nil {
			t.Error("it waited")
		}
	})
}

// TestSourceTakesTurns: the watch that comes back after a lost connection waits
// for its turn, in a cluster whose API server says that it is large.
func TestSourceTakesTurns(t *testing.T) {
	source := &Source{}
	feed := &model.Feed{}
	feed.Edit(func(s *model.Snapshot) { s.Nodes = s.Nodes.With("a", &model.Node{Name: "a"}) })
	if turns := source.turns(feed); turns.agents() != 1 {
		t.Errorf("of a cluster of one node, %d agents take turns", turns.agents())
	}
	source.few = true
	if turns := source.turns(feed); turns != nil {
		t.Error("the leader takes turns, and has none to take them with")
	}
}

// TestManyNodesAtOnce: while nothing reads the feed, 6,000 nodes and what comes
// after them arrive all the same. A source that hands events to a reader through
// a queue comes to a stop at its end (flannel#2252).
func TestManyNodesAtOnce(t *testing.T) {
	const nodes = 6000
	s := newStub(t)
	source := s.client(Options{}).Source()
	feed := start(t, source)
	synced(t, source)
	for i := range nodes {
		s.put(nodesPath, stubNode(fmt.Sprintf("node-%d", i), fmt.Sprintf(`"spec": {"podCIDRs": ["10.%d.%d.0/24"]}`, i>>8, i&255)))
	}
	s.put(podsPath, stubPod("web", `"spec": {"nodeName": "node-0"}`))
	until(t, feed, "all nodes", func(s *model.Snapshot) bool { return s.Nodes.Len() == nodes && s.Pods.Len() == 1 })

	// The same in one list.
	second := s.client(Options{}).Source()
	feed = start(t, second)
	synced(t, second)
	if now, _ := feed.Latest(); now.Nodes.Len() != nodes {
		t.Errorf("a second source has %d nodes of %d", now.Nodes.Len(), nodes)
	}
}

// TestRelistKeepsValues: an object that comes again is what is held already,
// before the list is whole, so that a relist does not hold everything twice.
func TestRelistKeepsValues(t *testing.T) {
	feed := &model.Feed{}
	s := podStore(feed)
	s.key = func(pod *model.Pod) model.PodKey { return pod.PodKey }
	transform := s.Transformer()
	var first []any
	for range 2 {
		var objects []any
		for i := range 100 {
			object, err := transform(benchPod(i))
			if err != nil {
				t.Fatal(err)
			}
			objects = append(objects, object)
		}
		if first == nil {
			first = append(first, objects...)
		}
		for i := range objects {
			if objects[i] != first[i] {
				t.Fatalf("pod %d is held twice", i)
			}
		}
		if err := s.Replace(objects, "1"); err != nil {
			t.Fatal(err)
		}
	}
	if now, _ := feed.Latest(); now.Revision != 1 || now.Pods.Len() != 100 {
		t.Errorf("revision %d with %d pods", now.Revision, now.Pods.Len())
	}
}

// TestOneConnection: the watches of a source share one, also when they begin
// together.
func TestOneConnection(t *testing.T) {
	s := newStub(t)
	for range 10 {
		client := s.client(Options{})
		var connections atomic.Int32
		config := client.servers.tls // asked for at each
		client.servers.tls = func() (*tls.Config, error) {
			connections.Add(1)
			return config()
		}
		source := client.Source()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- source.Run(ctx, &model.Feed{}) }()
		synced(t, source)
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if n := connections.Load(); n != 1 {
			t.Fatalf("a source made %d connections", n)
		}
	}
}
