package agent

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
)

// writes counts the statuses that nodes publish in each second.
type writes struct {
	began time.Time

	mu     sync.Mutex
	counts map[int]int
}

func (w *writes) PublishNode(context.Context, kube.NodeStatus) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[int(time.Since(w.began).Seconds())]++
	return nil
}

func (w *writes) WriteEvent(context.Context, kube.Event) error { return nil }

// quiet is a source with nothing to say.
type quiet struct{}

func (quiet) Run(context.Context, *model.Feed) error { return nil }
func (quiet) FollowNames()                           {}
func (quiet) Synced() <-chan struct{}                { return nil }
func (quiet) PoliciesRead() <-chan struct{}          { return nil }
func (quiet) Problems() []model.Problem              { return nil }
func (quiet) Changed() <-chan struct{}               { return nil }

// TestStatusTurns: what comes upon 5,000 nodes in one moment, they publish one
// after the other; a node of a small cluster, at once.
func TestStatusTurns(t *testing.T) {
	for nodes, want := range map[int]struct {
		most int // in a second
		last int // second
	}{5000: {650, 10}, 3: {3, 0}} {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				feed, found, log := &model.Feed{}, &notices{}, slog.New(slog.DiscardHandler)
				feed.Edit(func(s *model.Snapshot) {
					for i := range nodes {
						name := fmt.Sprint(i)
						s.Nodes = s.Nodes.With(name, &model.Node{Name: name})
					}
				})
				written := &writes{counts: map[int]int{}}
				for i := range nodes {
					s := &status{
						node: fmt.Sprint(i), feed: feed, loop: newLoop(&Config{Log: log}, feed),
						source: quiet{}, notices: found, publisher: written, log: log,
					}
					go func() { _ = s.Run(t.Context()) }()
				}
				time.Sleep(5 * time.Second) // the first statuses, and the shortest pause after them
				written.mu.Lock()
				written.began, written.counts = time.Now(), map[int]int{}
				written.mu.Unlock()
				found.set("test", model.Problem{Kind: "Network", Name: "default", Reason: "Test"})
				time.Sleep(30 * time.Second)
				written.mu.Lock()
				defer written.mu.Unlock()
				total := 0
				for second, count := range written.counts {
					total += count
					if count > want.most || second > want.last {
						t.Errorf("%d wrote in second %d", count, second)
					}
				}
				if total != nodes {
					t.Errorf("%d statuses of %d nodes", total, nodes)
				}
			})
		})
	}
}

// wrong is a source with the problems of many objects.
type wrong struct {
	quiet
	problems []model.Problem
}

func (w wrong) Problems() []model.Problem { return w.problems }

// TestOwnProblemsAreTold: however many objects of users are wrong, what is wrong with the
// node itself is in its status, which has room for a hundred problems.
func TestOwnProblemsAreTold(t *testing.T) {
	source, own := wrong{}, &notices{}
	for i := range 500 {
		source.problems = append(source.problems, model.Problem{Kind: "Service", Namespace: "shop", Name: fmt.Sprint(i), Reason: "Invalid"})
	}
	source.problems = append(source.problems, model.Problem{Kind: "Service", Namespace: "shop", Name: "other", Reason: "Conflict"})
	own.set("addresses", model.Problem{Kind: "Node", Name: "a", Reason: "NoAddressLeft"})
	all := allProblems(outcome{shown: []model.Problem{{Kind: "Node", Name: "a", Reason: "DeviceDown"}}}, source, own)
	if len(all) != 503 || all[0].Reason != "NoAddressLeft" || all[1].Reason != "DeviceDown" {
		t.Errorf("%d problems: %v", len(all), all)
	}
	if at := slices.IndexFunc(all, func(p model.Problem) bool { return p.Reason == "Conflict" }); at != 12 {
		t.Errorf("one of another reason has place %d", at)
	}
}
