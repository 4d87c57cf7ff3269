package conformance

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

// The world of the suite: this node, its pods, and up to six others, of which
// the first are on its link and the others behind a router.
const (
	self   = "self"
	uplink = "up0"
	pods   = 3
	peers  = 6
)

func uplinkNetworks() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8:1::1/64")}
}

func podDevice(pod int) string { return fmt.Sprintf("pod%d", pod) }

// podRange and podRange6 are of a node; number 0 is this one.
func podRange(node int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(node), 0}), 24)
}

func podRange6(node int) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%d::/64", node))
}

type cluster struct {
	network     model.Network
	nodes       map[string]*model.Node
	attachments map[model.AttachmentKey]*model.Attachment
}

// world has two peers on the link, one behind a router, and two pods.
func world() *cluster {
	w := &cluster{
		network:     *model.DefaultNetwork(),
		nodes:       map[string]*model.Node{},
		attachments: map[model.AttachmentKey]*model.Attachment{},
	}
	w.nodes[self] = &model.Node{
		Name:      self,
		Addresses: []netip.Addr{uplinkNetworks()[0].Addr(), uplinkNetworks()[1].Addr()},
		PodCIDRs:  []netip.Prefix{podRange(0), podRange6(0)},
	}
	w.addPeers(1, 2, 4)
	w.attach(0)
	w.attach(1)
	return w
}

func (w *cluster) addPeers(numbers ...int) {
	for _, n := range numbers {
		if n == 0 {
			continue
		}
		w.addPeer(n, n <= peers/2, true, true)
	}
}

// addPeer adds or changes a node.
func (w *cluster) addPeer(n int, onLink, ipv4, ipv6 bool) {
	node := &model.Node{Name: fmt.Sprintf("peer%d", n)}
	segment := 2
	if onLink {
		segment = 1
	}
	if ipv4 {
		third := byte(2)
		if !onLink {
			third = 3
		}
		node.Addresses = append(node.Addresses, netip.AddrFrom4([4]byte{192, 0, third, byte(10 + n)}))
		node.PodCIDRs = append(node.PodCIDRs, podRange(n))
	}
	if ipv6 {
		node.Addresses = append(node.Addresses, netip.MustParseAddr(fmt.Sprintf("2001:db8:%d::%d", segment, 10+n)))
		node.PodCIDRs = append(node.PodCIDRs, podRange6(n))
	}
	w.nodes[node.Name] = node
}

func (w *cluster) attach(pod int) {
	key := model.AttachmentKey{ContainerID: podDevice(pod), Interface: "eth0"}
	w.attachments[key] = &model.Attachment{
		AttachmentKey: key,
		Pod:           model.PodKey{Namespace: "default", Name: podDevice(pod)},
		Device:        podDevice(pod),
		MAC:           model.MAC{2, 0, 0, 0, 0, byte(pod)},
		Addresses:     []netip.Addr{podAddress(podRange(0), pod), podAddress(podRange6(0), pod)},
	}
}

// expose gives a pod two ports of the node: one at all addresses, one at one.
func (w *cluster) expose(pod int) {
	w.attach(pod)
	key := model.AttachmentKey{ContainerID: podDevice(pod), Interface: "eth0"}
	w.attachments[key].HostPorts = []model.HostPort{
		{Protocol: model.UDP, Port: uint16(5000 + pod%2), PodPort: 53},
		{Protocol: model.TCP, HostIP: uplinkNetworks()[pod%2].Addr(), Port: 80, PodPort: uint16(8000 + pod)},
	}
}

func (w *cluster) detach(pod int) {
	delete(w.attachments, model.AttachmentKey{ContainerID: podDevice(pod), Interface: "eth0"})
}

func podAddress(of netip.Prefix, pod int) netip.Addr {
	addr := of.Addr().Next()
	for range pod {
		addr = addr.Next()
	}
	return addr
}

func (w *cluster) plan() *plan.Node {
	network := w.network
	var pods model.Map[model.PodKey, *model.Pod]
	for _, attachment := range w.attachments {
		pods = pods.With(attachment.Pod, &model.Pod{PodKey: attachment.Pod, Node: self, Addresses: attachment.Addresses})
	}
	return plan.Compute(nil, &model.Snapshot{
		Pods:    pods,
		Network: &network,
		Nodes:   model.MapOf(w.nodes),
		Links: model.MapOf(map[string]*model.Link{
			uplink: {Name: uplink, MTU: 1500, Addresses: uplinkNetworks()},
		}),
		Attachments:   model.MapOf(w.attachments),
		PoliciesKnown: true,
	}, self)
}

func (w *cluster) mutate(random *rand.Rand) {
	for range 1 + random.IntN(3) {
		n, pod := 1+random.IntN(peers), random.IntN(pods)
		switch random.IntN(15) {
		case 0, 1:
			delete(w.nodes, fmt.Sprintf("peer%d", n))
		case 2, 3, 4, 5:
			w.addPeer(n, random.IntN(2) == 0, random.IntN(4) != 0, random.IntN(4) != 0)
		case 6:
			w.attach(pod)
		case 7:
			w.detach(pod)
		case 8:
			w.network.DirectRouting = !w.network.DirectRouting
		case 9:
			w.network.MTU = []int{0, 1400, 1450}[random.IntN(3)]
		case 10:
			w.network.VXLANPort = uint16(4789 + random.IntN(2))
		case 11:
			w.network.Masquerade.On[model.IPv4] = !w.network.Masquerade.On[model.IPv4]
		case 12:
			w.expose(pod)
		case 13:
			w.network.Masquerade.RandomPorts = !w.network.Masquerade.RandomPorts
			w.network.Masquerade.Exclude = excludes()[:random.IntN(len(excludes())+1)]
		case 14:
			w.network.Masquerade.From = uplinkNetworks()[:random.IntN(3)]
		}
	}
}

// excludes overlap each other, and ranges of pods.
func excludes() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("198.51.100.0/25"),
		netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("2001:db8:ffff::/64"),
	}
}

// destinations are one or two addresses of each kind that a packet may have.
func destinations() []netip.Addr {
	addrs := []netip.Addr{netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8:ffff::7")}
	for node := range peers + 1 {
		for pod := range pods {
			addrs = append(addrs, podAddress(podRange(node), pod), podAddress(podRange6(node), pod))
		}
	}
	return addrs
}

func randomOf(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }
