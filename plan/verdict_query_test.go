package plan_test

import (
	"net/netip"
	"testing"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

// TestVerdictOfQueries: egress to the Service of DNS is judged by whom it
// selects, and not by who answers; ingress is, by who is asked.
func TestVerdictOfQueries(t *testing.T) {
	for _, allowed := range []bool{true, false} {
		snapshot := withPolicies()
		key := model.DefaultDNS().Service
		names := &model.Service{
			ServiceKey: key, ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.10")}, Ports: []model.ServicePort{{Protocol: model.UDP, Port: 53}},
			Serves: &model.Selected{Labels: model.LabelsOf(map[string]string{"k8s-app": "kube-dns"}), Ports: []model.ContainerPort{{Protocol: model.UDP, Port: 53}}},
		}
		slice := &model.EndpointSlice{SliceKey: model.SliceKey(key), Service: key.Name, Ports: []model.EndpointPort{{Protocol: model.UDP, Port: 53}}}
		for _, at := range []string{"192.0.2.2", "192.0.2.3", "10.244.0.5", "10.244.2.9"} { // nodes; the pod itself; a pod that it may call at another port
			slice.Endpoints = append(slice.Endpoints, model.Endpoint{Address: netip.MustParseAddr(at), Ready: true, Serving: true})
		}
		snapshot.Services, snapshot.Slices = snapshot.Services.With(key, names), snapshot.Slices.With(slice.SliceKey, slice)
		p := &model.Policy{PolicyKey: model.PolicyKey{Namespace: "default", Name: "q"}, Isolates: [2]bool{model.Egress: true}}
		if allowed {
			p.Rules[model.Egress] = []model.PolicyRule{{
				Peers: []model.Peer{{Namespaces: &model.Selector{}, Pods: &model.Selector{Requirements: []model.Requirement{{Key: "k8s-app", Values: []string{"kube-dns"}}}}}},
				Ports: []model.PolicyPort{{Protocol: model.UDP, From: 53, To: 53}},
			}}
		}
		snapshot.Policies = snapshot.Policies.With(p.PolicyKey, p)
		node := plan.Compute(nil, snapshot, "a")
		for _, endpoint := range slice.Endpoints {
			packet := plan.Packet{
				Source: netip.MustParseAddr("10.244.0.5"), Destination: names.ClusterIPs[0], Protocol: model.UDP, Port: 53,
				Backend: netip.AddrPortFrom(endpoint.Address, 53),
			}
			hop := plan.Verdict(node, packet)
			if denied := hop.Denied.Pod.IsValid(); denied == allowed || !denied && !hop.Pod.IsValid() {
				t.Errorf("by %s, allowed %t: %+v", endpoint.Address, allowed, hop)
			}
			packet.Destination = endpoint.Address
			if hop := plan.Verdict(node, packet); !hop.Denied.Pod.IsValid() && endpoint.Address != packet.Source {
				t.Errorf("%s by its own address: %+v", endpoint.Address, hop)
			}
		}
	}
}
