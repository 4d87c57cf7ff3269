package policy

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// large is a cluster of 500 namespaces of 100 pods and 20 policies each, 200 of
// the pods on this node, spread over 40 namespaces.
func large(t *testing.T) *cluster {
	c := &cluster{t: t}
	c.PoliciesKnown = true
	allPods := map[model.PodKey]*model.Pod{}
	attachments := map[model.AttachmentKey]*model.Attachment{}
	policies := map[model.PolicyKey]*model.Policy{}
	namespaces := map[string]*model.Namespace{}
	for n := range 500 {
		name := fmt.Sprintf("n%d", n)
		namespaces[name] = &model.Namespace{Name: name, Labels: labels(fmt.Sprintf("team=t%d,%s=%s", n%50, namespaceName, name))}
		for i := range 100 {
			pod := &model.Pod{
				PodKey: model.PodKey{Namespace: name, Name: fmt.Sprint("p", i)}, Node: "b",
				Labels:    labels(fmt.Sprintf("app=a%d,hash=%d", i%10, n*10+i%10)),
				Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(n >> 2), byte(n<<6) | byte(i>>2), byte(i)})},
				Ports:     []model.ContainerPort{{Name: "http", Protocol: model.TCP, Port: 8080}},
			}
			allPods[pod.PodKey] = pod
			if n < 40 && i < 5 {
				pod.Node = "a"
				a := &model.Attachment{AttachmentKey: model.AttachmentKey{ContainerID: fmt.Sprint(n, i)}, Pod: pod.PodKey, Addresses: pod.Addresses}
				attachments[a.AttachmentKey] = a
			}
		}
		for i := range 20 {
			p := &model.Policy{PolicyKey: model.PolicyKey{Namespace: name, Name: fmt.Sprint("np", i)}, Pods: *selectorOf(fmt.Sprintf("app=a%d", i%10))}
			p.Isolates = [2]bool{true, true}
			p.Rules[model.Ingress] = []model.PolicyRule{
				allow(tcp(80, uint16(1000+i)), own(name, fmt.Sprintf("app=a%d", (i+1)%10)), pods(fmt.Sprintf("team=t%d", i), fmt.Sprintf("app=a%d", i%10))),
				allow(named(model.TCP, "http"), addresses(fmt.Sprintf("172.%d.0.0/16", i), fmt.Sprintf("172.%d.7.0/24", i))),
			}
			p.Rules[model.Egress] = []model.PolicyRule{
				allow([]model.PolicyPort{{Protocol: model.UDP, From: 53, To: 53}, {Protocol: model.TCP, From: 53, To: 53}}, own("n1", "app=a1")),
				allow(nil, own(name, fmt.Sprintf("app=a%d", (i+2)%10))),
			}
			policies[p.PolicyKey] = p
		}
	}
	c.Pods, c.Attachments, c.Policies, c.Namespaces = model.MapOf(allPods), model.MapOf(attachments), model.MapOf(policies), model.MapOf(namespaces)
	return c
}

// BenchmarkCompute is what changes cost in a cluster of 50,000 pods and 10,000
// policies, of which 200 pods are here.
func BenchmarkCompute(b *testing.B) { benchmark(b, large(nil)) }

// BenchmarkDense: the same with ClusterNetworkPolicies that tell apart the pods
// of 50 teams, so that each pod of the cluster is in a group, and each pod here
// has a cell for all of them.
func BenchmarkDense(b *testing.B) {
	c := large(nil)
	for i := range 25 {
		c.judge(fmt.Sprint("teams", i), model.AdminTier, int32(i), model.Ingress,
			act(model.Deny, allow(tcp(uint16(10+i)), pods(fmt.Sprintf("team=t%d", 2*i), ""))),
			act(model.Accept, allow(tcp(uint16(20+i)), pods(fmt.Sprintf("team=t%d", 2*i+1), ""))))
	}
	benchmark(b, c)
}

// BenchmarkBlocks: a pod comes whose policy has 20,000 blocks, and one that has
// nothing to do with them, while those are there.
func BenchmarkBlocks(b *testing.B) {
	c := newCluster(nil)
	var peers []model.Peer
	for i := range 20_000 {
		peers = append(peers, addresses(fmt.Sprintf("%d.%d.%d.0/24", 20+i>>12, i>>4&255, i<<4&255)))
	}
	c.isolate("web/p", "app=front", model.Egress, allow(nil, peers...))
	c.isolate("web/q", "app=back", model.Egress, allow(tcp(80), addresses("8.8.8.8/32")))
	with := c.Snapshot
	without := with
	without.Attachments = with.Attachments.Without(model.AttachmentKey{ContainerID: "web/front", Interface: "eth0"})
	other := with
	other.Attachments = with.Attachments.Without(model.AttachmentKey{ContainerID: "web/back", Interface: "eth0"})
	for _, test := range []struct {
		name     string
		from, to *model.Snapshot
	}{{"its-pod", &without, &with}, {"other-pod", &other, &with}} {
		b.Run(test.name, func(b *testing.B) {
			p, _ := Compute(nil, test.from, "a")
			b.ReportAllocs()
			for b.Loop() {
				Compute(p, test.to, "a")
			}
		})
	}
}

func benchmark(b *testing.B, c *cluster) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	base, _ := Compute(nil, &c.Snapshot, "a")
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.Run("from-nothing", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			Compute(nil, &c.Snapshot, "a")
		}
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB")
		b.ReportMetric(float64(base.Pods.Len()), "pods")
		b.ReportMetric(float64(base.Cells.Len()), "cells")
		b.ReportMetric(float64(base.Rows.Len()), "rows")
		b.ReportMetric(float64(base.groups.Len()), "groups")
		b.ReportMetric(float64(base.profiles.Len()), "profiles")
	})
	edit := editing(b, &c.Snapshot)
	relabel := func(s *model.Snapshot, namespace, name, to string) {
		old, _ := s.Pods.Get(model.PodKey{Namespace: namespace, Name: name})
		pod := *old
		pod.Labels = labels(to)
		s.Pods = s.Pods.With(pod.PodKey, &pod)
	}
	edit("nothing", func(*model.Snapshot) {})
	edit("remote-label", func(s *model.Snapshot) { relabel(s, "n7", "p99", "app=a3") })
	edit("unrelated-pod", func(s *model.Snapshot) { relabel(s, "n450", "p99", "app=a77") })
	edit("unrelated-policy", func(s *model.Snapshot) {
		old, _ := s.Policies.Get(model.PolicyKey{Namespace: "n450", Name: "np3"})
		p := *old
		p.Rules[0] = nil
		s.Policies = s.Policies.With(p.PolicyKey, &p)
	})
	edit("unrelated-namespace", func(s *model.Snapshot) {
		s.Namespaces = s.Namespaces.With("n450", &model.Namespace{Name: "n450", Labels: labels("x=y," + namespaceName + "=n450")})
	})
	edit("namespace-of-peers", func(s *model.Snapshot) {
		s.Namespaces = s.Namespaces.With("n451", &model.Namespace{Name: "n451", Labels: labels("team=t3," + namespaceName + "=n451")})
	})
	edit("local-label", func(s *model.Snapshot) { relabel(s, "n7", "p1", "app=a7") })
	edit("local-status", func(s *model.Snapshot) {
		old, _ := s.Pods.Get(model.PodKey{Namespace: "n7", Name: "p1"})
		pod := *old
		s.Pods = s.Pods.With(pod.PodKey, &pod)
	})
	// The first with its policies, which name blocks and namespaces of a team: given to
	// the node, which is most of what it costs, and then connected to it.
	bind := func(s *model.Snapshot) *model.Pod {
		old, _ := s.Pods.Get(model.PodKey{Namespace: "n7", Name: "p7"})
		pod := *old
		pod.Node = "a"
		s.Pods = s.Pods.With(pod.PodKey, &pod)
		return &pod
	}
	connect := func(s *model.Snapshot, pod *model.Pod) {
		a := &model.Attachment{AttachmentKey: model.AttachmentKey{ContainerID: "come"}, Pod: pod.PodKey, Addresses: pod.Addresses}
		s.Attachments = s.Attachments.With(a.AttachmentKey, a)
	}
	edit("local-pod-bound", func(s *model.Snapshot) { bind(s) })
	edit("local-pod-come", func(s *model.Snapshot) { connect(s, bind(s)) })
	bound := c.Snapshot
	pod := bind(&bound)
	editing(b, &bound)("local-pod-connected", func(s *model.Snapshot) { connect(s, pod) })
	edit("local-pod-gone", func(s *model.Snapshot) {
		s.Attachments = s.Attachments.Without(model.AttachmentKey{ContainerID: fmt.Sprint(7, 1)})
	})
	// The last pod of an app, whose policies name pods of whole teams, becomes another; and
	// back. Some of those pods are of the group that all pods here may ask.
	alone := c.Snapshot
	for n := range 40 {
		if n != 7 {
			relabel(&alone, fmt.Sprint("n", n), "p1", "app=a3")
		}
	}
	nobody := alone
	relabel(&nobody, "n7", "p1", "app=a3")
	editing(b, &alone)("last-of-its-app", func(s *model.Snapshot) { *s = nobody })
	editing(b, &nobody)("first-of-its-app", func(s *model.Snapshot) { *s = alone })
	edit("policy", func(s *model.Snapshot) {
		old, _ := s.Policies.Get(model.PolicyKey{Namespace: "n7", Name: "np3"})
		p := *old
		p.Rules[0] = []model.PolicyRule{allow(tcp(9), own("n7", "app=a9"))}
		s.Policies = s.Policies.With(p.PolicyKey, &p)
	})
}

// editing measures what a change of a snapshot costs.
func editing(b *testing.B, from *model.Snapshot) func(name string, change func(*model.Snapshot)) {
	base, _ := Compute(nil, from, "a")
	return func(name string, change func(*model.Snapshot)) {
		b.Run(name, func(b *testing.B) {
			next := *from
			change(&next)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				p, _ := Compute(base, &next, "a")
				if i == 0 {
					cells, pods := 0, 0
					for range model.Diff(base.Cells, p.Cells) {
						cells++
					}
					for range model.Diff(base.Pods, p.Pods) {
						pods++
					}
					defer func() { b.ReportMetric(float64(cells), "cells"); b.ReportMetric(float64(pods), "pods") }()
				}
			}
		})
	}
}
