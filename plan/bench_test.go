package plan_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

// largeCluster has 1,000 nodes, every second on-link, and 50,000 pods, 50 of
// them on the node self.
func largeCluster() *model.Snapshot {
	const nodes, podsPerNode = 1_000, 50
	snapshot := &model.Snapshot{
		Network: model.DefaultNetwork(),
		Links: model.MapOf(map[string]*model.Link{"eth0": {
			Name: "eth0", MTU: 1500, Addresses: []netip.Prefix{netip.MustParsePrefix("172.16.0.1/16")},
		}}),
	}
	for n := range nodes {
		node := &model.Node{
			Name:      nodeName(n),
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{172, byte(16 + n%2), byte(n >> 8), byte(n)})},
			PodCIDRs:  []netip.Prefix{podCIDR(n)},
		}
		if n == 0 {
			node.Addresses[0] = netip.MustParseAddr("172.16.0.1")
		}
		snapshot.Nodes = snapshot.Nodes.With(node.Name, node)
		for p := range podsPerNode {
			pod := &model.Pod{
				PodKey:    model.PodKey{Namespace: "default", Name: fmt.Sprintf("%s-%d", node.Name, p)},
				Node:      node.Name,
				Addresses: []netip.Addr{podAddress(n, p)},
			}
			snapshot.Pods = snapshot.Pods.With(pod.PodKey, pod)
			if n == 0 {
				attachment := attached(p)
				snapshot.Attachments = snapshot.Attachments.With(attachment.AttachmentKey, attachment)
			}
		}
	}
	return snapshot
}

func nodeName(n int) string { return fmt.Sprintf("node-%d", n) }

func podCIDR(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), 0}), 24)
}

func podAddress(n, p int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), byte(p + 2)})
}

func attached(p int) *model.Attachment {
	return &model.Attachment{
		AttachmentKey: model.AttachmentKey{ContainerID: fmt.Sprint(p), Interface: "eth0"},
		Device:        fmt.Sprintf("fl%d", p),
		Addresses:     []netip.Addr{podAddress(0, p)},
	}
}

// BenchmarkCompute shows what a change costs in a cluster of 1,000 nodes and
// 50,000 pods: each includes making the snapshot, the plan, and the differences
// that a data plane would see.
func BenchmarkCompute(b *testing.B) {
	base := largeCluster()
	prev := plan.Compute(nil, base, nodeName(0))

	b.Run("from-nothing", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			plan.Compute(nil, base, nodeName(0))
		}
	})
	edit := func(name string, change func(*model.Snapshot)) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				next := *base
				next.Revision++
				change(&next)
				node := plan.Compute(prev, &next, nodeName(0))
				for range model.Diff(prev.Route.Routes, node.Route.Routes) {
				}
				for range model.Diff(prev.Masquerade.Cluster, node.Masquerade.Cluster) {
				}
			}
		})
	}
	edit("remote-pod-added", func(s *model.Snapshot) {
		pod := &model.Pod{PodKey: model.PodKey{Namespace: "default", Name: "new"}, Node: nodeName(7)}
		s.Pods = s.Pods.With(pod.PodKey, pod)
	})
	edit("local-pod-added", func(s *model.Snapshot) {
		attachment := attached(100)
		s.Attachments = s.Attachments.With(attachment.AttachmentKey, attachment)
	})
	edit("node-added", func(s *model.Snapshot) {
		node := &model.Node{
			Name: "new", Addresses: []netip.Addr{netip.MustParseAddr("172.17.9.9")},
			PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.99.0.0/24")},
		}
		s.Nodes = s.Nodes.With(node.Name, node)
	})
	edit("node-address-changed", func(s *model.Snapshot) {
		old, _ := s.Nodes.Get(nodeName(501))
		node := *old
		node.Addresses = []netip.Addr{netip.MustParseAddr("172.17.9.9")}
		s.Nodes = s.Nodes.With(node.Name, &node)
	})
	edit("node-removed", func(s *model.Snapshot) { s.Nodes = s.Nodes.Without(nodeName(502)) })
}
