package agent

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/dataplane/nftables"
	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
)

// silence is a cluster whose API server answers nothing until the channel that it
// returns is closed.
func silence(c *testCluster) (answers chan struct{}) {
	c.silent = make(chan struct{})
	c.read = func(ctx context.Context, key model.PodKey) (*model.Pod, error) {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-c.silent:
			return &model.Pod{PodKey: key, Node: testNode}, nil
		}
	}
	return c.silent
}

// reboot takes from the kernel what a reboot does.
func reboot(t *testing.T, run string) {
	t.Helper()
	for _, device := range podDevices(t) {
		must(t, netlink.LinkDel(linkOf(t, device)))
	}
	must(t, nftables.New().Remove())
	must(t, os.Remove(filepath.Join(run, "boot")))
}

func (c *testCluster) told(reason string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.published) == 0 {
		return false
	}
	for _, problem := range c.published[len(c.published)-1].Problems {
		if problem.Reason == reason {
			return true
		}
	}
	return false
}

// TestRebootWithoutAPIServer: a node that boots while the API server is away
// connects pods by what it knew before. Those that it knew may be called as their
// policies say; one that it did not know is isolated until it is known.
func TestRebootWithoutAPIServer(t *testing.T) {
	needNode(t)
	newOne := func() *testCluster {
		c := newCluster("10.244.1.0/26", "fd00:10:244:1::/120")
		c.ahead = filter(t)
		for _, name := range []string{"prober", "open", "closed"} {
			c.pods = append(c.pods, &model.Pod{
				PodKey: model.PodKey{Namespace: "default", Name: name}, Node: testNode, Labels: model.LabelsOf(map[string]string{"app": name}),
			})
		}
		return c
	}
	run, before := t.TempDir(), newOne()
	before.first = closed
	a := start(t, before, run)
	a.add(t, "open")
	a.stop()
	reboot(t, run)

	after := newOne()
	answers := silence(after)
	a = start(t, after, run)
	made := map[string]*pod{}
	for _, name := range []string{"prober", "open", "closed", "unknown"} {
		made[name] = newPod(t, name)
		if reply := a.ask(t, request("ADD", name), made[name].netns); reply.Error != nil {
			t.Fatalf("ADD of %s: %v", name, reply.Error)
		}
	}
	eventually(t, "the node to say what it goes by", func() bool { return after.told("Remembered") })
	hammer(t, made["prober"], 61, "10.244.1.1", "fd00:10:244:1::1")
	more := func(name string) {
		t.Helper()
		before4, before6 := made[name].datagrams(t)
		eventually(t, "packets to the pod "+name, func() bool { v4, v6 := made[name].datagrams(t); return v4 > before4+100 && v6 > before6+100 })
	}
	more("open")
	for _, name := range []string{"closed", "unknown"} {
		if v4, v6 := made[name].datagrams(t); v4+v6 > 0 {
			t.Errorf("%s got %d packets over IPv4 and %d over IPv6", name, v4, v6)
		}
	}

	after.first = closed
	after.pods = append(after.pods, &model.Pod{PodKey: model.PodKey{Namespace: "default", Name: "unknown"}, Node: testNode})
	close(answers)
	more("unknown")
	if v4, v6 := made["closed"].datagrams(t); v4+v6 > 0 {
		t.Errorf("closed got %d packets over IPv4 and %d over IPv6", v4, v6)
	}
	eventually(t, "the node to go by the API server again", func() bool { return !after.told("Remembered") })
}

// TestKilledWithoutAPIServer: an agent that begins after one that was killed, while
// the API server is away, leaves the kernel as it is, and is ready for pods: with
// the first of them it goes by what the other one knew.
func TestKilledWithoutAPIServer(t *testing.T) {
	needNode(t)
	dir := t.TempDir()
	former := exec.Command("/proc/self/exe")
	former.Env = append(os.Environ(), agentInNode+"="+dir)
	must(t, former.Start())
	defer end(former)
	eventually(t, "the agent to know the cluster and keep it", func() bool {
		return exists(filepath.Join(dir, "state", memoryFile)) && exists(filepath.Join(dir, "run", "ready"))
	})
	must(t, os.MkdirAll(filepath.Join(dir, "run", "state"), 0o755))
	end(former)
	must(t, os.Rename(filepath.Join(dir, "state", memoryFile), filepath.Join(dir, "run", "state", memoryFile)))

	cluster := newCluster(crashRanges...)
	answers := silence(cluster)
	a := start(t, cluster, filepath.Join(dir, "run"))
	eventually(t, "the agent to be ready for pods", func() bool { return a.ask(t, request("STATUS", ""), nil).Error == nil })
	if cluster.told("Remembered") {
		t.Error("it goes by what was known although nobody wants anything")
	}
	if got := a.add(t, "one"); !strings.HasPrefix(got, "10.244.") {
		t.Errorf("ADD: %s", got)
	}
	eventually(t, "the node to say what it goes by", func() bool { return cluster.told("Remembered") })
	close(answers)
	eventually(t, "the node to go by the API server again", func() bool { return !cluster.told("Remembered") })
	a.del(t, "one")
}

// TestDamagedMemory: what cannot be read is not gone by, and is named.
func TestDamagedMemory(t *testing.T) {
	needNode(t)
	run := t.TempDir()
	a := start(t, newCluster("10.244.1.0/26"), run)
	a.add(t, "one")
	a.stop()
	path := filepath.Join(run, "state", memoryFile)
	whole, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, whole[:len(whole)-9], 0o600))
	reboot(t, run)
	cluster := newCluster("10.244.1.0/26")
	silence(cluster)
	a = start(t, cluster, run)
	ask := request("ADD", "one")
	ask.Timeout = 4 * time.Second
	if reply := a.ask(t, ask, newPod(t, "one").netns); reply.Error == nil || !strings.Contains(reply.Error.Error(), "the API server has not been reached yet") {
		t.Errorf("ADD: %v", reply.Error)
	}
	eventually(t, "the node to name the file", func() bool { return cluster.told("MemoryUnreadable") })
}

// heardSource is one that has been told a little, and waits for the rest.
type heardSource struct {
	*testCluster
	watches []kube.WatchState
}

func (s heardSource) Watches() []kube.WatchState { return s.watches }

// TestMemoryIsOlder: once the API server has told something, nothing that is
// remembered takes its place.
func TestMemoryIsOlder(t *testing.T) {
	c := Config{Node: testNode, StateDir: t.TempDir()}
	known := &model.Snapshot{Network: model.DefaultNetwork(), PoliciesKnown: true}
	known.Nodes = known.Nodes.With("gone", &model.Node{Name: "gone"})
	for name, test := range map[string]struct {
		watches []kube.WatchState
		want    bool
	}{
		"nothing":            {nil, true},
		"nobody there":       {[]kube.WatchState{{Kind: "Node", Failures: 3}}, true},
		"an answer":          {[]kube.WatchState{{Kind: "Pod"}, {Kind: "Node", Up: true}}, false},
		"nodes, a while ago": {[]kube.WatchState{{Kind: "Node", Events: 1, Failures: 7}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			feed, notices := &model.Feed{}, &notices{}
			c.Source = heardSource{newCluster(), test.watches}
			m := newMemory(&c, feed, notices)
			_, err := write(t.Context(), m.path, known, time.Now())
			must(t, err)
			if !m.heard() {
				m.recall()
			}
			if s, _ := feed.Latest(); (s.Nodes.Len() == 1) != test.want || isDone(m.Synced()) != test.want || (len(notices.Problems()) == 1) != test.want {
				t.Errorf("%d nodes are known, problems %v", s.Nodes.Len(), notices.Problems())
			}
			m.recall() // as if it was heard only now
			if s, _ := feed.Latest(); (s.Nodes.Len() == 1) != test.want {
				t.Errorf("%d nodes are known", s.Nodes.Len())
			}
		})
	}
}

// TestPoliciesOfAnAPIServerThatComesBack: what is remembered of policies counts until
// the API server answers, and from then on only what it tells: a pod that it tells of
// may have policies that the file has not.
func TestPoliciesOfAnAPIServerThatComesBack(t *testing.T) {
	for name, answer := range map[string]func(*memory, *testCluster){
		"a watch is met":      func(_ *memory, c *testCluster) { close(c.silent) },
		"a pod was read":      func(m *memory, _ *testCluster) { m.distrust() },
		"all but of policies": func(_ *memory, c *testCluster) { close(c.synced) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := Config{Node: testNode, StateDir: t.TempDir()}
				feed, notices, cluster := &model.Feed{}, &notices{}, newCluster()
				cluster.silent, c.Source = make(chan struct{}), cluster
				m := newMemory(&c, feed, notices)
				m.attacher = &attacher{booted: true}
				_, err := write(t.Context(), m.path, &model.Snapshot{Network: model.DefaultNetwork(), PoliciesKnown: true}, time.Now())
				must(t, err)
				done := make(chan bool, 1)
				go func() { done <- m.begin(t.Context()) }()
				known := func() bool {
					synctest.Wait()
					s, _ := feed.Latest()
					return s.PoliciesKnown && len(notices.Problems()) == 1
				}
				time.Sleep(patience + time.Second)
				if !known() {
					t.Fatalf("it is not remembered: %v", notices.Problems())
				}
				answer(m, cluster)
				time.Sleep(time.Second)
				if known() {
					t.Error("policies of the file count although the API server answers")
				}
				if !isDone(cluster.synced) {
					close(cluster.synced)
				}
				time.Sleep(time.Minute)
				if synctest.Wait(); len(done) > 0 || len(notices.Problems()) != 1 {
					t.Errorf("it is over before policies have been read: %v", notices.Problems())
				}
				close(cluster.judged)
				if !<-done || len(notices.Problems()) > 0 {
					t.Errorf("it is not over: %v", notices.Problems())
				}
			})
		})
	}
}

// TestPatience: nothing is remembered while some of the API servers have not been tried.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Config{Node: testNode, StateDir: t.TempDir()}
		feed := &model.Feed{}
		c.Source = newCluster()
		m := newMemory(&c, feed, &notices{})
		m.attacher = &attacher{booted: true}
		_, err := write(t.Context(), m.path, &model.Snapshot{Network: model.DefaultNetwork(), PoliciesKnown: true}, time.Now())
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go m.begin(ctx)
		time.Sleep(mostPatience - time.Second)
		if synctest.Wait(); isDone(m.Synced()) {
			t.Error("it is remembered while servers may be tried")
		}
		time.Sleep(2 * time.Second)
		if synctest.Wait(); !isDone(m.Synced()) {
			t.Error("it is never remembered")
		}
		cancel()
		synctest.Wait()
	})
}

// TestRecentMemory: a policy, a namespace or a pod of the node that comes after the file
// was written is remembered a moment later, and one that went is not; what is older than
// the file is not laid over it. What was left half written is gone.
func TestRecentMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Config{Node: testNode, StateDir: t.TempDir(), Source: newCluster()}
		cluster := c.Source.(*testCluster)
		cluster.first = func(s *model.Snapshot) {
			for name, node := range map[string]string{"mine": testNode, "gone": testNode, "far": "another"} {
				pod := &model.Pod{PodKey: model.PodKey{Namespace: "default", Name: name}, Node: node}
				s.Pods = s.Pods.With(pod.PodKey, pod)
			}
		}
		left := filepath.Join(c.StateDir, "."+memoryFile+"-123.tmp")
		must(t, os.WriteFile(left, []byte("half of it"), 0o600))
		feed, began := &model.Feed{}, make(chan struct{})
		m := newMemory(&c, feed, &notices{})
		m.attacher, m.began = &attacher{}, began
		close(began)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- m.Run(ctx, feed) }()
		time.Sleep(10 * time.Second) // the first file is written, and the next is a minute away
		deny := &model.ClusterPolicy{Name: "deny", Namespaces: &model.Selector{}, Pods: &model.Selector{}}
		late := &model.Pod{PodKey: model.PodKey{Namespace: "default", Name: "late"}, Node: testNode}
		feed.Edit(func(s *model.Snapshot) {
			s.Namespaces = s.Namespaces.With("default", &model.Namespace{Name: "default"})
			s.ClusterPolicies = s.ClusterPolicies.With(deny.Name, deny)
			s.Pods = s.Pods.With(late.PodKey, late).Without(model.PodKey{Namespace: "default", Name: "gone"})
		})
		time.Sleep(2 * recentPause)
		synctest.Wait()
		names := func() (names []string) {
			was, _, err := m.read()
			must(t, err)
			for key := range was.Pods.All() {
				names = append(names, key.Name)
			}
			for name := range was.ClusterPolicies.All() {
				names = append(names, name)
			}
			for name := range was.Namespaces.All() {
				names = append(names, name)
			}
			slices.Sort(names)
			return names
		}
		if got, want := names(), []string{"default", "deny", "far", "late", "mine"}; !slices.Equal(got, want) {
			t.Errorf("remembered are %v, not %v", got, want)
		}
		if exists(left) {
			t.Error("what was half written is there")
		}
		policies, err := os.Stat(m.beside(policiesFile))
		must(t, err)
		feed.Edit(func(s *model.Snapshot) { s.Pods = s.Pods.Without(late.PodKey) })
		time.Sleep(2 * recentPause)
		synctest.Wait()
		if after, err := os.Stat(m.beside(policiesFile)); err != nil || !after.ModTime().Equal(policies.ModTime()) {
			t.Errorf("a pod made all policies be written: of %v, then %v (%v)", policies.ModTime(), after.ModTime(), err)
		}
		if got, want := names(), []string{"default", "deny", "far", "mine"}; !slices.Equal(got, want) {
			t.Errorf("remembered are %v, not %v", got, want)
		}
		feed.Edit(func(s *model.Snapshot) { s.ClusterPolicies = s.ClusterPolicies.Without(deny.Name) })
		cancel() // before it is kept beside
		must(t, <-ended)
		if got, want := names(), []string{"default", "far", "mine"}; !slices.Equal(got, want) {
			t.Errorf("after the end, remembered are %v, not %v", got, want)
		}
	})
}

// TestPodThatAnAPIServerTellsOf: a pod that the API server tells of, when it is back, does
// not start by policies that are remembered.
func TestPodThatAnAPIServerTellsOf(t *testing.T) {
	needNode(t)
	run := t.TempDir()
	a := start(t, newCluster("10.244.1.0/26"), run)
	a.add(t, "old")
	a.stop()
	reboot(t, run)
	cluster := newCluster("10.244.1.0/26")
	answers := silence(cluster)
	cluster.read = nil // pods can be read, and no watch is met yet
	a = start(t, cluster, run)
	ask := request("ADD", "new")
	ask.Timeout = 6 * time.Second
	if reply := a.ask(t, ask, newPod(t, "new").netns); reply.Error == nil || !strings.Contains(reply.Error.Error(), "what policies forbid has not been read") {
		t.Errorf("ADD: %v", reply.Error)
	}
	close(answers)
	a.add(t, "newer")
}
