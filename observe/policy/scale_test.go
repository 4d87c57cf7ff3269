package policy_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/policy"
)

// large has 10,000 pods of 1,000 workloads in 100 namespaces, each isolated and
// with a policy for each workload.
func large() *model.Snapshot {
	s := &model.Snapshot{PoliciesKnown: true, Network: model.DefaultNetwork()}
	selector := func(key, value string) *model.Selector {
		return &model.Selector{Requirements: []model.Requirement{{Key: key, Values: []string{value}}}}
	}
	for n := range 100 {
		space := fmt.Sprintf("n%02d", n)
		s.Namespaces = s.Namespaces.With(space, &model.Namespace{Name: space, Labels: model.LabelsOf(map[string]string{"kubernetes.io/metadata.name": space})})
		deny := &model.Policy{PolicyKey: model.PolicyKey{Namespace: space, Name: "deny"}, Isolates: [2]bool{model.Ingress: true}}
		s.Policies = s.Policies.With(deny.PolicyKey, deny)
		for w := range 10 {
			app := fmt.Sprintf("app%d", w)
			for i := range 10 {
				pod := &model.Pod{
					PodKey: model.PodKey{Namespace: space, Name: fmt.Sprintf("%s-abc-%d", app, i)}, Node: "n", Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(n), byte(w), byte(i + 1)})},
					Labels: model.LabelsOf(map[string]string{"app": app, "pod-template-hash": "abc"}),
				}
				s.Pods = s.Pods.With(pod.PodKey, pod)
			}
			p := &model.Policy{PolicyKey: model.PolicyKey{Namespace: space, Name: app}, Isolates: [2]bool{model.Ingress: true}, Pods: *selector("app", app)}
			p.Rules[model.Ingress] = []model.PolicyRule{{
				Ports: []model.PolicyPort{{Protocol: model.TCP, From: 80, To: 80}},
				Peers: []model.Peer{{Namespaces: selector("kubernetes.io/metadata.name", space), Pods: selector("app", fmt.Sprintf("app%d", (w+1)%10))}},
			}}
			s.Policies = s.Policies.With(p.PolicyKey, p)
		}
	}
	return s
}

func BenchmarkMatrix(b *testing.B) {
	s := large()
	for b.Loop() {
		if _, err := policy.MatrixOf(s, policy.MatrixQuery{Namespace: "n50"}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPreview(b *testing.B) {
	s := large()
	p, _ := s.Policies.Get(model.PolicyKey{Namespace: "n50", Name: "app5"})
	for b.Loop() {
		if _, err := policy.PreviewOf(s, policy.Edit{Policies: []*model.Policy{p}, Delete: true}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkExplain(b *testing.B) {
	s := large()
	for b.Loop() {
		if _, err := policy.Explain(s, policy.Query{From: "n50/app5-abc-1", To: "n50/app4-abc-1", Port: policy.Port{Number: 80}}); err != nil {
			b.Fatal(err)
		}
	}
}
