package udptunnel

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

const (
	tcpFIN, tcpSYN, tcpRST, tcpPSH, tcpACK, tcpURG, tcpCWR = 1, 2, 4, 8, 16, 32, 128

	tcpFlags, tcpChecksum    = 13, 16 // offsets in the header
	udpLength, udpChecksum   = 4, 6
	tcpMinHeader, udpHeader  = 20, 8
	ipv4Header, ipv6Header   = 20, 40
	ipv4Length, ipv4ID       = 2, 4
	ipv6Length, ipv6Protocol = 4, 6
)

var errSuper = errors.New("super-packet that does not make sense")

// cutter divides a super-packet of the TUN device into the packets that it
// stands for. It makes their headers and never touches the payload: each
// datagram is a head that next writes, and a slice of the super-packet.
type cutter struct {
	template []byte // inner headers of the super-packet
	payload  []byte // not yet cut
	segment  int    // bytes of payload in each packet
	start    int    // of the transport header
	tcp      bool
	index    uint16
	sequence uint32 // of the next segment
	flags    uint8  // of the super-packet
}

// begin takes a super-packet as the TUN device gives it. What it cannot be
// taken for is an error; then nothing must be cut.
func (c *cutter) begin(packet []byte, o offload) error {
	*c = cutter{segment: int(o.segment), start: int(o.start)}
	headers := c.start + udpHeader
	switch o.kind &^ unix.VIRTIO_NET_HDR_GSO_ECN {
	case unix.VIRTIO_NET_HDR_GSO_TCPV4, unix.VIRTIO_NET_HDR_GSO_TCPV6:
		if c.start+tcpMinHeader > len(packet) {
			return errSuper
		}
		c.tcp = true
		headers = c.start + int(packet[c.start+12]>>4)*4
		c.sequence = binary.BigEndian.Uint32(packet[c.start+4:])
		c.flags = packet[c.start+tcpFlags]
	case unix.VIRTIO_NET_HDR_GSO_UDP_L4:
	default:
		return errSuper
	}
	// The start of the checksum is written in one byte of the datagram.
	if !wholeHeader(packet) || c.segment == 0 || c.start > 255 || headers >= len(packet) ||
		c.start < minHeader(packet) || c.tcp && headers < c.start+tcpMinHeader {
		return errSuper
	}
	if packet[0]>>4 == 4 && int(packet[0]&15)*4 != c.start {
		return errSuper
	}
	c.template, c.payload = packet[:headers], packet[headers:]
	return nil
}

func minHeader(packet []byte) int {
	if packet[0]>>4 == 4 {
		return ipv4Header
	}
	return ipv6Header
}

// headSize is what next needs at least.
func (c *cutter) headSize() int { return wireHeader + len(c.template) }

// next writes the head of the next datagram and returns it with the payload
// that follows; ok is false after the last one.
func (c *cutter) next(to []byte) (head, body []byte, ok bool) {
	if len(c.payload) == 0 {
		return nil, nil, false
	}
	body = c.payload[:min(c.segment, len(c.payload))]
	c.payload = c.payload[len(body):]
	head = to[:c.headSize()]
	inner := head[wireHeader:]
	copy(inner, c.template)
	setLength(inner, len(inner)+len(body), c.index)

	transport, position := inner[c.start:], udpChecksum
	length := len(transport) + len(body)
	protocol := uint8(unix.IPPROTO_UDP)
	if c.tcp {
		protocol, position = unix.IPPROTO_TCP, tcpChecksum
		binary.BigEndian.PutUint32(transport[4:], c.sequence)
		transport[tcpFlags] = c.segmentFlags()
		c.sequence += uint32(len(body))
	} else {
		binary.BigEndian.PutUint16(transport[udpLength:], uint16(length))
	}
	binary.BigEndian.PutUint16(transport[position:], pseudoSum(inner, protocol, length))
	head[0], head[1], head[2], head[3] = wireVersion, flagUnfinished, uint8(c.start), uint8(position)
	c.index++
	return head, body, true
}

// segmentFlags: what ends a stream of bytes is on the last segment, what the
// sender says once of its window is on the first (RFC 3168, 6.1.2).
func (c *cutter) segmentFlags() uint8 {
	flags := c.flags
	if c.index > 0 {
		flags &^= tcpCWR
	}
	if len(c.payload) > 0 {
		flags &^= tcpFIN | tcpPSH
	}
	return flags
}

// setLength makes the IP header be that of a packet of this length in bytes,
// and moves the ID of IPv4 forward.
func setLength(packet []byte, length int, forward uint16) {
	if packet[0]>>4 == 6 {
		binary.BigEndian.PutUint16(packet[ipv6Length:], uint16(length-ipv6Header))
		return
	}
	binary.BigEndian.PutUint16(packet[ipv4Length:], uint16(length))
	id := packet[ipv4ID:]
	binary.BigEndian.PutUint16(id, binary.BigEndian.Uint16(id)+forward)
	finishHeader(packet[:int(packet[0]&15)*4])
}
