package nftables

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/policy"
)

// BenchmarkRegroup is a pod of this node that becomes another app, the last one whose
// policies name 400 pods elsewhere, or the first: these are in other groups then, and
// all pods here that speak with some of them have other cells. It is what of a change
// of labels is not in the plan.
func BenchmarkRegroup(b *testing.B) {
	here, ctx := netnstest.Enter(b), b.Context()
	app := func(n int) *model.Selector { return selecting("app", fmt.Sprint("a", n)) }
	s := &model.Snapshot{PoliciesKnown: true}
	for n := range 40 {
		namespace := fmt.Sprint("n", n)
		s.Namespaces = s.Namespaces.With(namespace, &model.Namespace{Name: namespace, Labels: model.LabelsOf(map[string]string{"name": namespace, "team": fmt.Sprint("t", n%2)})})
		for i := range 100 {
			pod := &model.Pod{
				PodKey: model.PodKey{Namespace: namespace, Name: fmt.Sprint("p", i)}, Node: "b", Labels: model.LabelsOf(map[string]string{"app": fmt.Sprint("a", i%10)}),
				Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, byte(n), byte(i)}), netip.AddrFrom16([16]byte{0xfd, 14: byte(n), 15: byte(i)})},
			}
			if i < 5 {
				pod.Node = "a"
				key := model.AttachmentKey{ContainerID: namespace + pod.Name}
				s.Attachments = s.Attachments.With(key, &model.Attachment{AttachmentKey: key, Pod: pod.PodKey, Addresses: pod.Addresses})
			}
			s.Pods = s.Pods.With(pod.PodKey, pod)
		}
		for i := range 10 {
			p := &model.Policy{PolicyKey: model.PolicyKey{Namespace: namespace, Name: fmt.Sprint("policy-", i)}, Pods: *app(i), Isolates: [2]bool{true, true}}
			here := selecting("name", namespace)
			port := func(port uint16) []model.PolicyPort {
				return []model.PolicyPort{{Protocol: model.TCP, From: port, To: port}}
			}
			p.Rules[model.Ingress] = []model.PolicyRule{{Ports: port(uint16(1000 + i)), Peers: []model.Peer{
				{Namespaces: here, Pods: app((i + 1) % 10)}, {Namespaces: selecting("team", fmt.Sprint("t", i%2)), Pods: app(i)}}}}
			p.Rules[model.Egress] = []model.PolicyRule{{AnyPort: true, Peers: []model.Peer{{Namespaces: here, Pods: app((i + 2) % 10)}}}}
			s.Policies = s.Policies.With(p.PolicyKey, p)
		}
	}
	relabel := func(s *model.Snapshot, n int, to string) {
		old, _ := s.Pods.Get(model.PodKey{Namespace: fmt.Sprint("n", n), Name: "p1"})
		pod := *old
		pod.Labels = model.LabelsOf(map[string]string{"app": to})
		s.Pods = s.Pods.With(pod.PodKey, &pod)
	}
	for n := 1; n < 40; n++ {
		relabel(s, n, "a3")
	}
	without := *s
	relabel(&without, 0, "a3")
	nodes := [2]*policy.Plan{}
	nodes[0], _ = policy.Compute(nil, s, "a")
	nodes[1], _ = policy.Compute(nodes[0], &without, "a")
	for nodes[1].Untidy() {
		nodes[1], _ = policy.Compute(nodes[1], &without, "a")
	}
	pods, cells := 0, 0
	for range model.Diff(nodes[0].Pods, nodes[1].Pods) {
		pods++
	}
	for range model.Diff(nodes[0].Cells, nodes[1].Cells) {
		cells++
	}
	plane, node := New(), masquerading(example().Masquerade)
	node.Policy = nodes[0]
	here.Go(func() { _ = plane.Run(ctx) })
	apply(b, plane, node)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		next := *node
		next.Policy = nodes[(i+1)%2]
		apply(b, plane, &next)
	}
	b.ReportMetric(float64(pods), "pods")
	b.ReportMetric(float64(cells), "cells")
}

func selecting(key, value string) *model.Selector {
	return &model.Selector{Requirements: []model.Requirement{{Key: key, Operator: model.In, Values: []string{value}}}}
}
