package kube

import (
	"context"
	"testing"
	"time"
)

// TestClockOfTheAPIServer: times are written and judged by one clock, and a node whose
// own differs says so, until it is set.
func TestClockOfTheAPIServer(t *testing.T) {
	for ahead, want := range map[time.Duration]string{
		0:                 "",
		50 * time.Second:  "",
		11 * time.Minute:  "the clock of this node is 11m0s behind that of the API server",
		-25 * time.Hour:   "the clock of this node is 25h0m0s ahead of that of the API server",
		400 * time.Minute: "the clock of this node is 6h40m0s behind that of the API server",
	} {
		s := newStub(t)
		s.ahead = ahead
		s.put(nodesPath, stubNode("a", `"spec": {}`))
		client := s.client(Options{})
		near := func(what string, at time.Time) {
			t.Helper()
			if off := at.Sub(time.Now().Add(ahead)).Abs(); off > 10*time.Second {
				t.Errorf("of an API server that is %v ahead, %s is %v off", ahead, what, off)
			}
		}
		if err := client.PublishNode(t.Context(), NodeStatus{Node: "a", Ready: true}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		err := client.Lead(ctx, Lock{Namespace: SystemNamespace, Name: LeaderLease, Identity: "one", Failed: func(err error) { t.Error(err) }}, func(context.Context) error {
			overview, err := client.Overview(t.Context())
			if err != nil {
				return err
			}
			near("the time", overview.Time)
			near("the heartbeat", overview.Nodes[0].Report.Status.HeartbeatTime.Time)
			near("the lease", overview.Leader.Renewed)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		got := s.nodeNetwork("a").Status.Problems
		if (len(got) > 0) != (want != "") || len(got) > 0 && (got[0].Reason != "ClockWrong" || got[0].Message[:len(want)] != want) {
			t.Errorf("of an API server that is %v ahead it is said: %v", ahead, got)
		}
		s.mu.Lock()
		s.ahead = 0
		s.mu.Unlock()
		if _, err := client.NodeNames(t.Context()); err != nil { // an answer
			t.Fatal(err)
		}
		if err := client.PublishNode(t.Context(), NodeStatus{Node: "a", Ready: true}); err != nil {
			t.Fatal(err)
		}
		if got := s.nodeNetwork("a").Status.Problems; len(got) > 0 {
			t.Errorf("with the clock set: %v", got)
		}
	}
}
