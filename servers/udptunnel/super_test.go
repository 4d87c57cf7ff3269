package udptunnel

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// super describes a super-packet to be made.
type super struct {
	ipv6     bool
	udp      bool
	options  int // bytes of TCP options
	flags    uint8
	segment  int
	payload  int
	sequence uint32
	id       uint16
	flow     uint16
}

// frame is what the TUN device would give.
func (s super) frame() []byte {
	var ip []byte
	protocol := uint8(unix.IPPROTO_TCP)
	transport := make([]byte, tcpMinHeader+s.options)
	if s.udp {
		protocol, transport = unix.IPPROTO_UDP, make([]byte, udpHeader)
	}
	binary.BigEndian.PutUint16(transport[0:], 1000+s.flow)
	binary.BigEndian.PutUint16(transport[2:], 80)
	length := len(transport) + s.payload
	if s.ipv6 {
		ip = make([]byte, ipv6Header)
		ip[0], ip[6], ip[7], ip[8], ip[24], ip[39] = 0x60, protocol, 64, 0xfd, 0xfd, 1
		binary.BigEndian.PutUint16(ip[4:], uint16(length))
	} else {
		ip = make([]byte, ipv4Header)
		ip[0], ip[6], ip[8], ip[9] = 0x45, 0x40, 64, protocol
		copy(ip[12:], []byte{10, 1, 1, 2, 10, 1, 2, 2})
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+length))
		binary.BigEndian.PutUint16(ip[4:], s.id)
		binary.BigEndian.PutUint16(ip[10:], ^slowSum(ip))
	}
	o := offload{flags: unix.VIRTIO_NET_HDR_F_NEEDS_CSUM, start: uint16(len(ip)), headers: uint16(len(ip) + len(transport)), segment: uint16(s.segment)}
	if s.udp {
		o.kind, o.position = unix.VIRTIO_NET_HDR_GSO_UDP_L4, udpChecksum
		binary.BigEndian.PutUint16(transport[4:], uint16(length))
	} else {
		o.kind, o.position = unix.VIRTIO_NET_HDR_GSO_TCPV4, tcpChecksum
		if s.ipv6 {
			o.kind = unix.VIRTIO_NET_HDR_GSO_TCPV6
		}
		if s.flags&tcpCWR != 0 {
			o.kind |= unix.VIRTIO_NET_HDR_GSO_ECN
		}
		binary.BigEndian.PutUint32(transport[4:], s.sequence)
		binary.BigEndian.PutUint32(transport[8:], 77)
		transport[12] = uint8(len(transport)/4) << 4
		transport[13] = s.flags
		binary.BigEndian.PutUint16(transport[14:], 500)
		for i := range s.options {
			transport[tcpMinHeader+i] = 1
		}
	}
	binary.BigEndian.PutUint16(transport[o.position:], slowPseudo(ip, protocol, length))
	if s.payload <= s.segment { // the kernel does not call that a super-packet
		o.kind, o.segment, o.headers = 0, 0, 0
	}
	frame := make([]byte, offloadSize)
	o.write(frame)
	frame = append(append(frame, ip...), transport...)
	for i := range s.payload {
		frame = append(frame, byte(i*7+int(s.sequence)))
	}
	return frame
}

func slowSum(b []byte) uint16 {
	total := 0
	for i, octet := range b {
		total += int(octet) << (8 - i%2*8)
	}
	for total > 0xffff {
		total = total>>16 + total&0xffff
	}
	return uint16(total)
}

func slowPseudo(packet []byte, protocol uint8, length int) uint16 {
	addresses := packet[12:20]
	if packet[0]>>4 == 6 {
		addresses = packet[8:40]
	}
	return slowSum(append(slices.Clone(addresses), 0, protocol, byte(length>>8), byte(length)))
}

// finished is a packet whose checksum is no longer left to somebody.
func finished(packet []byte, o offload) []byte {
	packet = slices.Clone(packet)
	if o.flags&unix.VIRTIO_NET_HDR_F_NEEDS_CSUM != 0 {
		value := ^slowSum(packet[o.start:])
		if value == 0 {
			value = 0xffff
		}
		binary.BigEndian.PutUint16(packet[o.start+o.position:], value)
	}
	return packet
}

// slowCut is what a frame stands for, by the obvious way: every packet is
// built from scratch and its checksums are counted over all its bytes.
func slowCut(frame []byte) (packets [][]byte) {
	o, super := readOffload(frame), frame[offloadSize:]
	if o.kind == 0 {
		return [][]byte{finished(super, o)}
	}
	udp := o.kind == unix.VIRTIO_NET_HDR_GSO_UDP_L4
	headers := int(o.start) + udpHeader
	if !udp {
		headers = int(o.start) + int(super[o.start+12]>>4)*4
	}
	for at := headers; at < len(super); at += int(o.segment) {
		last := at+int(o.segment) >= len(super)
		packet := append(slices.Clone(super[:headers]), super[at:min(at+int(o.segment), len(super))]...)
		if packet[0]>>4 == 4 {
			binary.BigEndian.PutUint16(packet[2:], uint16(len(packet)))
			binary.BigEndian.PutUint16(packet[4:], binary.BigEndian.Uint16(packet[4:])+uint16(len(packets)))
			packet[10], packet[11] = 0, 0
			binary.BigEndian.PutUint16(packet[10:], ^slowSum(packet[:o.start]))
		} else {
			binary.BigEndian.PutUint16(packet[4:], uint16(len(packet)-ipv6Header))
		}
		transport := packet[o.start:]
		if udp {
			binary.BigEndian.PutUint16(transport[4:], uint16(len(transport)))
			binary.BigEndian.PutUint16(transport[6:], slowPseudo(packet, unix.IPPROTO_UDP, len(transport)))
		} else {
			binary.BigEndian.PutUint32(transport[4:], binary.BigEndian.Uint32(transport[4:])+uint32(at-headers))
			if !last {
				transport[13] &^= tcpFIN | tcpPSH
			}
			if at > headers {
				transport[13] &^= tcpCWR
			}
			binary.BigEndian.PutUint16(transport[16:], slowPseudo(packet, unix.IPPROTO_TCP, len(transport)))
		}
		packets = append(packets, finished(packet, o))
	}
	return packets
}

// fastCut is the code under test: the datagrams of a frame.
func fastCut(t testing.TB, frame []byte) (datagrams [][]byte) {
	t.Helper()
	o := readOffload(frame)
	if o.kind == 0 {
		return [][]byte{append([]byte{wireVersion, flagUnfinished, uint8(o.start), uint8(o.position)}, frame[offloadSize:]...)}
	}
	var c cutter
	if err := c.begin(frame[offloadSize:], o); err != nil {
		t.Fatal(err)
	}
	arena := make([]byte, 1<<10)
	for {
		head, body, ok := c.next(arena)
		if !ok {
			return datagrams
		}
		datagrams = append(datagrams, append(slices.Clone(head), body...))
	}
}

// packetOf is the packet in a datagram, finished.
func packetOf(datagram []byte) []byte {
	o := offload{}
	if datagram[1]&flagUnfinished != 0 {
		o = offload{flags: unix.VIRTIO_NET_HDR_F_NEEDS_CSUM, start: uint16(datagram[2]), position: uint16(datagram[3])}
	}
	return finished(datagram[wireHeader:], o)
}

// joined are the frames that the code under test makes of datagrams.
func joined(datagrams [][]byte) (frames [][]byte) {
	j := joiner{segmented: true}
	write := func() {
		if len(j.pieces) > 0 {
			j.finish()
			frames = append(frames, append(slices.Clone(j.offload[:]), slices.Concat(j.pieces...)...))
			j.reset()
		}
	}
	for _, d := range datagrams {
		d = slices.Clone(d) // it is edited
		if !j.add(d) {
			write()
			j.add(d)
		}
	}
	write()
	return frames
}

func supers(random *rand.Rand) super {
	pick := func(of ...int) int { return of[random.IntN(len(of))] }
	s := super{
		ipv6: random.IntN(2) == 0, udp: random.IntN(4) == 0, options: pick(0, 12, 40), flags: uint8(tcpACK | pick(0, tcpPSH, tcpFIN, tcpCWR, tcpPSH|tcpCWR)),
		segment: pick(1, 8, 100, 1200, 1416, 8900), sequence: random.Uint32(), id: uint16(random.Uint32()), flow: uint16(random.IntN(2)),
	}
	s.payload = min(1+random.IntN(s.segment*pick(1, 3, 60)), 65000)
	return s
}

func TestCutIsAsTheObviousWay(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 400 {
		s := supers(random)
		frame := s.frame()
		want := slowCut(frame)
		var have [][]byte
		for _, d := range fastCut(t, frame) {
			have = append(have, packetOf(d))
		}
		if !slices.EqualFunc(have, want, bytes.Equal) {
			t.Fatalf("%+v: cut into %d packets that differ from the %d that it stands for", s, len(have), len(want))
		}
	}
}

func TestJoinUndoesCut(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 400 {
		s := supers(random)
		frame := s.frame()
		have := joined(fastCut(t, frame))
		if len(have) != 1 || !bytes.Equal(have[0], frame) {
			t.Fatalf("%+v: joined into %d frames, not into the one that was cut", s, len(have))
		}
	}
}

// The kernel refuses what stands for more packets of UDP than it would send.
func TestJoinedUDPIsNotTooMuch(t *testing.T) {
	var datagrams [][]byte
	for range 3 {
		datagrams = append(datagrams, fastCut(t, super{ipv6: true, udp: true, segment: 100, payload: 50 * 100}.frame())...)
	}
	var have []int
	for _, frame := range joined(datagrams) {
		have = append(have, len(slowCut(frame)))
	}
	if want := []int{64, 64, 22}; !slices.Equal(have, want) {
		t.Errorf("150 datagrams are joined as %v, want %v", have, want)
	}
}

// Packets that are lost, late or damaged on the way come out as they came in,
// and so do all others: whatever is joined stands for the packets that came.
func TestJoinChangesNoPacket(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for range 400 {
		var datagrams [][]byte
		next := super{}
		for range 3 {
			s := supers(random)
			if random.IntN(2) == 0 { // what continues the former
				s.ipv6, s.udp, s.options, s.segment, s.flow, s.flags = next.ipv6, next.udp, next.options, max(next.segment, 1), next.flow, tcpACK
				s.sequence, s.id = next.sequence, next.id
			}
			datagrams = append(datagrams, fastCut(t, s.frame())...)
			next = s
			next.sequence += uint32(s.payload)
			next.id += uint16((s.payload + s.segment - 1) / s.segment)
		}
		for range random.IntN(4) {
			at := random.IntN(len(datagrams))
			switch d := datagrams[at]; random.IntN(3) {
			case 0:
				datagrams = slices.Delete(datagrams, at, at+1)
			case 1:
				other := random.IntN(len(datagrams))
				datagrams[at], datagrams[other] = datagrams[other], datagrams[at]
			case 2:
				d[wireHeader+random.IntN(min(60, len(d)-wireHeader))] ^= 1 << random.IntN(8)
			}
			if len(datagrams) == 0 {
				break
			}
		}
		datagrams = slices.DeleteFunc(datagrams, func(d []byte) bool { return checkWire(d) != nil })
		checkJoined(t, datagrams)
	}
}

// checkJoined compares what was joined with what came. A super-packet has the
// right unfinished checksum even if its first packet had a wrong one, which
// only a peer that does not know better sends: there it is not compared.
func checkJoined(t testing.TB, datagrams [][]byte) {
	t.Helper()
	var have [][]byte
	for _, frame := range joined(datagrams) {
		o := readOffload(frame)
		if int(o.start)+int(o.position)+2 > len(frame)-offloadSize {
			t.Fatalf("checksum beyond the packet: %+v", o)
		}
		for _, packet := range slowCut(frame) {
			if at := int(o.start + o.position); o.kind != 0 && len(have) < len(datagrams) {
				d := datagrams[len(have)]
				packet[at], packet[at+1], d[wireHeader+at], d[wireHeader+at+1], d[1] = 0, 0, 0, 0, 0
			}
			have = append(have, packet)
		}
	}
	if len(have) != len(datagrams) {
		t.Fatalf("%d packets became %d", len(datagrams), len(have))
	}
	for i, d := range datagrams {
		if want := packetOf(d); !bytes.Equal(have[i], want) {
			t.Fatalf("packet %d of %d changed\nfrom %x\nto   %x", i, len(datagrams), want[:min(80, len(want))], have[i][:min(80, len(have[i]))])
		}
	}
}

func TestOnlyWholeStreamsAreJoined(t *testing.T) {
	base := super{segment: 100, payload: 300, flags: tcpACK}
	for _, test := range []struct {
		name   string
		change func(datagrams [][]byte)
		frames int
	}{
		{"nothing", func([][]byte) {}, 1},
		{"lost", func(d [][]byte) { d[1] = d[2] }, 3},
		{"another port", func(d [][]byte) { d[1][wireHeader+21]++ }, 3},
		{"another TTL", func(d [][]byte) { d[2][wireHeader+8]--; finishHeader(d[2][wireHeader:][:20]) }, 2},
		{"congestion experienced", func(d [][]byte) { d[2][wireHeader+1] |= 3; finishHeader(d[2][wireHeader:][:20]) }, 2},
		{"another window", func(d [][]byte) { d[2][wireHeader+34]++ }, 2},
		{"wrong header checksum", func(d [][]byte) { d[1][wireHeader+10]++ }, 3},
		{"finished checksum", func(d [][]byte) { d[1][1], d[1][2], d[1][3] = 0, 0, 0 }, 3},
		{"congestion echoed", func(d [][]byte) { d[2][wireHeader+33] |= 64 }, 2},
		{"pushed", func(d [][]byte) { d[1][wireHeader+33] |= tcpPSH }, 2},
		{"reset", func(d [][]byte) { d[1][wireHeader+33] |= tcpRST }, 3},
		{"fragment", func(d [][]byte) { d[1][wireHeader+6] |= 0x20; finishHeader(d[1][wireHeader:][:20]) }, 3},
	} {
		datagrams := fastCut(t, base.frame())
		test.change(datagrams)
		if have := len(joined(datagrams)); have != test.frames {
			t.Errorf("%s: %d frames, want %d", test.name, have, test.frames)
		}
	}
}

func FuzzCut(f *testing.F) {
	for _, s := range []super{
		{segment: 100, payload: 250, flags: tcpACK | tcpPSH}, {ipv6: true, segment: 8, payload: 60, options: 12, flags: tcpACK},
		{udp: true, segment: 50, payload: 120}, {segment: 100, payload: 20, flags: tcpACK},
	} {
		f.Add(s.frame())
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < offloadSize || len(frame) > frameSize {
			return
		}
		var c cutter
		if c.begin(frame[offloadSize:], readOffload(frame)) != nil {
			return
		}
		payload := slices.Clone(c.payload)
		to := make([]byte, c.headSize())
		for {
			head, body, ok := c.next(to)
			if !ok {
				break
			}
			if err := checkWire(append(slices.Clone(head), body...)); err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(payload, body) {
				t.Fatal("payload changed")
			}
			payload = payload[len(body):]
		}
		if len(payload) > 0 {
			t.Fatal("payload lost")
		}
	})
}

// FuzzJoin reads datagrams from the input, each after its length in two bytes.
func FuzzJoin(f *testing.F) {
	for _, s := range []super{{segment: 10, payload: 35, flags: tcpACK}, {ipv6: true, segment: 8, payload: 60, flags: tcpACK | tcpCWR}, {udp: true, segment: 5, payload: 12}} {
		var input []byte
		for _, d := range fastCut(f, s.frame()) {
			input = append(binary.BigEndian.AppendUint16(input, uint16(len(d))), d...)
		}
		f.Add(input)
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		var datagrams [][]byte
		for len(input) > 2 {
			n := min(int(binary.BigEndian.Uint16(input)), len(input)-2)
			if d := input[2 : 2+n]; checkWire(d) == nil {
				datagrams = append(datagrams, slices.Clone(d))
			}
			input = input[2+n:]
		}
		checkJoined(t, datagrams)
	})
}

func TestSum(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	for length := range 100 {
		b := make([]byte, length)
		for i := range b {
			b[i] = byte(random.IntN(3) * 127)
		}
		if have, want := sum(b, 0), slowSum(b); have != want {
			t.Errorf("%x: %04x, want %04x", b, have, want)
		}
	}
}
