package agent

import (
	"context"
	"path/filepath"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// What policies are made of, and the pods of the node, are kept as they are a moment
// ago, in a file each that is laid over memoryFile: without a reboot, what is recalled
// takes the place of what the kernel has. They are two, since in a large cluster there
// are many policies, and pods of the node change much more often.
const (
	policiesFile = "snapshot-policies.json.gz"
	podsFile     = "snapshot-pods.json.gz"
)

const (
	// recentPause is how long changes are gathered, and recentShare makes it longer
	// as keepShare does.
	recentPause = time.Second
	recentShare = 20
)

// beside is the path of another file of the memory.
func (m *memory) beside(file string) string { return filepath.Join(filepath.Dir(m.path), file) }

// policiesOf is what policies are made of, but for pods.
func policiesOf(s *model.Snapshot) model.Snapshot {
	return model.Snapshot{
		Namespaces: s.Namespaces, Policies: s.Policies, ClusterPolicies: s.ClusterPolicies, PoliciesKnown: s.PoliciesKnown,
	}
}

// ownPods are the pods of a node. The zero value knows none.
type ownPods struct {
	all model.Map[model.PodKey, *model.Pod] // of the cluster, as they were
	own model.Map[model.PodKey, *model.Pod]
}

// of returns them, as a snapshot that is equal to that before if none has changed.
func (p *ownPods) of(s *model.Snapshot, node string) model.Snapshot {
	for change := range model.Diff(p.all, s.Pods) {
		switch {
		case change.New != nil && change.New.Node == node:
			p.own = p.own.With(change.Key, change.New)
		case change.Old != nil && change.Old.Node == node:
			p.own = p.own.Without(change.Key)
		}
	}
	p.all = s.Pods
	return model.Snapshot{Pods: p.own, PoliciesKnown: s.PoliciesKnown}
}

// keepRecent keeps a part of what is known in a file whenever it has changed, until
// the context ends: then keep has all.
func (m *memory) keepRecent(ctx context.Context, file string, part func(*model.Snapshot) model.Snapshot) {
	select {
	case <-ctx.Done():
		return
	case <-m.began:
	}
	var kept model.Snapshot
	for wait := recentPause; ; {
		of := time.Now()
		snapshot, changed := m.feed.Latest()
		if now := part(snapshot); now != kept && now.PoliciesKnown {
			worked, err := write(ctx, m.beside(file), &now, of)
			if m.tell(file, err); err == nil {
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
	// What cannot be read of them is not much older in the one of all.
	if recent, since, err := readMemory(m.beside(policiesFile)); err == nil && !since.Before(of) {
		was.Namespaces, was.Policies, was.ClusterPolicies = recent.Namespaces, recent.Policies, recent.ClusterPolicies
	}
	if recent, since, err := readMemory(m.beside(podsFile)); err == nil && !since.Before(of) {
		was.Pods = withPodsOf(m.node, was.Pods, recent.Pods)
	}
	return was, of, nil
}

// withPodsOf puts pods in the place of those of their node.
func withPodsOf(node string, all, own model.Map[model.PodKey, *model.Pod]) model.Map[model.PodKey, *model.Pod] {
	with := all
	for key, pod := range all.All() {
		if pod.Node == node {
			with = with.Without(key)
		}
	}
	for key, pod := range own.All() {
		with = with.With(key, pod)
	}
	return with
}
