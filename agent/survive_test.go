package agent

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/cni"
	"github.com/fairlead-net/fairlead/model"
)

func (a *testAgent) add(t testing.TB, name string) string {
	t.Helper()
	reply := a.ask(t, request("ADD", name), newPod(t, name).netns)
	if reply.Error != nil {
		return reply.Error.Error()
	}
	return reply.Result.IPs[0].Address.IP.String()
}

func (a *testAgent) del(t testing.TB, name string) {
	t.Helper()
	if reply := a.ask(t, request("DEL", name), nil); reply.Error != nil {
		t.Error(reply.Error)
	}
}

// Freed addresses rest over a restart; a reboot frees all at once.
func TestCooldownOutlivesTheAgent(t *testing.T) {
	needNode(t)
	run := t.TempDir()
	a := start(t, newCluster("10.244.1.0/30"), run)
	if got := a.add(t, "one"); got != "10.244.1.1" {
		t.Fatal(got)
	}
	a.del(t, "one")
	if got := a.add(t, "two"); got != "10.244.1.2" {
		t.Fatal(got)
	}
	a.stop()
	a = start(t, newCluster("10.244.1.0/30"), run)
	if got := a.add(t, "three"); !strings.Contains(got, "1 in use, 1 freed less than 30s ago") {
		t.Errorf("after a restart: %s", got)
	}
	a.stop()
	// All namespaces go with a reboot, and the tmpfs does.
	must(t, netlink.LinkDel(linkOf(t, deviceName(keyOf("two")))))
	must(t, os.Remove(filepath.Join(run, "boot")))
	cluster := newCluster("10.244.1.0/30")
	// Until its sandbox is made anew, a pod is seen with its address.
	cluster.pods = []*model.Pod{{PodKey: model.PodKey{Namespace: "default", Name: "two"}, Node: testNode, Addresses: addrs("10.244.1.2")}}
	a = start(t, cluster, run)
	for _, name := range []string{"four", "five"} {
		if got := a.add(t, name); !strings.HasPrefix(got, "10.244.1.") {
			t.Errorf("after a reboot: %s", got)
		}
	}
	if problems := cluster.problems(); len(problems) > 0 {
		t.Errorf("after a reboot: %v", problems)
	}
}

// A journal that is lost or damaged costs host ports, which are named, and
// nothing else: the kernel tells the rest.
func TestLostJournal(t *testing.T) {
	needNode(t)
	for name, damage := range map[string]func(path string) error{
		"removed": os.Remove,
		"garbage": func(path string) error {
			return os.WriteFile(path, []byte(strings.Repeat("\x00garbage\n", 100)), 0o600)
		},
		"a directory": func(path string) error {
			if err := os.Remove(path); err != nil {
				return err
			}
			return os.MkdirAll(filepath.Join(path, "x"), 0o700)
		},
	} {
		t.Run(name, func(t *testing.T) {
			run := t.TempDir()
			a := start(t, newCluster("10.244.1.0/24"), run)
			plain := a.add(t, "plain")
			ported := request("ADD", "ported")
			ported.Config = []byte(`{"runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 8080}]}}`)
			if reply := a.ask(t, ported, newPod(t, "ported").netns); reply.Error != nil {
				t.Fatal(reply.Error)
			}
			a.stop()
			must(t, damage(filepath.Join(a.config.StateDir, "addresses.journal")))
			cluster := newCluster("10.244.1.0/24")
			a = start(t, cluster, run)
			if got := a.add(t, "third"); got != "10.244.1.3" {
				t.Errorf("%s was given out, %s before", got, plain)
			}
			lost := "Pod/default/ported hostPort: its host ports do not work"
			eventually(t, lost, func() bool { return strings.Contains(strings.Join(cluster.problems(), "\n"), lost) })
			if all := strings.Join(cluster.problems(), "\n"); strings.Contains(all, "plain") {
				t.Error(all)
			} else if strings.Contains(all, "would be forgotten") != (name == "a directory") {
				t.Error(all)
			}
			a.stop()
			cluster = newCluster("10.244.1.0/24")
			a = start(t, cluster, run)
			eventually(t, lost+" after another start", func() bool { return strings.Contains(strings.Join(cluster.problems(), "\n"), lost) })
			a.del(t, "ported")
			eventually(t, "the problem to go with its pod", func() bool {
				return !strings.Contains(strings.Join(cluster.problems(), "\n"), lost)
			})
		})
	}
}

// A journal that somebody removes while the agent runs is there again, with all that it had.
func TestRemovedJournal(t *testing.T) {
	needNode(t)
	run := t.TempDir()
	a := start(t, newCluster("10.244.1.0/24"), run)
	ported := request("ADD", "ported")
	ported.Config = []byte(`{"runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 8080}]}}`)
	if reply := a.ask(t, ported, newPod(t, "ported").netns); reply.Error != nil {
		t.Fatal(reply.Error)
	}
	path := filepath.Join(a.config.StateDir, "addresses.journal")
	must(t, os.Remove(path))
	eventually(t, "the journal", func() bool {
		records, damaged, err := readJournal(path)
		return err == nil && len(damaged) == 0 && len(records) == 1 && len(records[0].Attachment.HostPorts) == 1
	})
}

// What the kernel and the journal know together: host ports, the pod's name, and
// the group of pods' links, which an older agent did not set.
func TestAdoption(t *testing.T) {
	needNode(t)
	run := t.TempDir()
	a := start(t, newCluster("10.244.1.0/24"), run)
	ported := request("ADD", "ported")
	ported.Config = []byte(`{"runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 8080, "protocol": "udp", "hostIP": "192.0.2.1"}]}}`)
	if reply := a.ask(t, ported, newPod(t, "ported").netns); reply.Error != nil {
		t.Fatal(reply.Error)
	}
	before, _ := attachmentsOf(a)[keyOf("ported")]
	must(t, netlink.LinkSetGroup(linkOf(t, before.Device), 0))
	a.add(t, "vanished")
	a.add(t, "strange")
	a.stop()
	must(t, netlink.LinkDel(linkOf(t, deviceName(keyOf("vanished")))))
	must(t, netlink.LinkSetAlias(linkOf(t, deviceName(keyOf("strange"))), "renamed by somebody"))

	cluster := newCluster("10.244.1.0/30")
	a = start(t, cluster, run)
	eventually(t, "the pods of before", func() bool { return len(attachmentsOf(a)) == 1 })
	if after := attachmentsOf(a)[keyOf("ported")]; !after.Equal(before) || after.MAC == (model.MAC{}) || len(after.HostPorts) != 1 {
		t.Errorf("adopted %+v, was %+v", after, before)
	}
	if group := linkOf(t, before.Device).Attrs().Group; group != model.PodGroup {
		t.Errorf("its link is in the group %d", group)
	}
	if got := a.add(t, "next"); !strings.Contains(got, "no address is left") {
		t.Errorf("%s is given out", got)
	}
	strange := "interface " + deviceName(keyOf("strange")) + ": it looks like a pod's"
	eventually(t, strange, func() bool {
		all := strings.Join(cluster.problems(), "\n")
		return strings.Contains(all, strange) && strings.Contains(all, "10.244.1.3")
	})
}

func attachmentsOf(a *testAgent) map[model.AttachmentKey]*model.Attachment {
	all := map[model.AttachmentKey]*model.Attachment{}
	if feed := a.config.Source.(*testCluster).latest(); feed != nil {
		for key, attachment := range feed.Attachments.All() {
			all[key] = attachment
		}
	}
	return all
}

func addrs(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

// A DEL without an agent succeeds, and is carried out before the first ADD of
// the next one. One that comes while the agent hangs is, too.
func TestSpooledDel(t *testing.T) {
	needNode(t)
	run := t.TempDir()
	a := start(t, newCluster("10.244.1.0/24"), run)
	list, ctx := a.list(t, "1.0.0"), context.Background()
	p := newPod(t, "gone")
	_, err := a.cni.AddNetworkList(ctx, list, p.conf)
	must(t, err)
	a.add(t, "stays")
	a.stop()
	began := time.Now()
	must(t, a.cni.DelNetworkList(ctx, list, p.conf))
	t.Logf("a DEL without an agent took %v", time.Since(began))
	spooled := filepath.Join(run, "del", cni.SpoolName("gone", "eth0"))
	if stat, err := os.Stat(spooled); err != nil || stat.Mode().Perm() != 0o600 {
		t.Fatalf("it waits as %v, %v", stat, err)
	}
	for name, content := range map[string]string{"garbage": "garbage", cni.SpoolName("stays", "eth0"): `{"version":1,"command":"ADD","containerID":"stays","interface":"eth0"}`, "big": strings.Repeat("x", 1<<20)} {
		must(t, os.WriteFile(filepath.Join(run, "del", name), []byte(content), 0o600))
	}
	must(t, os.Mkdir(filepath.Join(run, "del", "dir"), 0o700))
	restarted := start(t, newCluster("10.244.1.0/24"), run)
	if devices := podDevices(t); len(devices) != 1 || devices[0] != deviceName(keyOf("stays")) {
		t.Errorf("there are %v", devices)
	}
	if left, err := os.ReadDir(filepath.Join(run, "del")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}

	// The agent is there, but did not take it.
	stays := fmt.Appendf(nil, `{"version":1,"command":"DEL","containerID":"stays","interface":"eth0"}`)
	put := func() {
		must(t, os.WriteFile(filepath.Join(run, "del", ".writing"), stays, 0o600))
		must(t, os.Rename(filepath.Join(run, "del", ".writing"), filepath.Join(run, "del", cni.SpoolName("stays", "eth0"))))
	}
	put()
	eventually(t, "the DEL to be carried out", func() bool {
		left, err := os.ReadDir(filepath.Join(run, "del"))
		return err == nil && len(left) == 0 && len(podDevices(t)) == 0
	})

	// An ADD after it is not undone by it, although nothing tells the agent of
	// it: links are not what it watches for.
	must(t, os.WriteFile(filepath.Join(run, "del", ".writing"), stays, 0o600))
	must(t, os.Link(filepath.Join(run, "del", ".writing"), filepath.Join(run, "del", cni.SpoolName("stays", "eth0"))))
	if got := restarted.add(t, "stays"); !strings.HasPrefix(got, "10.244.1.") {
		t.Fatal(got)
	}
	restarted.stop()
	start(t, newCluster("10.244.1.0/24"), run)
	if devices := podDevices(t); len(devices) != 1 {
		t.Fatalf("there are %v", devices)
	}
}

// Pods that something else connected are named until they are gone, and their
// addresses are not handed out. Ours never are.
func TestForeignPods(t *testing.T) {
	needNode(t)
	cluster := newCluster("10.244.1.0/29", "fd00:10:244:1::/64")
	pod := func(name string, texts ...string) *model.Pod {
		return &model.Pod{PodKey: model.PodKey{Namespace: "default", Name: name}, Node: testNode, UID: model.UIDOf(name), Addresses: addrs(texts...)}
	}
	host, done, elsewhere := pod("host", "192.0.2.1"), pod("done", "10.244.1.2"), pod("elsewhere", "10.244.1.2")
	host.HostNetwork, done.Finished, elsewhere.Node = true, true, "node2"
	cluster.pods = []*model.Pod{pod("old", "10.244.1.1", "fd00:10:244:1::1"), pod("older", "10.88.0.7"), pod("starting"), host, done, elsewhere}
	a := start(t, cluster, t.TempDir())
	if got := a.add(t, "new"); got != "10.244.1.2" {
		t.Errorf("got %s", got)
	}
	named := func(want ...string) func() bool {
		return func() bool {
			all := cluster.problems()
			for i, name := range want {
				if len(all) != len(want) || !strings.HasPrefix(all[i], "Pod/default/"+name+" status.podIPs: Fairlead did not give it") {
					return false
				}
			}
			return len(all) == len(want)
		}
	}
	eventually(t, "both to be named", named("old", "older"))
	set := func(p *model.Pod) {
		cluster.edit(func(s *model.Snapshot) { s.Pods = s.Pods.With(p.PodKey, p) })
	}
	set(pod("new", "10.244.1.2", "fd00:10:244:1::2"))
	a.del(t, "new") // the API server has its address for some time
	set(pod("new", "10.244.1.2"))
	cluster.edit(func(s *model.Snapshot) { s.Pods = s.Pods.Without(pod("old").PodKey) })
	eventually(t, "only one to be named", named("older"))
	for n, want := range []string{"10.244.1.3", "10.244.1.4", "10.244.1.5", "10.244.1.6", "no address is left"} {
		if got := a.add(t, fmt.Sprint("another", n)); !strings.Contains(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if !named("older")() && len(cluster.problems()) != 2 {
		t.Errorf("named are %v", cluster.problems())
	}
}

// A range that is exhausted is a problem of the node while it lasts, and an
// Event once.
func TestExhaustedRange(t *testing.T) {
	needNode(t)
	cluster := newCluster("10.244.1.0/30")
	a := start(t, cluster, t.TempDir())
	a.add(t, "one")
	a.add(t, "two")
	for range 3 {
		if got := a.add(t, "three"); !strings.Contains(got, "no address is left in [10.244.1.0/30]: 2 in use") {
			t.Fatal(got)
		}
	}
	problem := "Node/node1 spec.podCIDRs: no address is left in [10.244.1.0/30]"
	eventually(t, problem, func() bool { return strings.Contains(strings.Join(cluster.problems(), "\n"), problem) })
	eventually(t, "an Event", func() bool {
		cluster.mu.Lock()
		defer cluster.mu.Unlock()
		return len(cluster.events) == 1 && cluster.events[0].Kind == "Node" && cluster.events[0].UID == "uid-of-node1"
	})
	cluster.edit(func(s *model.Snapshot) {
		larger := *cluster.node
		larger.PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}
		s.Nodes = s.Nodes.With(testNode, &larger)
	})
	if got := a.add(t, "three"); got != "10.244.1.3" && got != "10.244.1.1" {
		t.Errorf("with a larger range: %s", got)
	}
	eventually(t, "the problem to go", func() bool { return len(cluster.problems()) == 0 })
}

// Host ports come with ADD and are of one pod at a time.
func TestHostPorts(t *testing.T) {
	needNode(t)
	a := start(t, newCluster("10.244.1.0/24"), t.TempDir())
	add := func(name, mappings string) (said string) {
		t.Helper()
		r := request("ADD", name)
		r.Config = []byte(`{"runtimeConfig": {"portMappings": ` + mappings + `}}`)
		if reply := a.ask(t, r, newPod(t, name).netns); reply.Error != nil {
			return reply.Error.Error()
		}
		return fmt.Sprint(attachmentsOf(a)[keyOf(name)].HostPorts)
	}
	for _, test := range []struct{ name, mappings, want string }{
		{"web", `[{"hostPort": 80, "containerPort": 8080, "protocol": "tcp"}, {"hostPort": 80, "containerPort": 8080, "protocol": "TCP"}]`, "[80/TCP]"},
		{"dns", `[{"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "192.0.2.1"}, {"hostPort": 53, "containerPort": 53, "protocol": "sctp", "hostIP": "::"}]`, "[192.0.2.1:53/UDP [::]:53/SCTP]"},
		{"none", `[]`, "[]"},
		{"web2", `[{"hostPort": 80, "containerPort": 80}]`, "host port 80/TCP of this node is held by pod default/web"},
		{"web3", `[{"hostPort": 80, "containerPort": 80, "hostIP": "192.0.2.1"}]`, "held by pod default/web"},
		{"web4", `[{"hostPort": 80, "containerPort": 80, "protocol": "udp"}]`, "[80/UDP]"},
		{"dns2", `[{"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "192.0.2.2"}]`, "[192.0.2.2:53/UDP]"},
		{"dns3", `[{"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "0.0.0.0"}]`, "held by pod default/dns"},
		{"dns4", `[{"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "::"}]`, "[[::]:53/UDP]"},
		{"dns5", `[{"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "::ffff:192.0.2.1"}]`, "held by pod default/dns"},
		{"bad1", `[{"hostPort": 81, "containerPort": 80}, {"hostPort": 0, "containerPort": 80}]`, `portMappings[1], {"hostPort":0,"containerPort":80}, cannot be met`},
		{"bad2", `[{"hostPort": 70000, "containerPort": 80}]`, "must be between 1 and 65535"},
		{"bad3", `[{"hostPort": 81, "containerPort": 80, "protocol": "icmp"}]`, `"icmp" is none of TCP, UDP and SCTP`},
		{"bad4", `[{"hostPort": 81, "containerPort": 80, "hostIP": "node1"}]`, `hostIP: "node1" is not an address`},
		{"bad5", `[7]`, "portMappings[0], 7, cannot be met"},
		{"bad6", `7`, "cannot read runtimeConfig.portMappings"},
	} {
		if got := add(test.name, test.mappings); !strings.Contains(got, test.want) {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
	a.del(t, "web")
	if got := add("web2", `[{"hostPort": 80, "containerPort": 80}]`); got != "[80/TCP]" {
		t.Errorf("a port that was freed: %s", got)
	}
}
