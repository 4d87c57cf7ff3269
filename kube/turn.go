package kube

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// How many agents of a cluster may do the same thing in a second, on average,
// when something makes all of them do it. What is known stays in force meanwhile:
// nobody waits for them.
const (
	// A watch that goes on where it was costs the API server a few reads of its
	// cache, and an agent has nine, or eleven beside a server of names. With 5,000
	// agents they take 10 s.
	resumesPerSecond = 500
	// A list sends all objects: 50 s for 5,000 agents, and ten for 1,000.
	relistsPerSecond = 100
	// A status is one write, or three if the object is new.
	statusesPerSecond = 500
)

// StatusTurn is how long an agent waits before it publishes what may have come
// upon all nodes in one moment: at random, so that the agents of a cluster of so
// many nodes write one after the other. In a small cluster it is nothing.
func StatusTurn(nodes int) time.Duration { return turn(nodes, statusesPerSecond) }

func turn(agents, perSecond int) time.Duration {
	return rand.N(time.Duration(agents)*time.Second/time.Duration(perSecond) + 1)
}

// turns keeps the watches of many agents from coming back together, when an API
// server has ended and broken them all or has forgotten where they were. The
// reflector's own pauses begin only with the second attempt, and with a second. A nil *turns is for
// what nobody else watches: it never waits.
type turns struct {
	agents func() int // of the cluster
	shared *entrance  // by the watches of an agent

	mu      sync.Mutex
	ends    time.Time // when the last watch was to end by itself; zero: there was none
	list    bool      // the next request for all objects is the first since then
	missing bool      // the API server was not there when it was asked last
}

// wait returns when it is this agent's turn, at once if nothing says that others
// want theirs. again is for a request that sends all objects.
func (t *turns) wait(ctx context.Context, again bool) error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	// Watches end by themselves at random moments, and need no spreading. What finds no API
	// server takes its turn at each attempt: else one that was away for seconds would have
	// all at once whose first turn came in the last of them.
	due, perSecond := t.missing || time.Now().Before(t.ends), resumesPerSecond
	if again {
		due, perSecond = t.missing || t.list, relistsPerSecond
		t.list = false
	}
	t.mu.Unlock()
	if !due {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(turn(t.agents(), perSecond)):
		return nil
	}
}

// began says that a watch is there, for as long as it was asked for.
func (t *turns) began(timeoutSeconds *int64) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.list, t.ends = true, time.Now()
	if timeoutSeconds != nil {
		// A server may end it a little early.
		t.ends = t.ends.Add(time.Duration(*timeoutSeconds)*time.Second - time.Second)
	}
}
