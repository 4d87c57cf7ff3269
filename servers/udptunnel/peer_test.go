package udptunnel

import (
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

func TestSpoofedPacketsAreRefused(t *testing.T) {
	w := newWorld(t, 3, 1500, false)
	r := w.start(w.nodes[0], w.plan(w.nodes[0], model.IPv4, testPort, testPort+1, 1468))
	to := netip.AddrPortFrom(w.nodes[0].outer(model.IPv4), testPort)
	peer, foreignPort, otherPort, stranger := open(t, w.nodes[1].machine, netip.AddrPortFrom(w.nodes[1].outer(model.IPv4), testPort)),
		open(t, w.nodes[1].machine, netip.AddrPortFrom(w.nodes[1].outer(model.IPv4), testPort+2)),
		open(t, w.nodes[1].machine, netip.AddrPortFrom(w.nodes[1].outer(model.IPv4), testPort+1)),
		open(t, w.router, netip.AddrPortFrom(netip.MustParseAddr("10.0.1.1"), testPort))
	pod := open(t, w.nodes[0].pod, netip.AddrPortFrom(w.nodes[0].podAddress(model.IPv4), 9))
	datagram := func(change func([]byte)) []byte {
		b := append([]byte{wireVersion, 0, 0, 0}, packetOf(fastCut(t, super{udp: true, payload: 20, segment: 20}.frame())[0])...)
		packet := b[wireHeader:]
		copy(packet[12:], w.nodes[1].podAddress(model.IPv4).AsSlice())
		copy(packet[16:], w.nodes[0].podAddress(model.IPv4).AsSlice())
		binary.BigEndian.PutUint16(packet[22:], 9)
		packet[26], packet[27] = 0, 0 // without checksum
		finishHeader(packet[:20])
		change(b)
		return b
	}
	good := func([]byte) {}
	for _, test := range []struct {
		name  string
		from  *net.UDPConn
		send  []byte
		count Counter
	}{
		{"good", peer, datagram(good), Received},
		{"from the other port", otherPort, datagram(good), Received},
		{"from a third port", foreignPort, datagram(good), UnknownSender},
		{"from no node", stranger, datagram(good), UnknownSender},
		{"another node's pod", peer, datagram(func(b []byte) { copy(b[16:], w.nodes[2].podAddress(model.IPv4).AsSlice()) }), ForeignSource},
		{"our own pod", peer, datagram(func(b []byte) { copy(b[16:], w.nodes[0].podAddress(model.IPv4).AsSlice()) }), ForeignSource},
		{"no pod", peer, datagram(func(b []byte) { copy(b[16:], []byte{192, 0, 2, 1}) }), ForeignSource},
		{"another version", peer, datagram(func(b []byte) { b[0]++ }), UnknownVersion},
		{"unknown flag", peer, datagram(func(b []byte) { b[1] |= 128 }), UnknownVersion},
		{"neither IPv4 nor IPv6", peer, datagram(func(b []byte) { b[4] = 0x55 }), Truncated},
		{"truncated", peer, datagram(good)[:12], Truncated},
		{"empty", peer, nil, Truncated},
		{"checksum beyond the end", peer, datagram(func(b []byte) { b[1], b[2] = flagUnfinished, 200 }), Truncated},
	} {
		before := r.Counters()
		_, err := test.from.WriteToUDPAddrPort(test.send, to)
		must(t, err)
		deadline := time.Now().Add(3 * time.Second)
		for r.Counters()[test.count] == before[test.count] && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		for which, after := range r.Counters() {
			want := before[which]
			if which == test.count {
				want++
			}
			if after != want && which != NoPeer { // the kernel's own multicasts to the device
				t.Errorf("%s: %s is %d, want %d", test.name, which, after, want)
			}
		}
	}
	for want := 2; ; want-- {
		must(t, pod.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
		if _, _, err := pod.ReadFromUDPAddrPort(make([]byte, 100)); err != nil {
			if want != 0 {
				t.Errorf("%d packets too few came to the pod", want)
			}
			break
		}
	}
}

// What is done for each packet, between the calls of the kernel, makes no garbage.
func TestPacketsMakeNoGarbage(t *testing.T) {
	frame := super{segment: 1000, payload: 40000, flags: tcpACK}.frame()
	to := netip.MustParseAddr("10.0.2.2")
	table := (&peers{}).with(model.Map[netip.Prefix, netip.Addr]{}, model.MapOf(map[netip.Prefix]netip.Addr{
		netip.MustParsePrefix("10.1.0.0/16"): to, netip.MustParsePrefix("10.1.1.0/24"): to,
	}))
	o := New(slog.New(slog.DiscardHandler)).newOutbound(&path{peers: table})
	o.to = &socket{at: netip.AddrPortFrom(to, testPort)}
	now := time.Now()
	if n := testing.AllocsPerRun(100, func() {
		o.lastPeer = nil
		o.take(frame)
		for next, i := 0, 0; next < len(o.queue); i++ {
			next = o.gather(i, next, now)
		}
		o.queue, o.pieces, o.used = o.queue[:0], o.pieces[:0], 0
	}); n > 0 {
		t.Errorf("%v allocations for a frame sent", n)
	}
	datagrams := fastCut(t, frame)
	i := New(slog.New(slog.DiscardHandler)).newInbound(&path{peers: table})
	from, _ := table.nodes.Get(addressOf(to.AsSlice()))
	if n := testing.AllocsPerRun(100, func() {
		i.lastPeer = nil
		for _, d := range datagrams {
			if !i.check(d, from) {
				t.Error("refused")
			}
			i.joiner.add(d)
		}
		i.joiner.finish()
		i.joiner.reset()
	}); n > 0 {
		t.Errorf("%v allocations for a frame received", n)
	}
}

// A peer's ranges come and go; the table is as one that is made at once.
func TestPeersFollowThePlan(t *testing.T) {
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::2")
	plans := []map[netip.Prefix]netip.Addr{
		{},
		{netip.MustParsePrefix("10.1.0.0/16"): a, netip.MustParsePrefix("10.1.2.0/24"): b, netip.MustParsePrefix("fd01::/64"): a},
		{netip.MustParsePrefix("10.1.0.0/16"): b, netip.MustParsePrefix("fd01::5/128"): b, netip.MustParsePrefix("fd01::/64"): a},
		{netip.MustParsePrefix("::/0"): a},
		{netip.MustParsePrefix("0.0.0.0/0"): b},
	}
	questions := []string{"10.1.2.3", "10.1.3.3", "10.2.0.1", "fd01::5", "fd01::6", "fd02::1", "::ffff:10.1.2.3"}
	table, before := &peers{}, model.Map[netip.Prefix, netip.Addr]{}
	for round := range 20 {
		now := plans[(round*3+round/5)%len(plans)]
		after := model.MapOf(now)
		table, before = table.with(before, after), after
		nodes := map[netip.Addr]bool{}
		for _, outer := range now {
			nodes[outer] = true
		}
		if len(nodes) != table.nodes.Len() {
			t.Fatalf("round %d: %d nodes, want %d", round, table.nodes.Len(), len(nodes))
		}
		for _, q := range questions {
			asked, want, longest := netip.MustParseAddr(q), netip.Addr{}, -1
			for prefix, outer := range now {
				if prefix.Contains(asked) && prefix.Bits() > longest {
					want, longest = outer, prefix.Bits()
				}
			}
			var have netip.Addr
			if found := table.behind(addressOf(asked.AsSlice())); found != nil {
				have = found.addr
			}
			if have != want {
				t.Errorf("round %d: %s is behind %v, want %v", round, q, have, want)
			}
		}
	}
}
