package agent

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
)

// memory is a source that remembers. What the API server has told is kept in a
// file, and an agent that starts while it cannot be reached goes by that: after a
// reboot at once, and else, since the kernel knows better, when a pod is to be
// connected. docs/adr/0013 tells why.
type memory struct {
	Source   // what remembers nothing
	node     string
	path     string // of the file
	feed     *model.Feed
	notices  *notices
	attacher *attacher       // knows whether the node was started since, when it has taken over
	began    <-chan struct{} // closed when the first plan is applied
	needed   chan struct{}   // of one element: a pod is to be connected
	standby  atomic.Bool     // it would be recalled for a pod

	known func()          // closes what Synced returns
	told  <-chan struct{} // closed by known

	mu       sync.Mutex
	recalled bool      // the feed has policies of the file
	of       time.Time // of when they are
}

const (
	memoryFile = "snapshot.json.gz"
	// patience is how long the API server may take to answer before what is
	// remembered counts, and mostPatience while no request has failed: of several
	// servers that do not answer, each takes its time, one after the other.
	patience, mostPatience = 2 * time.Second, 20 * time.Second
	// listenPause is between two looks at whether it has answered: nobody tells
	// that it does not.
	listenPause = patience / 4
	// keepPause is between two files, and keepShare makes it longer where
	// one takes long: a part of so many of the time goes into them.
	keepPause = time.Minute
	keepShare = 200
	// keepFirst is how long the first one waits for each pod of the cluster, since the
	// start of an agent in a large one is work enough.
	keepFirst = time.Millisecond
	// keepPace is how slowly one is written: it works a part of so many of the time.
	keepPace = 10
	// keepPiece is what is written without a pause, in bytes before it is
	// compressed.
	keepPiece = 32 << 10
	// muchWork leaves much memory behind.
	muchWork = 100 * time.Millisecond
)

// newMemory takes the place of the source of an agent.
func newMemory(c *Config, feed *model.Feed, notices *notices) *memory {
	known := make(chan struct{})
	m := &memory{
		Source: c.Source, node: c.Node, path: filepath.Join(c.StateDir, memoryFile), feed: feed, notices: notices,
		needed: make(chan struct{}, 1), known: sync.OnceFunc(func() { close(known) }), told: known,
	}
	c.Source = m
	return m
}

// Synced implements Source: the feed has all of it, or what is remembered of it.
func (m *memory) Synced() <-chan struct{} { return m.told }

// Watches are those of the source that remembers nothing; none if it has none.
func (m *memory) Watches() []kube.WatchState {
	if watching, ok := m.Source.(interface{ Watches() []kube.WatchState }); ok {
		return watching.Watches()
	}
	return nil
}

// need says that a pod is to be connected.
func (m *memory) need() { signalWake(m.needed) }

// Run implements Source.
func (m *memory) Run(ctx context.Context, feed *model.Feed) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return m.Source.Run(ctx, feed) })
	group.Go(func() error {
		for _, path := range []string{m.path, m.beside(policiesFile), m.beside(podsFile)} {
			removeUnfinished(path)
		}
		if m.begin(ctx) {
			group.Go(func() error { m.keepRecent(ctx, policiesFile, policiesOf); return nil })
			var own ownPods
			group.Go(func() error {
				m.keepRecent(ctx, podsFile, func(s *model.Snapshot) model.Snapshot { return own.of(s, m.node) })
				return nil
			})
			m.keep(ctx)
		}
		return nil
	})
	return group.Wait()
}

// begin waits until the API server has told all, policies too, and tells whether it
// has before the context ended.
func (m *memory) begin(ctx context.Context) bool {
	defer m.standby.Store(false)
	began, due, wanted, tried := time.Now(), time.After(patience), m.attacher.booted, false
	for {
		select {
		case <-ctx.Done():
			return false
		case <-m.Source.Synced():
			return m.finish(ctx)
		case <-m.needed:
			wanted = true
			continue
		case <-due:
		}
		due = time.After(listenPause)
		heard := m.heard()
		if heard {
			m.distrust()
		}
		silent := !tried && !heard && (m.failed() || time.Since(began) > mostPatience)
		if silent && wanted {
			m.recall()
			tried = true
		}
		_, missing := os.Stat(m.path)
		m.standby.Store(silent && !wanted && missing == nil)
	}
}

// finish is for when all but policies are known. What policies are remembered count
// as those do that an agent begins with, until all of theirs has come.
func (m *memory) finish(ctx context.Context) bool {
	m.standby.Store(false)
	m.distrust()
	m.known()
	select {
	case <-ctx.Done():
		return false
	case <-m.Source.PoliciesRead():
		m.notices.set("memory")
		return true
	}
}

// starting is what is missing until pods can be connected, "" if nothing: what is
// remembered is enough, also before it is recalled for the first of them.
func (m *memory) starting(checks checks) func() string {
	return func() string {
		if m.standby.Load() {
			return ""
		}
		return checks.missing()
	}
}

// heard tells whether the API server answers, or has answered: what comes is newer
// than what is remembered, and what has come does not come again.
func (m *memory) heard() bool {
	return slices.ContainsFunc(m.Watches(), func(w kube.WatchState) bool { return w.Up || w.Events > 0 })
}

// failed tells whether a request has, which is after all servers were tried.
func (m *memory) failed() bool {
	return slices.ContainsFunc(m.Watches(), func(w kube.WatchState) bool { return w.Failures > 0 })
}

// distrust is for when the API server has answered: pods that come from now on have
// policies that were made since the file was, so remembered ones are not enough for
// them. The kernel keeps what it has of them, and pods wait, as when an agent starts
// with an API server that is there.
func (m *memory) distrust() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.recalled {
		return
	}
	m.recalled = false
	m.feed.Edit(func(s *model.Snapshot) {
		if !isDone(m.Source.PoliciesRead()) { // which is before the feed is told
			s.PoliciesKnown = false
		}
	})
	m.remind("it answers again and has not told all policies yet: until then those of pods are as the agent before knew them at %s, and pods that are to be connected wait",
		"if it lasts, see in the agent's log what it refuses")
}

// remind says that it goes by what is remembered. The message has the place of a time.
func (m *memory) remind(message, remedy string) {
	m.notices.set("memory", model.Problem{
		Kind: "APIServer", Name: "kubernetes", Reason: "Remembered",
		Message: fmt.Sprintf(message, m.of.UTC().Format(time.RFC3339)), Remedy: remedy,
	})
}

// recall lets the feed have what is remembered, unless the API server has told
// something meanwhile.
func (m *memory) recall() {
	was, of, err := m.read()
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		m.notices.set("memory", model.Problem{
			Kind: "Node", Name: m.node, Field: m.path, Reason: "MemoryUnreadable",
			Message: "the API server cannot be reached, and what it told an earlier agent cannot be read: " + err.Error(),
			Remedy:  "start the API server, or mend the way to it; until then no pods can be connected on this node",
		})
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.feed.Edit(func(s *model.Snapshot) {
		if s.Network != nil || m.heard() {
			was = nil
			return
		}
		s.Network, s.Nodes, s.Pods = was.Network, was.Nodes, was.Pods
		s.Services, s.Slices, s.ServiceCIDRs = was.Services, was.Slices, was.ServiceCIDRs
		s.Namespaces, s.Policies, s.ClusterPolicies = was.Namespaces, was.Policies, was.ClusterPolicies
		s.PoliciesKnown = was.PoliciesKnown
	})
	if was == nil {
		return
	}
	m.recalled, m.of = true, of
	m.remind("it cannot be reached since the agent of node "+m.node+" started: the network of the node is as the agent before knew it at %s, and pods that it did not know are isolated",
		"start the API server, or mend the way to it; what has changed since then is caught up with")
	m.known()
}

// remembered is the part of a snapshot that is kept: what nobody but the API server
// tells, but for the names that DNS servers keep themselves.
func remembered(s *model.Snapshot) model.Snapshot {
	return model.Snapshot{
		Network: s.Network, Nodes: s.Nodes, Pods: s.Pods,
		Services: s.Services, Slices: s.Slices, ServiceCIDRs: s.ServiceCIDRs,
		Namespaces: s.Namespaces, Policies: s.Policies, ClusterPolicies: s.ClusterPolicies, PoliciesKnown: s.PoliciesKnown,
	}
}

// keep keeps what the API server tells until the context ends, and then once more.
func (m *memory) keep(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-m.began: // pods wait for that
		snapshot, _ := m.feed.Latest()
		pause(ctx, min(keepPause, time.Duration(snapshot.Pods.Len())*keepFirst))
	}
	closed := make(chan struct{})
	close(closed)
	var kept model.Snapshot
	for ended := false; ; {
		of := time.Now()
		snapshot, changed := m.feed.Latest()
		wait := time.Duration(0)
		if now := remembered(snapshot); now != kept && now.PoliciesKnown {
			worked, err := write(ctx, m.path, &now, of)
			if worked > muchWork {
				debug.FreeOSMemory() // of what it took
			}
			if m.tell("memory", err); err == nil {
				kept = now
			} else { // tried again in any case
				changed = closed
			}
			wait = max(keepPause, keepShare*worked)
		}
		if ended {
			return
		}
		ended = !pause(ctx, wait)
		select {
		case <-ctx.Done():
			ended = true
		case <-changed:
		}
	}
}

// zippers are of a megabyte each, which is more than what the pods of a node take.
var zippers = sync.Pool{New: func() any {
	zipped, err := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed)
	if err != nil { // of no level that there is
		panic(err)
	}
	return zipped
}}

// write replaces a file of what was known at a time, slowly until the context ends.
// It returns how long it worked.
func write(ctx context.Context, path string, snapshot *model.Snapshot, of time.Time) (worked time.Duration, err error) {
	err = replace(path, 0o600, func(file *os.File) error {
		zipped := zippers.Get().(*gzip.Writer)
		defer zippers.Put(zipped)
		zipped.Reset(file)
		since := time.Now()
		slowly := bufio.NewWriterSize(writer(func(piece []byte) (int, error) {
			n, err := zipped.Write(piece)
			now := time.Now()
			worked += now.Sub(since)
			pause(ctx, (keepPace-1)*now.Sub(since))
			since = time.Now()
			return n, err
		}), keepPiece)
		return errors.Join(kube.WriteSnapshotJSON(slowly, snapshot), slowly.Flush(), zipped.Close(), os.Chtimes(file.Name(), of, of))
	})
	return worked, err
}

// writer is a function that writes.
type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// tell says whether a file could be written.
func (m *memory) tell(part string, err error) {
	if err == nil {
		m.notices.set(part)
		return
	}
	m.notices.set(part, model.Problem{
		Kind: "Node", Name: m.node, Reason: "MemoryNotWritten",
		Message: "what the API server tells is not on disk for an agent that starts without it: " + err.Error(),
		Remedy:  "make room on the disk of the node, or make it writable",
	})
}

// readMemory returns what is remembered, and of when that is.
func readMemory(path string) (_ *model.Snapshot, of time.Time, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, of, err
	}
	defer file.Close()
	about, err := file.Stat()
	if err != nil {
		return nil, of, err
	}
	unzipped, err := gzip.NewReader(bufio.NewReader(file))
	if err != nil {
		return nil, of, fmt.Errorf("unpack: %w", err)
	}
	snapshot, err := kube.RecallSnapshot(io.Reader(unzipped))
	return snapshot, about.ModTime(), err
}
