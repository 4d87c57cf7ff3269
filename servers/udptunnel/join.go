package udptunnel

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// joiner makes super-packets of the packets in datagrams, by the rules of the
// kernel's own receive offload: what it makes, cut again, is what came. It
// edits the headers of the first packet and never touches payload.
//
// A packet that fits no other becomes a frame of its own.
type joiner struct {
	segmented bool // UDP may be joined as well: the kernel can take it apart

	offload [offloadSize]byte
	pieces  [][]byte // first packet, then payloads
	length  int      // of all pieces

	first  view
	closed bool // nothing can follow
	next   uint32
	last   uint8 // flags of the last TCP segment
}

// view is where the parts of a packet are that can be joined with others. The
// zero view is of one that cannot.
type view struct {
	headers  int // IP and transport; zero: cannot be joined
	start    int // of the transport header
	payload  int // bytes
	tcp      bool
	id       uint16 // of IPv4
	sequence uint32 // of TCP
	flags    uint8  // of TCP
}

// look tells how a packet can be joined.
func look(datagram []byte, udp bool) (v view) {
	packet := datagram[wireHeader:]
	if datagram[1]&flagUnfinished == 0 {
		return view{} // its checksum would have to be verified first
	}
	protocol := packet[ipv6Protocol]
	if packet[0]>>4 == 4 {
		// No options, no fragment.
		if packet[0] != 0x45 || packet[6]&^0x40|packet[7] != 0 || sum(packet[:ipv4Header], 0) != 0xffff ||
			int(binary.BigEndian.Uint16(packet[ipv4Length:])) != len(packet) {
			return view{}
		}
		v.start, v.id, protocol = ipv4Header, binary.BigEndian.Uint16(packet[ipv4ID:]), packet[9]
	} else {
		if int(binary.BigEndian.Uint16(packet[ipv6Length:]))+ipv6Header != len(packet) {
			return view{}
		}
		v.start = ipv6Header
	}
	transport := packet[v.start:]
	position := udpChecksum
	switch {
	case protocol == unix.IPPROTO_TCP && len(transport) >= tcpMinHeader:
		position = tcpChecksum
		v.tcp = true
		v.headers = v.start + int(transport[12]>>4)*4
		v.flags = transport[tcpFlags]
		v.sequence = binary.BigEndian.Uint32(transport[4:])
		if v.headers < v.start+tcpMinHeader || v.flags&(tcpSYN|tcpRST|tcpURG|tcpACK) != tcpACK {
			return view{}
		}
	case protocol == unix.IPPROTO_UDP && udp && len(transport) >= udpHeader:
		v.headers = v.start + udpHeader
		if int(binary.BigEndian.Uint16(transport[udpLength:])) != len(transport) {
			return view{}
		}
	default:
		return view{}
	}
	v.payload = len(packet) - v.headers
	if v.payload <= 0 || int(datagram[2]) != v.start || int(datagram[3]) != position {
		return view{}
	}
	return v
}

// add takes a datagram that checkWire found good. It reports false if what was
// added before has to be written first.
func (j *joiner) add(datagram []byte) bool {
	packet := datagram[wireHeader:]
	v := look(datagram, j.segmented)
	if len(j.pieces) > 0 {
		if !j.follows(packet, v) {
			return false
		}
		j.pieces = append(j.pieces, packet[v.headers:])
		j.length += v.payload
		j.advance(v)
		return true
	}
	j.pieces = append(j.pieces, packet)
	j.length = len(packet)
	j.first = v
	j.closed = v.headers == 0
	j.advance(v)
	o := offload{}
	if datagram[1]&flagUnfinished != 0 {
		o = offload{flags: unix.VIRTIO_NET_HDR_F_NEEDS_CSUM, start: uint16(datagram[2]), position: uint16(datagram[3])}
	}
	o.write(j.offload[:])
	return true
}

func (j *joiner) advance(v view) {
	j.next = v.sequence + uint32(v.payload)
	j.last = v.flags
	j.closed = j.closed || v.payload < j.first.payload || v.flags&(tcpPSH|tcpFIN) != 0
}

// follows tells whether a packet continues what was added so far.
func (j *joiner) follows(packet []byte, v view) bool {
	f := &j.first
	first := j.pieces[0]
	if j.closed || v.headers != f.headers || v.start != f.start || v.tcp != f.tcp || v.payload > f.payload ||
		first[0] != packet[0] || j.length+v.payload > 0xffff || len(j.pieces) >= maxPieces-1 ||
		!v.tcp && len(j.pieces) >= maxSegments { // of UDP, the device refuses the whole frame
		return false
	}
	if v.start == ipv4Header {
		// TOS; DF, TTL and protocol; addresses. The ID counts up.
		if v.id != f.id+uint16(len(j.pieces)) || first[1] != packet[1] ||
			!bytes.Equal(first[6:10], packet[6:10]) || !bytes.Equal(first[12:20], packet[12:20]) {
			return false
		}
	} else if !bytes.Equal(first[:4], packet[:4]) || !bytes.Equal(first[6:40], packet[6:40]) {
		return false // traffic class and flow label; next header, hop limit, addresses
	}
	a, b := first[v.start:f.headers], packet[v.start:v.headers]
	if !v.tcp {
		return bytes.Equal(a[:4], b[:4]) // ports
	}
	// Ports; acknowledgement and length of the header; flags; window; urgent
	// pointer and options.
	return v.sequence == j.next && bytes.Equal(a[:4], b[:4]) && bytes.Equal(a[8:13], b[8:13]) &&
		(v.flags^f.flags)&^(tcpPSH|tcpFIN|tcpCWR) == 0 && v.flags&tcpCWR == 0 &&
		bytes.Equal(a[14:16], b[14:16]) && bytes.Equal(a[18:], b[18:])
}

// finish makes the headers of the super-packet. What it stands for is then in
// offload and pieces, until reset.
func (j *joiner) finish() {
	if len(j.pieces) < 2 {
		return
	}
	packet, v := j.pieces[0], &j.first
	setLength(packet, j.length, 0)
	o := readOffload(j.offload[:])
	transport, length := packet[v.start:], j.length-v.start
	protocol := uint8(unix.IPPROTO_UDP)
	o.kind = unix.VIRTIO_NET_HDR_GSO_UDP_L4
	if v.tcp {
		protocol = unix.IPPROTO_TCP
		o.kind = unix.VIRTIO_NET_HDR_GSO_TCPV4
		if v.start == ipv6Header {
			o.kind = unix.VIRTIO_NET_HDR_GSO_TCPV6
		}
		if v.flags&tcpCWR != 0 {
			o.kind |= unix.VIRTIO_NET_HDR_GSO_ECN
		}
		transport[tcpFlags] |= j.last & (tcpPSH | tcpFIN)
	} else {
		binary.BigEndian.PutUint16(transport[udpLength:], uint16(length))
	}
	binary.BigEndian.PutUint16(transport[o.position:], pseudoSum(packet, protocol, length))
	o.headers, o.segment = uint16(v.headers), uint16(v.payload)
	o.write(j.offload[:])
}

func (j *joiner) reset() {
	j.pieces = j.pieces[:0]
	j.length = 0
}
