package agent

import (
	"context"
	"path/filepath"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// recentFile has what policies are made of and the pods of the node, as they are a
// moment ago, and is laid over memoryFile: without a reboot, what is recalled takes
// the place of what the kernel has.
const recentFile = "snapshot-recent.json.gz"

const (
	// recentPause is how long changes are gathered, and recentShare makes it longer
	// as keepShare does.
	recentPause = time.Second
	recentShare = 20
)

func (m *memory) recentPath() string { return filepath.Join(filepath.Dir(m.path), recentFile) }

// recent is the part of what is known that is kept at once. The zero value knows
// nothing.
type recent struct {
	all model.Map[model.PodKey, *model.Pod] // of the cluster, as they were
	own model.Map[model.PodKey, *model.Pod]
}

// of returns the part of a snapshot, equal to that before if nothing of it changed.
func (r *recent) of(s *model.Snapshot, node string) model.Snapshot {
	for change := range model.Diff(r.all, s.Pods) {
		switch {
		case change.New != nil && change.New.Node == node:
			r.own = r.own.With(change.Key, change.New)
		case change.Old != nil && change.Old.Node == node:
			r.own = r.own.Without(change.Key)
		}
	}
	r.all = s.Pods
	return model.Snapshot{
		Namespaces: s.Namespaces, Policies: s.Policies, ClusterPolicies: s.ClusterPolicies, PoliciesKnown: s.PoliciesKnown, Pods: r.own,
	}
}

// keepRecent keeps it whenever it has changed, until the context ends: then keep has
// all.
func (m *memory) keepRecent(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-m.began:
	}
	var kept model.Snapshot
	var part recent
	for wait := recentPause; ; {
		of := time.Now()
		snapshot, changed := m.feed.Latest()
		if now := part.of(snapshot, m.node); now != kept && now.PoliciesKnown {
			worked, err := write(ctx, m.recentPath(), &now, of)
			if m.tell("recent", err); err == nil {
				kept = now
			}
			wait = max(recentPause, recentShare*worked)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

// read returns what is remembered, and of when most of it is.
func (m *memory) read() (was *model.Snapshot, of time.Time, err error) {
	was, of, err = readMemory(m.path)
	if err != nil {
		return nil, of, err
	}
	// What cannot be read of it is not much older in the other.
	if part, since, err := readMemory(m.recentPath()); err == nil && !since.Before(of) {
		m.lay(part, was)
	}
	return was, of, nil
}

// lay lays what keepRecent has kept over all.
func (m *memory) lay(part, over *model.Snapshot) {
	over.Namespaces, over.Policies, over.ClusterPolicies = part.Namespaces, part.Policies, part.ClusterPolicies
	pods := over.Pods
	for key, pod := range over.Pods.All() {
		if pod.Node == m.node {
			pods = pods.Without(key)
		}
	}
	for key, pod := range part.Pods.All() {
		pods = pods.With(key, pod)
	}
	over.Pods = pods
}
