package policy

import (
	"net/netip"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// names adds the Service of DNS, whose pods have some ports.
func (c *cluster) names(udp, tcp model.ContainerPort) {
	c.Network = model.DefaultNetwork()
	c.namespace("kube-system", "")
	udp.Protocol, tcp.Protocol = model.UDP, model.TCP
	s := &model.Service{
		ServiceKey: c.Network.DNS.Service, ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd96::a")},
		Ports:  []model.ServicePort{{Name: "dns", Protocol: model.UDP, Port: 53}, {Name: "dns-tcp", Protocol: model.TCP, Port: 53}},
		Serves: &model.Selected{Labels: labels("k8s-app=kube-dns"), Ports: []model.ContainerPort{udp, tcp}},
	}
	c.Services = c.Services.With(s.ServiceKey, s)
}

// TestQueries: what rules mean for queries of DNS is what they say of the pods
// that the Service selects, whether it has any.
func TestQueries(t *testing.T) {
	const out, no = model.Egress, "deny by NetworkPolicy web/p: no rule allows it"
	dns := own("kube-system", "k8s-app=kube-dns")
	port53 := append(tcp(53), model.PolicyPort{Protocol: model.UDP, From: 53, To: 53})
	usual := func(rules ...model.PolicyRule) func(*cluster) {
		return func(c *cluster) {
			c.names(model.ContainerPort{Port: 53}, model.ContainerPort{Port: 53})
			c.isolate("web/p", "", out, rules...)
		}
	}
	elsewhere := func(udp, tcp model.ContainerPort, rules ...model.PolicyRule) func(*cluster) {
		return func(c *cluster) {
			c.names(udp, tcp)
			c.isolate("web/p", "", out, rules...)
		}
	}
	high := model.ContainerPort{Port: 5353}
	tests := []struct {
		name  string
		make  func(*cluster)
		lines []string
	}{
		{"the usual rule", usual(allow(port53, dns)), []string{
			"10.0.1.1 egress to 10.96.0.10 UDP 53: accept",
			"10.0.1.1 egress to 10.96.0.10 TCP 53: accept",
			"fd00:1::1 egress to fd96::a UDP 53: accept",
			"10.0.1.1 egress to 10.96.0.10 UDP 54: " + no,
			"10.0.1.1 egress to 10.96.0.11 UDP 53: " + no,
		}},
		{"without a rule", usual(), []string{"10.0.1.1 egress to 10.96.0.10 UDP 53: " + no}},
		{"pods of that label elsewhere", usual(allow(nil, own("web", "k8s-app=kube-dns"))), []string{"10.0.1.1 egress to 10.96.0.10 UDP 53: " + no}},
		{"all of its namespace", usual(allow(nil, own("kube-system", ""))), []string{"10.0.1.1 egress to 10.96.0.10 UDP 53: accept"}},
		{"its address", usual(allow(nil, addresses("10.96.0.0/16"))), []string{
			"10.0.1.1 egress to 10.96.0.10 UDP 53: accept",
			"fd00:1::1 egress to fd96::a UDP 53: " + no,
		}},
		{"the names of its ports", usual(allow(named(model.UDP, "dns"), dns)), []string{
			"10.0.1.1 egress to 10.96.0.10 UDP 53: accept",
			"10.0.1.1 egress to 10.96.0.10 TCP 53: " + no,
		}},
		{"as if at the pods' port", elsewhere(high, high, allow([]model.PolicyPort{{Protocol: model.UDP, From: 5353, To: 5353}}, dns)), []string{
			"10.0.1.1 egress to 10.96.0.10 UDP 53: accept",
			"10.0.1.1 egress to 10.96.0.10 TCP 53: " + no,
		}},
		{"and not at the Service's", elsewhere(high, high, allow(port53)), []string{
			"10.0.1.1 egress to 10.96.0.10 UDP 53: " + no,
			"10.0.1.1 egress to 8.8.8.8 UDP 53: accept",
		}},
		{"pods' port by its name", func(c *cluster) {
			elsewhere(model.ContainerPort{Name: "query"}, high, allow(named(model.UDP, "query"), dns))(c)
			slice := &model.EndpointSlice{
				SliceKey: model.SliceKey{Namespace: "kube-system", Name: "a"}, Service: "kube-dns",
				Ports: []model.EndpointPort{{Name: "dns", Protocol: model.UDP, Port: 8053}},
			}
			c.Slices = c.Slices.With(slice.SliceKey, slice)
		}, []string{"10.0.1.1 egress to 10.96.0.10 UDP 53: accept"}},
		{"a policy of the cluster denies it", func(c *cluster) {
			usual(allow(port53, dns))(c)
			c.judge("quiet", model.AdminTier, 1, out, act(model.Deny, allow(nil, dns)))
		}, []string{"10.0.1.1 egress to 10.96.0.10 UDP 53: deny by ClusterNetworkPolicy quiet: rule 1"}},
		{"another Service of DNS", func(c *cluster) {
			usual(allow(port53, dns))(c)
			c.Network.DNS.Service.Name = "other"
		}, []string{"10.0.1.1 egress to 10.96.0.10 UDP 53: " + no}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newCluster(t)
			before := c.compute(nil)
			test.make(c)
			expect(t, c.compute(nil), test.lines...)
			expect(t, c.compute(before), test.lines...)
		})
	}
}
