package conformance_test

import (
	"net"
	"os/exec"
	"strings"
	"testing"

	rtnl "github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/model"
)

// TestNodeGetsOtherAddresses: a node whose addresses become others, as by DHCP, is
// reached at the new ones by those next to it and those behind a router, and masquerades
// with them. No kernel knows the old ones any more.
func TestNodeGetsOtherAddresses(t *testing.T) {
	n := newNet(t, model.Families[:])
	n.readdress(n.machines[0], 1, 101)
	n.readdress(n.machines[2], 3, 103)
	for _, from := range n.machines {
		for _, to := range n.machines {
			for _, family := range model.Families {
				n.reaches(from, to, family)
			}
		}
		n.masquerades(from, model.IPv4)
		var known string
		from.space.Do(func() {
			out, err := exec.Command("sh", "-c", "ip -d link; ip address; ip route show table all; ip -6 route show table all; bridge fdb; ip neigh show nud permanent").CombinedOutput()
			n.check(err)
			known = string(out)
		})
		for _, old := range []string{"198.18.1.1 ", "198.18.3.3 ", "2001:db8:1::1 ", "2001:db8:3::3 "} {
			if strings.Contains(known, old) {
				t.Errorf("%s knows %s:\n%s", from.node.Name, old, known)
			}
		}
	}
}

// readdress gives a machine another address in its network, of each family.
func (n *network) readdress(m *machine, network int, host byte) {
	m.space.Do(func() {
		for _, old := range m.link.Addresses {
			n.check(rtnl.AddrDel(n.device("eth0"), &rtnl.Addr{IPNet: ipNet(old)}))
		}
		n.address("eth0", network, host)
		_, all, err := net.ParseCIDR("::/0")
		n.check(err)
		n.check(rtnl.RouteDel(&rtnl.Route{Dst: all, LinkIndex: n.device("eth0").Attrs().Index})) // that of IPv4 went with the address
		n.defaultRoutes("eth0", network)
	})
	node, link := *m.node, *m.link
	node.Addresses, link.Addresses = nil, nil
	for _, family := range n.families {
		own := subnet(network, host, family)
		node.Addresses, link.Addresses = append(node.Addresses, own.Addr()), append(link.Addresses, own)
	}
	m.node, m.link = &node, &link
	n.snapshot.Nodes = n.snapshot.Nodes.With(node.Name, m.node)
	m.plane = nil // with the old addresses went routes: it looks anew, as when it is told
	for _, other := range n.machines {
		n.apply(other)
	}
}
