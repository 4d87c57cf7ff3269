package agent

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/route"
)

// status tells the cluster how this node does.
type status struct {
	node, version string
	feed          *model.Feed
	loop          *loop
	source        Source
	notices       *notices
	publisher     Publisher
	checks        checks
	metrics       *metrics // may be nil
	log           *slog.Logger
}

// How often a status is offered to the publisher, which writes what is new, or
// a sign of life when one is due. What somebody has to act on goes as fast as
// shortestPause lets it, and when it is the node's turn: it may have come upon all
// nodes at once. Counts wait for the next minute, lest a thousand nodes write as
// often as pods come and go.
const (
	shortestPause = 2 * time.Second
	longestPause  = time.Minute
	publishTime   = 30 * time.Second // after which a newer status has its turn
)

func (s *status) Run(ctx context.Context) error {
	said := ""
	for {
		now := s.now()
		publishing, cancel := context.WithTimeout(ctx, publishTime)
		err := s.publisher.PublishNode(publishing, now)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		s.metrics.told(err)
		switch {
		case err == nil:
			said = ""
		case err.Error() != said:
			said = err.Error()
			s.log.Warn("the status of this node could not be published", "error", err)
		}
		if !pause(ctx, jitter(shortestPause)) || !s.wait(ctx, now) {
			return nil
		}
	}
}

// wait returns when there is something new to publish since then; it tells
// whether the context goes on.
func (s *status) wait(ctx context.Context, then kube.NodeStatus) bool {
	due := time.After(jitter(longestPause))
	for {
		result, applied := s.loop.outcome.get()
		troubled, noticed, step := s.source.Changed(), s.notices.Changed(), s.checks.next()
		snapshot, _ := s.feed.Latest()
		if urgent(then, s.pressing(snapshot, result)) {
			return pause(ctx, kube.StatusTurn(snapshot.Nodes.Len()))
		}
		select {
		case <-ctx.Done():
			return false
		case <-due:
			return true
		case <-applied:
		case <-troubled:
		case <-noticed:
		case <-step:
		}
	}
}

func urgent(then, now kube.NodeStatus) bool {
	return then.UID != now.UID || then.Ready != now.Ready || then.Message != now.Message ||
		then.Uplink != now.Uplink || then.MTU != now.MTU || !slices.Equal(then.Problems, now.Problems)
}

// pause is for rates, not for waiting; it tells whether the context goes on.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func (s *status) now() kube.NodeStatus {
	snapshot, _ := s.feed.Latest()
	result, _ := s.loop.outcome.get()
	status := s.pressing(snapshot, result)
	status.Attached = attachedPods(snapshot)
	if result.plan != nil && result.plan.Route != nil {
		for _, way := range result.plan.Route.Ways.All() {
			if way == route.Direct {
				status.Direct++
			} else {
				status.Tunnelled++
			}
		}
	}
	return status
}

// pressing is a status without counts: those of other nodes take a look at each of
// them, which is too much for each change of a pod.
func (s *status) pressing(snapshot *model.Snapshot, result outcome) kube.NodeStatus {
	status := kube.NodeStatus{
		Node: s.node, Version: s.version,
		Problems: allProblems(result, s.source, s.notices),
	}
	if node, ok := snapshot.Nodes.Get(s.node); ok {
		status.UID = node.UID
	}
	status.Ready, status.Reason, status.Message = verdict(s.checks, result, s.notices)
	if link := uplink(snapshot, s.node); link != nil {
		status.Uplink, status.MTU = link.Name, link.MTU
	}
	return status
}

// allProblems are those of a node: first its own, then a few of each reason of what the
// plan and the API server's objects have, then the rest. A status has room for so many,
// and objects of users are not to keep others from being told.
func allProblems(result outcome, source Source, notices *notices) []model.Problem {
	const few = 10
	seen := map[string]int{}
	var first, rest []model.Problem
	for _, p := range slices.Concat(result.problems(), source.Problems()) {
		if seen[p.Reason]++; seen[p.Reason] <= few {
			first = append(first, p)
		} else {
			rest = append(rest, p)
		}
	}
	return slices.Concat(notices.Problems(), first, rest)
}

// AsPlanned is said of a node of which there is nothing else to say.
const AsPlanned = "the network is as planned"

// verdict tells whether the network of the node is ready, and why not: a word,
// and a sentence without a full stop.
func verdict(checks checks, result outcome, notices *notices) (ready bool, reason, message string) {
	switch missing := checks.missing(); {
	case result.err != nil:
		return false, "ApplyFailed", result.err.Error()
	case missing != "":
		return false, "Starting", missing
	case len(result.shown) > 0:
		return false, "Refused", result.shown[0].String()
	}
	message = AsPlanned
	if remarks := notices.remarks(); remarks != "" {
		message += "; " + remarks
	}
	return true, "Applied", message
}
