package agent

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/dataplane"
	"github.com/fairlead-net/fairlead/dataplane/nftables"
	"github.com/fairlead-net/fairlead/model"
)

// TestFirstPacket: to the addresses of 500 pods that no one may call another one
// sends from before they exist, and not a packet comes in.
func TestFirstPacket(t *testing.T) {
	needNode(t)
	pods := 500
	if testing.Short() || raceDetector {
		pods = 100
	}
	cluster := newCluster("10.244.0.0/22", "fd00:10:244:1::/118")
	cluster.ahead = filter(t)
	cluster.read = func(_ context.Context, key model.PodKey) (*model.Pod, error) {
		return &model.Pod{PodKey: key, Node: testNode, Labels: model.LabelsOf(map[string]string{"app": strings.TrimRight(key.Name, "0123456789")})}, nil
	}
	a := start(t, cluster, t.TempDir())
	add := func(name string) *pod {
		p := newPod(t, name)
		if reply := a.ask(t, request("ADD", name), p.netns); reply.Error != nil {
			t.Fatal(reply.Error)
		}
		return p
	}
	hammer(t, add("prober"), pods+20, "10.244.0.1", "fd00:10:244:1::1")
	open := add("open")
	eventually(t, "packets to a pod that may be called", func() bool { v4, v6 := open.datagrams(t); return v4 > 0 && v6 > 0 })

	cluster.edit(closed)
	// A change of policies is not waited for: the first of the pods is what shows that
	// ADD waits for them.
	var all []*pod
	for i := range pods {
		all = append(all, add(fmt.Sprint("closed", i)))
	}
	before4, before6 := open.datagrams(t)
	eventually(t, "more packets to that pod, and so to all", func() bool { v4, v6 := open.datagrams(t); return v4 > before4+100 && v6 > before6+100 })
	for i, p := range all {
		if v4, v6 := p.datagrams(t); v4+v6 > 0 {
			t.Errorf("closed%d got %d packets over IPv4 and %d over IPv6", i, v4, v6)
		}
	}
}

// filter is a data plane whose table goes with the test: the next one has no such
// plane, and is in the same namespace.
func filter(t *testing.T) dataplane.Dataplane {
	t.Cleanup(func() { must(t, nftables.New().Remove()) })
	return nftables.New()
}

// closed adds a policy that lets nobody call the pods closed.
func closed(s *model.Snapshot) {
	policy := &model.Policy{PolicyKey: model.PolicyKey{Namespace: "default", Name: "closed"}}
	policy.Pods.Requirements = []model.Requirement{{Key: "app", Operator: model.In, Values: []string{"closed"}}}
	policy.Isolates[model.Ingress] = true
	s.Policies = s.Policies.With(policy.PolicyKey, policy)
}

// TestPoliciesOutliveTheAgent: an agent that starts and may not read policies, as
// with the role of an older release, forbids what was forbidden. What nobody
// forbids any more it allows once it may read them.
func TestPoliciesOutliveTheAgent(t *testing.T) {
	needNode(t)
	newOne := func() *testCluster {
		cluster := newCluster("10.244.1.0/26", "fd00:10:244:1::/120")
		cluster.ahead = filter(t)
		cluster.pods = []*model.Pod{
			{PodKey: model.PodKey{Namespace: "default", Name: "prober"}, Node: testNode},
			{PodKey: model.PodKey{Namespace: "default", Name: "open"}, Node: testNode},
			{PodKey: model.PodKey{Namespace: "default", Name: "closed"}, Node: testNode, Labels: model.LabelsOf(map[string]string{"app": "closed"})},
		}
		return cluster
	}
	run, cluster := t.TempDir(), newOne()
	a := start(t, cluster, run)
	cluster.edit(closed)
	made := map[string]*pod{}
	for _, name := range []string{"prober", "open", "closed"} {
		made[name] = newPod(t, name)
		if reply := a.ask(t, request("ADD", name), made[name].netns); reply.Error != nil {
			t.Fatal(reply.Error)
		}
	}
	hammer(t, made["prober"], 61, "10.244.1.1", "fd00:10:244:1::1")
	more := func(what string) {
		before4, before6 := made["open"].datagrams(t)
		eventually(t, what, func() bool { v4, v6 := made["open"].datagrams(t); return v4 > before4+100 && v6 > before6+100 })
	}
	more("packets to a pod that may be called")
	a.stop()

	cluster = newOne()
	cluster.policiesUnknown = true
	a = start(t, cluster, run)
	eventually(t, "the plan to be applied", func() bool {
		answer, err := http.Get("http://" + a.config.HealthAddress + "/readyz?verbose")
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		text, _ := io.ReadAll(answer.Body)
		return strings.Contains(string(text), "ok       kernel")
	})
	more("packets after the restart")
	if v4, v6 := made["closed"].datagrams(t); v4+v6 > 0 {
		t.Errorf("the pod got %d packets over IPv4 and %d over IPv6", v4, v6)
	}
	cluster.edit(func(s *model.Snapshot) { s.PoliciesKnown = true })
	eventually(t, "packets to the pod that nobody forbids", func() bool { v4, v6 := made["closed"].datagrams(t); return v4 > 0 && v6 > 0 })
}

// hammer sends from a pod to so many addresses from the first of each family on,
// until the test ends. All are sent to 250 times a second: the agent is to have the
// processor too.
func hammer(t *testing.T, from *pod, count int, first4, first6 string) {
	var sockets [2]*net.UDPConn
	must(t, inside(from.netns, func() (err error) {
		if sockets[0], err = net.ListenUDP("udp4", nil); err == nil {
			sockets[1], err = net.ListenUDP("udp6", nil)
		}
		return err
	}))
	done := make(chan struct{})
	var sending sync.WaitGroup
	t.Cleanup(func() {
		close(done)
		sending.Wait()
		sockets[0].Close()
		sockets[1].Close()
	})
	for i, first := range []string{first4, first6} {
		sending.Go(func() {
			rounds := time.NewTicker(4 * time.Millisecond)
			defer rounds.Stop()
			for addr, n := netip.MustParseAddr(first), 0; ; addr, n = addr.Next(), n+1 {
				if n == count {
					addr, n = netip.MustParseAddr(first), 0
					select {
					case <-done:
						return
					case <-rounds.C:
					}
				}
				// Nobody has most of the addresses, which the kernel says at times.
				_, _ = sockets[i].WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(addr, 9))
			}
		})
	}
}

// datagrams are those of UDP that have come into the pod.
func (p *pod) datagrams(t *testing.T) (v4, v6 int) {
	t.Helper()
	must(t, inside(p.netns, func() error {
		old, err := os.ReadFile("/proc/thread-self/net/snmp")
		if err != nil {
			return err
		}
		// A line of names, and one of values: Udp: InDatagrams NoPorts …
		for _, line := range strings.Split(string(old), "\n") {
			if fields := strings.Fields(line); len(fields) > 2 && fields[0] == "Udp:" && fields[1] != "InDatagrams" {
				v4 = number(fields[1]) + number(fields[2])
			}
		}
		lines, err := os.ReadFile("/proc/thread-self/net/snmp6")
		for _, line := range strings.Split(string(lines), "\n") {
			if name, value, _ := strings.Cut(line, " "); name == "Udp6InDatagrams" || name == "Udp6NoPorts" {
				v6 += number(strings.TrimSpace(value))
			}
		}
		return err
	}))
	return v4, v6
}

func number(text string) int {
	n, _ := strconv.Atoi(text)
	return n
}
