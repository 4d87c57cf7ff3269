package conformance_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/netip"
	"os"
	"testing"
	"time"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/antispoof"
)

// wires are a node with the devices of pods and an uplink, whose other ends are
// in one place. There, packets with any address are sent, and all that come out
// are seen.
type wires struct {
	t         testing.TB
	node, far *netnstest.Namespace
	ends      map[string]end // by device
	sender    int            // a socket at the far ends
	receivers []int          // there, and in the node for what is for itself
	number    uint32         // of the packet sent last
	warmed    uint32         // the same, before the test began
	arrived   map[uint32]bool
}

// end is the far end of a device.
type end struct {
	index     int
	mac, node model.MAC // its own, and that of the device
}

// wired is a packet that begins a connection.
type wired struct {
	device              string // that it comes from
	source, destination netip.Addr
	protocol            model.Protocol
	port                uint16
	tos                 byte
}

func (p wired) String() string {
	return fmt.Sprintf("%s from %s to %s, port %d, by %s", p.protocol, p.source, p.destination, p.port, p.device)
}

// The protocols without ports that packets have.
const (
	icmp  model.Protocol = unix.IPPROTO_ICMP
	icmp6 model.Protocol = unix.IPPROTO_ICMPV6
)

const wiresUplink = "eth0"

// newWires makes a node of some pods, each with addresses; what is of nobody
// goes by the uplink.
func newWires(t testing.TB, pods map[string][]netip.Addr, own ...netip.Addr) *wires {
	w := &wires{t: t, node: netnstest.New(t), far: netnstest.New(t), ends: map[string]end{}, arrived: map[uint32]bool{}}
	w.node.Do(func() {
		for path, value := range map[string]string{
			"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1", "ipv4/conf/all/rp_filter": "0", "ipv4/conf/default/rp_filter": "0",
			"ipv4/conf/all/send_redirects": "0", "ipv4/conf/default/send_redirects": "0",
		} {
			w.check(os.WriteFile("/proc/sys/net/"+path, []byte(value), 0))
		}
	})
	for device, addrs := range pods {
		w.connect(device)
		w.node.Do(func() {
			w.check(rtnl.LinkSetGroup(w.link(device), model.PodGroup))
			for _, addr := range addrs {
				w.lead(model.HostPrefix(addr), device, addr)
			}
		})
	}
	w.connect(wiresUplink)
	w.node.Do(func() {
		for _, addr := range own {
			prefix := model.HostPrefix(addr)
			w.check(rtnl.AddrAdd(w.link(wiresUplink), &rtnl.Addr{IPNet: ipNet(prefix), Flags: flags(prefix)}))
			gateway := netip.MustParseAddr([...]string{"169.254.7.7", "fe80::7"}[model.FamilyOf(addr)])
			w.lead(netip.PrefixFrom([...]netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}[model.FamilyOf(addr)], 0), wiresUplink, gateway)
		}
	})
	w.open()
	for device, addrs := range pods {
		for _, addr := range addrs {
			w.warm(wired{device: device, source: addr, destination: own[model.FamilyOf(addr)], protocol: model.UDP, port: 9})
			w.warm(wired{device: wiresUplink, source: own[model.FamilyOf(addr)].Next(), destination: addr, protocol: model.UDP, port: 9})
		}
	}
	w.warmed = w.number
	return w
}

// warm sends a packet until it arrives: a device that is new takes a moment.
func (w *wires) warm(p wired) {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		number := w.send(p)
		w.wait(20)
		if w.receive(); w.arrived[number] {
			clear(w.arrived)
			return
		}
	}
	w.t.Errorf("%s did not arrive", p)
}

// wait waits for something to come out, so many milliseconds at most.
func (w *wires) wait(milliseconds int) {
	ready := make([]unix.PollFd, 0, len(w.receivers))
	for _, fd := range w.receivers {
		ready = append(ready, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	_, _ = unix.Poll(ready, milliseconds)
}

func (w *wires) check(err error) {
	if err != nil {
		w.t.Errorf("%+v", err)
	}
}

func (w *wires) link(name string) rtnl.Link {
	link, err := rtnl.LinkByName(name)
	if err != nil {
		w.t.Errorf("find %s: %v", name, err)
		return &rtnl.Dummy{}
	}
	return link
}

func (w *wires) connect(device string) {
	var e end
	w.node.Do(func() {
		attrs := rtnl.NewLinkAttrs()
		attrs.Name = device
		w.check(rtnl.LinkAdd(&rtnl.Veth{LinkAttrs: attrs, PeerName: device, PeerNamespace: rtnl.NsFd(w.far.Handle)}))
		w.check(rtnl.LinkSetUp(w.link(device)))
		e.node = model.MAC(w.link(device).Attrs().HardwareAddr)
	})
	w.far.Do(func() {
		w.check(rtnl.LinkSetUp(w.link(device)))
		e.index, e.mac = w.link(device).Attrs().Index, model.MAC(w.link(device).Attrs().HardwareAddr)
	})
	w.ends[device] = e
}

// lead makes a destination lead to a device, whose far end is a neighbour that
// needs not to be discovered.
func (w *wires) lead(to netip.Prefix, device string, by netip.Addr) {
	index, mac := w.link(device).Attrs().Index, w.ends[device].mac
	w.check(rtnl.RouteReplace(&rtnl.Route{LinkIndex: index, Dst: ipNet(to), Gw: by.AsSlice(), Flags: unix.RTNH_F_ONLINK}))
	w.check(rtnl.NeighSet(&rtnl.Neigh{LinkIndex: index, IP: by.AsSlice(), HardwareAddr: mac[:], State: unix.NUD_PERMANENT}))
}

func (w *wires) open() {
	socket := func(domain, protocol int) int {
		fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
		w.check(err)
		w.check(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20))
		w.t.Cleanup(func() { _ = unix.Close(fd) })
		return fd
	}
	w.far.Do(func() {
		w.sender = socket(unix.AF_PACKET, 0)
		const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL<<8&0xff00
		w.receivers = append(w.receivers, socket(unix.AF_PACKET, all))
	})
	w.node.Do(func() {
		for _, protocol := range []model.Protocol{model.TCP, model.UDP, model.SCTP, icmp} {
			w.receivers = append(w.receivers, socket(unix.AF_INET, int(protocol)))
			if protocol == icmp {
				protocol = icmp6
			}
			w.receivers = append(w.receivers, socket(unix.AF_INET6, int(protocol)))
		}
	})
}

// sources are what the pods may send.
func (w *wires) sources(pods map[string][]netip.Addr) *antispoof.Plan {
	p := &antispoof.Plan{}
	for device, addrs := range pods {
		for _, addr := range addrs {
			p.Sources = p.Sources.With(antispoof.Source{Device: device, MAC: w.ends[device].mac, Address: addr}, struct{}{})
		}
	}
	return p
}

// send sends a packet and returns its number.
func (w *wires) send(p wired) uint32 {
	w.number++
	e := w.ends[p.device]
	frame := append(append(bytes.Clone(e.node[:]), e.mac[:]...), 0, 0)
	binary.BigEndian.PutUint16(frame[12:], [...]uint16{unix.ETH_P_IP, unix.ETH_P_IPV6}[model.FamilyOf(p.source)])
	frame = append(frame, p.encode(w.number)...)
	w.check(unix.Sendto(w.sender, frame, 0, &unix.SockaddrLinklayer{Ifindex: e.index, Halen: 6}))
	return w.number
}

// receive notes what has come out by now.
func (w *wires) receive() { w.gather(w.arrived) }

func (w *wires) gather(arrived map[uint32]bool) {
	buffer := make([]byte, 4096)
	for _, fd := range w.receivers {
		for {
			n, from, err := unix.Recvfrom(fd, buffer, 0)
			if err != nil {
				break
			}
			if link, ok := from.(*unix.SockaddrLinklayer); ok && link.Pkttype == unix.PACKET_OUTGOING {
				continue
			}
			if at := bytes.Index(buffer[:n], numbered); at >= 0 {
				arrived[binary.BigEndian.Uint32(buffer[at+len(numbered):])] = true
			}
		}
	}
}

// expect sends packets and compares which of them come out. Those that come
// out though they should not are found at the latest by the next call.
func (w *wires) expect(what string, packets []wired, want func(wired) bool) {
	w.t.Helper()
	sent, wanted := map[uint32]wired{}, map[uint32]bool{}
	for _, p := range packets {
		n := w.send(p)
		sent[n], wanted[n] = p, want(p)
	}
	missing := func() (n uint32) {
		w.receive()
		for n, passes := range wanted {
			if passes && !w.arrived[n] {
				return n
			}
		}
		return 0
	}
	for deadline := time.Now().Add(3 * time.Second); missing() != 0 && time.Now().Before(deadline); {
		w.wait(100)
	}
	if n := missing(); n != 0 {
		w.t.Fatalf("%s: %s did not arrive", what, sent[n])
	}
	for n := range w.arrived {
		if p, now := sent[n]; n > w.warmed && (!now || !wanted[n]) {
			w.t.Fatalf("%s: %s arrived, packet %d of %d", what, p, n, w.number)
		}
	}
	clear(w.arrived)
}

// numbered is before the number of a packet.
var numbered = []byte("fairlead-test-no")

// encode is the packet from its IP header on.
func (p wired) encode(number uint32) []byte {
	payload := binary.BigEndian.AppendUint32(bytes.Clone(numbered), number)
	from := uint16(1024 + number%60000)
	var segment []byte
	at := 0 // of the checksum
	switch p.protocol {
	case model.TCP:
		segment, at = make([]byte, 20), 16
		segment[12], segment[13] = 5<<4, 2 // SYN
		segment[14] = 0xff
	case model.UDP:
		segment, at = make([]byte, 8), 6
		binary.BigEndian.PutUint16(segment[4:], uint16(8+len(payload)))
	case model.SCTP: // INIT with a cookie that is none
		segment, at = make([]byte, 12+20), 8
		segment[12], segment[15], segment[19] = 1, byte(20+len(payload)), 1
		segment[27], segment[29] = 1, 1
	case icmp, icmp6:
		segment, at = []byte{8, 0, 0, 0, byte(from >> 8), byte(from), 0, 1}, 2
		if p.protocol == icmp6 {
			segment[0] = 128
		}
	}
	if p.protocol != icmp && p.protocol != icmp6 {
		binary.BigEndian.PutUint16(segment, from)
		binary.BigEndian.PutUint16(segment[2:], p.port)
	}
	segment = append(segment, payload...)
	if p.protocol == model.SCTP {
		binary.LittleEndian.PutUint32(segment[at:], crc32.Checksum(segment, crc32.MakeTable(crc32.Castagnoli)))
	} else {
		binary.BigEndian.PutUint16(segment[at:], p.sum(segment))
	}
	return append(p.header(len(segment)), segment...)
}

func (p wired) header(length int) []byte {
	if p.source.Is6() {
		h := []byte{6<<4 | p.tos>>4, p.tos << 4, 0, 0, byte(length >> 8), byte(length), byte(p.protocol), 64}
		return append(append(h, p.source.AsSlice()...), p.destination.AsSlice()...)
	}
	h := make([]byte, 12, 20)
	h[0], h[1], h[8], h[9] = 0x45, p.tos, 64, byte(p.protocol)
	binary.BigEndian.PutUint16(h[2:], uint16(20+length))
	h = append(append(h, p.source.AsSlice()...), p.destination.AsSlice()...)
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return h
}

// sum is of a segment, and of addresses unless it is of ICMP.
func (p wired) sum(segment []byte) uint16 {
	if p.protocol == icmp {
		return checksum(segment)
	}
	pseudo := append(p.source.AsSlice(), p.destination.AsSlice()...)
	pseudo = append(pseudo, 0, byte(p.protocol), byte(len(segment)>>8), byte(len(segment)))
	return checksum(append(pseudo, segment...))
}
