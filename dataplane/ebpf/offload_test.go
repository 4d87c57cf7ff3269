package ebpf

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
)

// TestSumOfCard: a network card's sum of the packet that came becomes the one
// of the packet within. Here it is a VXLAN device that hands on such sums, as
// its own packets have come without.
func TestSumOfCard(t *testing.T) {
	c := &cluster{t: t}
	from, to := netnstest.New(t), netnstest.New(t)
	c.cable(from, "eth0", to, "eth0")
	for i, space := range []*netnstest.Namespace{from, to} {
		c.in(space, func() {
			addresses := []netip.Prefix{netip.MustParsePrefix("203.0.113.1/24"), netip.MustParsePrefix("203.0.113.2/24")}
			c.address("eth0", addresses[i])
			turnOff(t, "eth0", checksums)
			attrs := rtnl.NewLinkAttrs()
			attrs.Name = "vx0"
			c.check(rtnl.LinkAdd(&rtnl.Vxlan{
				LinkAttrs: attrs, VxlanId: 7, Port: 4789, UDPCSum: true,
				SrcAddr: addresses[i].Addr().AsSlice(), Group: addresses[1-i].Addr().AsSlice(),
			}))
			c.check(rtnl.LinkSetUp(c.link("vx0")))
			c.address("vx0", netip.PrefixFrom([]netip.Addr{local.Next(), local}[i], 24))
		})
	}
	const protocol = 253 // for experiments: RFC 3692
	var sums *ebpf.Map
	var listener net.PacketConn
	c.in(to, func() {
		c.check(AttachIPIP(IPIP{Name: device, Uplink: "vx0", Local: local, MTU: 1400}))
		c.address("lo", netip.PrefixFrom(there, 32))
		c.route(device, netip.PrefixFrom(here, 32), netip.Addr{}, 0)
		sums = recordSums(t, c.link(device))
		var err error
		listener, err = net.ListenPacket("ip4:253", there.String())
		c.check(err)
	})
	if t.Failed() {
		return
	}
	defer listener.Close()
	for _, tos := range []struct{ outer, inner, arrives byte }{{0, 0, 0}, {3, 2, 3}} {
		packet := inner(tos.inner)
		packet.protocol = protocol
		outer := tunneled(tos.outer, packet)
		outer.source = local.Next()
		c.in(from, func() { c.check(sendRaw(outer)) })
		_ = listener.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, _, err := listener.ReadFrom(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		packet.tos = tos.arrives
		var got uint64
		must(t, sums.Lookup(uint32(0), &got))
		if got > 0xffffffff {
			t.Fatalf("there is no sum of the packet: %d", int64(got))
		}
		folded := binary.NativeEndian.AppendUint32(nil, uint32(got))
		if got, want := sum(folded), sum(packet.bytes()); got%0xffff != want%0xffff {
			t.Errorf("tos %v: the sum of the packet is said to be %#x, and is %#x", tos, got, want)
		}
	}
}

// recordSums keeps the last packet's sum of a card, or the negative error of
// bpf_csum_update if it has none.
func recordSums(t *testing.T, link rtnl.Link) *ebpf.Map {
	sums, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		t.Error(err)
		return nil
	}
	t.Cleanup(func() { _ = sums.Close() })
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R2, 0),
		asm.FnCsumUpdate.Call(),
		asm.StoreMem(asm.RFP, -8, asm.R0, asm.DWord),
		asm.StoreImm(asm.RFP, -16, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, sums.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -16),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, -8),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnMapUpdateElem.Call(),
		asm.Mov.Imm(asm.R0, -1), // TC_ACT_UNSPEC
		asm.Return(),
	}})
	if err != nil {
		t.Error(err)
		return nil
	}
	defer program.Close()
	if err := needClsact(link); err != nil {
		t.Error(err)
	}
	attrs := filterAttrs(link, ingress.parent)
	attrs.Priority++
	err = rtnl.FilterAdd(&rtnl.BpfFilter{FilterAttrs: attrs, Fd: program.FD(), Name: "sums", DirectAction: true})
	if err != nil {
		t.Error(err)
	}
	return sums
}

func sendRaw(packet ipv4) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, packet.bytes(), 0, &unix.SockaddrInet4{Addr: packet.destination.As4()})
}

// TestForeignSegments: a virtual machine leaves the fragments of a datagram to
// be made by the kernel, which cannot do that within a tunnel.
func TestForeignSegments(t *testing.T) {
	c := newCluster(t, 1500)
	a, b := c.nodes[0], c.nodes[1]
	machine := &rtnl.Tuntap{Mode: unix.IFF_TUN, Flags: unix.IFF_NO_PI | unix.IFF_VNET_HDR, Queues: 1, NonPersist: true}
	source := a.podAddr.Next()
	c.in(a.Namespace, func() {
		machine.LinkAttrs = rtnl.NewLinkAttrs()
		machine.Name = "vm0"
		c.check(rtnl.LinkAdd(machine))
		c.check(rtnl.LinkSetUp(c.link("vm0")))
		c.route("vm0", netip.PrefixFrom(source, 32), netip.Addr{}, 0)
	})
	var listener net.PacketConn
	c.in(b.pod, func() {
		var err error
		listener, err = net.ListenPacket("udp4", netip.AddrPortFrom(b.podAddr, 9001).String())
		c.check(err)
	})
	if t.Failed() {
		return
	}
	defer machine.Fds[0].Close()
	defer listener.Close()

	const fragment = 1448
	content := bytes.Repeat([]byte("fairlead"), 500)
	datagram := binary.BigEndian.AppendUint16(nil, 9000)
	datagram = binary.BigEndian.AppendUint16(datagram, 9001)
	datagram = binary.BigEndian.AppendUint16(datagram, uint16(8+len(content)))
	pseudo := append(append(source.AsSlice(), b.podAddr.AsSlice()...), 0, unix.IPPROTO_UDP, datagram[4], datagram[5])
	datagram = binary.BigEndian.AppendUint16(datagram, sum(pseudo))
	packet := ipv4{source: source, destination: b.podAddr, protocol: unix.IPPROTO_UDP, ttl: 64, payload: append(datagram, content...)}
	frame := []byte{unix.VIRTIO_NET_HDR_F_NEEDS_CSUM, unix.VIRTIO_NET_HDR_GSO_UDP}
	for _, value := range []uint16{20 + 8, fragment, 20, 6} { // headers, segment, where the checksum begins and is
		frame = binary.NativeEndian.AppendUint16(frame, value)
	}
	if _, err := machine.Fds[0].Write(append(frame, packet.bytes()...)); err != nil {
		t.Fatal(err)
	}
	_ = listener.SetReadDeadline(time.Now().Add(3 * time.Second))
	got := make([]byte, 1<<16)
	n, _, err := listener.ReadFrom(got)
	if err != nil || !bytes.Equal(got[:n], content) {
		t.Errorf("%d bytes came, or others than the %d that were sent: %v", n, len(content), err)
	}
	c.noDrops()
}
