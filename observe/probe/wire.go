package probe

import (
	"encoding/binary"

	"github.com/fairlead-net/fairlead/model"
)

// What is sent by UDP and TCP, and in ICMP echoes:
//
//	0  "FLp1"
//	4  kind: 1 is a question, 2 its answer
//	5  flags of an answer: bit 0, the node has an endpoint
//	6  sequence number
//	8  nonce of who asks
//	16 zeros, to the size that is asked for
//
// An answer has headerSize bytes and is never greater than its question, so that
// nobody gains by a forged sender; and since no answer is answered, two nodes
// cannot be made to talk to each other for ever (as two echo services of RFC
// 862 can).
const headerSize = 16

const (
	question byte = 1
	answer   byte = 2
)

const hasEndpoint byte = 1

var magic = [4]byte{'F', 'L', 'p', '1'}

type message struct {
	kind, flags byte
	sequence    uint16
	nonce       uint64
}

// put writes the header into the first bytes of a packet.
func (m message) put(packet []byte) {
	copy(packet, magic[:])
	packet[4], packet[5] = m.kind, m.flags
	binary.BigEndian.PutUint16(packet[6:], m.sequence)
	binary.BigEndian.PutUint64(packet[8:], m.nonce)
}

// parse tells whether a packet begins with a header.
func parse(packet []byte) (m message, ok bool) {
	if len(packet) < headerSize || [4]byte(packet) != magic {
		return m, false
	}
	return message{
		kind: packet[4], flags: packet[5],
		sequence: binary.BigEndian.Uint16(packet[6:]), nonce: binary.BigEndian.Uint64(packet[8:]),
	}, true
}

// headers in bytes are those of IP and of UDP or ICMP, whose is as long.
func headers(family model.Family) int {
	if family == model.IPv6 {
		return 40 + 8
	}
	return 20 + 8
}

// checksum is that of the Internet (RFC 1071).
func checksum(packet []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(packet); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(packet[i:]))
	}
	if len(packet)%2 == 1 {
		sum += uint32(packet[len(packet)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
