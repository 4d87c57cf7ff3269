package conformance_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/dataplane/nftables"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

// TestSpoofedPackets sends frames of all kinds from a pod, and nothing arrives
// of those that the oracle calls spoofed. All arrive while the pod's interface
// is in no group, which shows that they would.
func TestSpoofedPackets(t *testing.T) {
	n := newNet(t, model.Families[:])
	node := n.machines[0]
	node.ports = []model.HostPort{{Protocol: model.UDP, Port: 8001, PodPort: 9000}}
	n.apply(node)
	for _, family := range model.Families {
		n.masquerades(node, family) // all know their neighbours then
		own, server := n.podOf(node, family), subnet(7, 7, family).Addr()
		honest := plan.Packet{Device: "pod0", MAC: n.mac(node), Source: own, Destination: server}
		packets := []plan.Packet{honest}
		lie := func(change func(*plan.Packet)) {
			packet := honest
			change(&packet)
			packets = append(packets, packet)
		}
		lie(func(p *plan.Packet) { p.MAC[5]++ })
		lie(func(p *plan.Packet) { p.Source = own.Next() })
		lie(func(p *plan.Packet) { p.Source = n.podOf(n.machines[1], family) })
		lie(func(p *plan.Packet) { p.Source = n.machines[1].node.Address(family) })
		lie(func(p *plan.Packet) { p.Source = subnet(7, 9, family).Addr() })
		for _, guarded := range []bool{false, true} {
			group := 0
			if guarded {
				group = model.PodGroup
			}
			node.space.Do(func() { n.check(rtnl.LinkSetGroup(n.device("pod0"), group)) })
			want := map[int]bool{}
			for i, packet := range packets {
				want[i] = !guarded || !plan.Verdict(node.plan, packet).Spoofed
			}
			n.arrive(node, packets, n.outside, 9000, want)
		}
	}
}

// TestLoopbackIsTheNodesOwn: route_localnet, which host ports need, opens
// neither a server of the node at 127.0.0.1 nor a host port there to others.
func TestLoopbackIsTheNodesOwn(t *testing.T) {
	n := newNet(t, model.Families[:])
	node := n.machines[0]
	node.ports = []model.HostPort{{Protocol: model.UDP, Port: 8001, PodPort: 9000}}
	n.apply(node)
	loopback := netip.MustParseAddr("127.0.0.1")
	fromPod := plan.Packet{Device: "pod0", MAC: n.mac(node), Source: n.podOf(node, model.IPv4), Destination: loopback}
	n.arrive(node, []plan.Packet{fromPod}, node.space, 9000, nil)
	// From the segment, by the other node's interface.
	direct := plan.Packet{
		MAC: n.uplinkMAC(n.machines[1]), Source: n.machines[1].node.Address(model.IPv4),
		Destination: node.node.Address(model.IPv4), Port: 8001,
	}
	crooked := direct
	crooked.Destination = loopback
	n.arrive(n.machines[1], []plan.Packet{direct, crooked}, node.pod, 9000, map[int]bool{0: true})
}

// TestLoopbackWhereOthersTranslate: what is sent to the loopback interface from
// elsewhere is kept out though another table leads it on to a server, as that of
// ports published at 127.0.0.1 does; and what others lead to 127.0.0.1, as proxies
// of metadata do, comes there.
func TestLoopbackWhereOthersTranslate(t *testing.T) {
	n := newNet(t, model.Families[:])
	node, other := n.machines[0], n.machines[1]
	n.apply(node)
	own := node.node.Address(model.IPv4)
	node.space.Do(func() {
		for _, device := range []string{"all", "eth0"} {
			n.check(os.WriteFile("/proc/sys/net/ipv4/conf/"+device+"/route_localnet", []byte("1"), 0))
		}
		load := exec.Command("nft", "-f", "-")
		load.Stdin = strings.NewReader(fmt.Sprintf(`table ip theirs { chain prerouting {
			type nat hook prerouting priority -150
			ip daddr 127.0.0.1 udp dport 9001 dnat to %s:9000
			ip daddr %s udp dport 9002 dnat to 127.0.0.1:9000
		}; }`, own, own))
		if out, err := load.CombinedOutput(); err != nil {
			t.Errorf("nft -f: %v: %s", err, out)
		}
	})
	direct := plan.Packet{MAC: n.uplinkMAC(other), Source: other.node.Address(model.IPv4), Destination: own}
	published, led := direct, direct
	published.Destination, published.Port = netip.MustParseAddr("127.0.0.1"), 9001
	led.Port = 9002
	packets := []plan.Packet{direct, published, led}
	n.arrive(other, packets, node.space, 9000, map[int]bool{0: true, 2: true})
	node.space.Do(func() { n.check(nftables.New().Remove()) })
	n.arrive(other, packets, node.space, 9000, map[int]bool{0: true, 1: true, 2: true})
}

// arrive sends UDP datagrams and compares which of them a server got. They
// are numbered.
func (n *network) arrive(from *machine, packets []plan.Packet, to *netnstest.Namespace, port uint16, want map[int]bool) {
	n.t.Helper()
	var server net.PacketConn
	to.Do(func() {
		var err error
		server, err = net.ListenPacket("udp", ":"+strconv.Itoa(int(port)))
		n.check(err)
	})
	defer server.Close()
	for i, packet := range packets {
		if packet.Port == 0 {
			packet.Port = port
		}
		if packet.Device != "" {
			from.pod.Do(func() { n.inject(packet, n.gatewayMAC(from), byte(i)) })
		} else {
			from.space.Do(func() { n.inject(packet, n.uplinkMAC(n.machines[0]), byte(i)) })
		}
	}
	got, buffer := map[int]bool{}, make([]byte, 10)
	for {
		n.check(server.SetReadDeadline(time.Now().Add(300 * time.Millisecond)))
		if length, _, err := server.ReadFrom(buffer); err != nil || length != 1 {
			break
		}
		got[int(buffer[0])] = true
	}
	for i, packet := range packets {
		if got[i] != want[i] {
			n.t.Errorf("%+v arrived: %t, want %t", packet, got[i], want[i])
		}
	}
}

func (n *network) gatewayMAC(of *machine) (mac model.MAC) {
	of.space.Do(func() { mac = model.MAC(n.device("pod0").Attrs().HardwareAddr) })
	return mac
}

func (n *network) uplinkMAC(of *machine) (mac model.MAC) {
	of.space.Do(func() { mac = model.MAC(n.device("eth0").Attrs().HardwareAddr) })
	return mac
}

// inject sends a UDP datagram of one byte as a raw frame through eth0.
func (n *network) inject(packet plan.Packet, to model.MAC, payload byte) {
	etherType, udp := uint16(unix.ETH_P_IP), []byte{0x30, 0x39, 0, 0, 0, 9, 0, 0, payload}
	binary.BigEndian.PutUint16(udp[2:], packet.Port)
	source, destination := packet.Source.AsSlice(), packet.Destination.AsSlice()
	pseudo := append(append(append([]byte{}, source...), destination...), 0, unix.IPPROTO_UDP, 0, byte(len(udp)))
	binary.BigEndian.PutUint16(udp[6:], checksum(append(pseudo, udp...)))
	header := []byte{0x45, 0, 0, byte(20 + len(udp)), 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
	header = append(append(header, source...), destination...)
	if packet.Source.Is4() {
		binary.BigEndian.PutUint16(header[10:], checksum(header))
	} else {
		etherType = unix.ETH_P_IPV6
		header = append(append([]byte{0x60, 0, 0, 0, 0, byte(len(udp)), unix.IPPROTO_UDP, 64}, source...), destination...)
	}
	frame := append(append([]byte{}, to[:]...), packet.MAC[:]...)
	frame = append(append(binary.BigEndian.AppendUint16(frame, etherType), header...), udp...)

	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		n.t.Error(err)
		return
	}
	defer unix.Close(socket)
	n.check(unix.Sendto(socket, frame, 0, &unix.SockaddrLinklayer{Ifindex: n.device("eth0").Attrs().Index}))
}

// checksum is that of the Internet (RFC 1071).
func checksum(of []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(of); i += 2 {
		sum += uint32(of[i]) << 8
		if i+1 < len(of) {
			sum += uint32(of[i+1])
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
