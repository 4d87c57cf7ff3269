package conformance_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	rtnl "github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
)

// The tests of this file call pods as clients do, by their own addresses and by
// Services, under NetworkPolicies.

const (
	allows = true
	denies = false
)

// asks calls by both protocols and families, and compares whether somebody answers.
func (n *serviceNet) asks(what string, from *netnstest.Namespace, to func(model.Family) netip.AddrPort, want bool) {
	n.t.Helper()
	results := make(chan string, len(model.Families))
	for _, family := range model.Families {
		go func() {
			text := ""
			for _, protocol := range []model.Protocol{model.TCP, model.UDP} { // the first waits for all that is new
				expected := []answer{{}}
				if want {
					expected = []answer{{server: netip.IPv4Unspecified()}} // whoever
				}
				got := n.callUntil(expected, from, protocol, to(family))
				if got.server.IsValid() != want || got.refused {
					text += fmt.Sprintf("%s, %s to %s: %s\n", what, protocol, to(family), got)
				}
			}
			results <- text
		}()
	}
	var texts []string
	for range model.Families {
		texts = append(texts, <-results)
	}
	for _, text := range texts { // now that no goroutine asks whether the test has failed
		if text != "" {
			n.t.Error(text)
		}
	}
	if n.t.Failed() {
		n.t.FailNow()
	}
}

// podAt is the server of the pod of a node, by its number from 0.
func (n *serviceNet) podAt(number int) func(model.Family) netip.AddrPort {
	return func(family model.Family) netip.AddrPort {
		return netip.AddrPortFrom(n.podOf(n.machines[number], family), 9000)
	}
}

func clusterIP(family model.Family) netip.AddrPort {
	return netip.AddrPortFrom(web().ClusterIPs[family], 80)
}

// ofNode chooses the pod of a node.
func ofNode(name string) model.Selector {
	return model.Selector{Requirements: []model.Requirement{{Key: "pod", Operator: model.In, Values: []string{name}}}}
}

// restrict gives the pod of node1 a policy of one direction, that allows what is
// to pods, or from them.
func (n *serviceNet) restrict(direction model.Direction, port uint16, pods ...string) {
	p := &model.Policy{PolicyKey: model.PolicyKey{Namespace: "default", Name: direction.String()}, Pods: ofNode("node1")}
	p.Isolates[direction] = true
	for _, pod := range pods {
		chosen := ofNode(pod)
		p.Rules[direction] = append(p.Rules[direction], model.PolicyRule{
			Peers: []model.Peer{{Namespaces: &model.Selector{}, Pods: &chosen}},
			Ports: []model.PolicyPort{{Protocol: model.TCP, From: port, To: port}, {Protocol: model.UDP, From: port, To: port}},
		})
	}
	n.snapshot.Policies = n.snapshot.Policies.With(p.PolicyKey, p)
	n.applyAll()
	n.forgetFlows()
}

func newPolicyNet(t *testing.T) *serviceNet {
	n := newServiceNet(t)
	n.snapshot.Namespaces = n.snapshot.Namespaces.With("default", &model.Namespace{Name: "default"})
	return n
}

// TestPolicyIngress: who may call a pod of this node, at which port, also by a
// Service. Its own node may, and the pod itself.
func TestPolicyIngress(t *testing.T) {
	n := newPolicyNet(t)
	n.setService(web(), nil, 1)
	one, two, three := n.machines[0], n.machines[1], n.machines[2]
	n.restrict(model.Ingress, 9000, "node2")
	for name, to := range map[string]func(model.Family) netip.AddrPort{"the pod": n.podAt(0), "its Service": clusterIP} {
		n.asks("a pod that may calls "+name, two.pod, to, allows)
		n.asks("a pod that may not calls "+name, three.pod, to, denies)
		n.asks("another node calls "+name, three.space, to, denies)
		n.asks("its own node calls "+name, one.space, to, allows)
		n.asks("the pod calls "+name, one.pod, to, allows)
	}
	n.asks("from outside", n.outside, func(family model.Family) netip.AddrPort { return n.vips(family)["node port 1"] }, denies)
	n.asks("the pod calls others", one.pod, n.podAt(2), allows)
	n.restrict(model.Ingress, 9001, "node2")
	n.asks("a pod that may call another port", two.pod, n.podAt(0), denies)
}

// TestPolicyEgress: whom a pod of this node may call. Neighbours are discovered
// all the same.
func TestPolicyEgress(t *testing.T) {
	n := newPolicyNet(t)
	one := n.machines[0]
	n.restrict(model.Egress, 9000, "node2")
	n.asks("a pod it may call", one.pod, n.podAt(1), allows)
	n.asks("a pod it may not call", one.pod, n.podAt(2), denies)
	for number, want := range map[int]bool{2: allows, 3: denies} {
		n.setService(web(), nil, number)
		n.applyAll()
		n.forgetFlows()
		n.asks(fmt.Sprintf("a Service that leads to the pod of node%d", number), one.pod, clusterIP, want)
	}
	own := func(family model.Family) netip.AddrPort { return netip.AddrPortFrom(one.node.Address(family), 9000) }
	n.asks("its own node", one.pod, own, denies)
	n.asks("the outside", one.pod, func(family model.Family) netip.AddrPort {
		return netip.AddrPortFrom(subnet(7, 7, family).Addr(), 9000)
	}, denies)
	for device, space := range map[string]*netnstest.Namespace{"pod0": one.space, "eth0": one.pod} {
		space.Do(func() {
			for _, family := range []int{rtnl.FAMILY_V4, rtnl.FAMILY_V6} {
				neighbours, err := rtnl.NeighList(n.device(device).Attrs().Index, family)
				n.check(err)
				for _, neighbour := range neighbours {
					_ = rtnl.NeighDel(&neighbour) // some may have gone
				}
			}
		})
	}
	n.asks("its own node calls it", one.space, n.podAt(0), allows)
	n.asks("others call it", n.machines[2].pod, n.podAt(0), allows)
	n.asks("a pod it may call", one.pod, n.podAt(1), allows)
}

// TestPolicyBothEnds: between two pods of one node, one has to be allowed to
// call and the other to be called.
func TestPolicyBothEnds(t *testing.T) {
	n := newPolicyNode(t, 2)
	w := policyWorld{}
	for _, family := range model.Families {
		one, two := n.pods["pod1"][family], n.pods["pod2"][family]
		packet := wired{device: "pod1", source: one, destination: two, protocol: model.TCP, port: 80}
		for _, egress := range []bool{allows, denies} {
			for _, ingress := range []bool{allows, denies} {
				n.apply(w.between(one, two, egress, ingress))
				n.expect(fmt.Sprintf("egress %t, ingress %t", egress, ingress), []wired{packet}, func(wired) bool { return egress && ingress })
			}
		}
	}
}

// TestPolicyOfConnections: a connection that is there goes on when a policy
// comes that denies it; a new one does not begin.
func TestPolicyOfConnections(t *testing.T) {
	n := newPolicyNet(t)
	for _, family := range model.Families {
		var server net.Listener
		n.machines[0].pod.Do(func() {
			var err error
			server, err = net.Listen("tcp", netip.AddrPortFrom(n.podOf(n.machines[0], family), 9005).String())
			n.check(err)
		})
		defer server.Close()
		go func() {
			for {
				conn, err := server.Accept()
				if err != nil {
					return
				}
				go func() { _, _ = io.Copy(conn, conn); _ = conn.Close() }()
			}
		}()
		var client net.Conn
		n.machines[1].pod.Do(func() {
			var err error
			client, err = net.DialTimeout("tcp", server.Addr().String(), 5*time.Second)
			n.check(err)
		})
		if client == nil {
			t.FailNow()
		}
		defer client.Close()
		echoes := func(when string) {
			t.Helper()
			_ = client.SetDeadline(time.Now().Add(5 * time.Second))
			buffer := make([]byte, 5)
			if _, err := client.Write([]byte("hello")); err != nil {
				t.Fatalf("%s: %v", when, err)
			}
			if _, err := io.ReadFull(client, buffer); err != nil {
				t.Fatalf("%s: %v", when, err)
			}
		}
		echoes("before the policy")
		p := &model.Policy{PolicyKey: model.PolicyKey{Namespace: "default", Name: "deny-all"}, Isolates: [2]bool{true, true}}
		n.snapshot.Policies = n.snapshot.Policies.With(p.PolicyKey, p)
		n.applyAll()
		echoes("under a policy that denies all")
		n.asks("a new connection", n.machines[1].pod, n.podAt(0), denies)
		n.snapshot.Policies = n.snapshot.Policies.Without(p.PolicyKey)
		n.applyAll()
		n.asks("without the policy", n.machines[1].pod, n.podAt(0), allows)
	}
}
