package udptunnel

import (
	"encoding/binary"
	"math/bits"
)

// sum adds up b as the Internet checksum does (RFC 1071), eight bytes at a
// time: carries only go around, so the width of the words does not matter.
func sum(b []byte, initial uint16) uint16 {
	total := uint64(initial)
	var carry uint64
	for len(b) >= 8 {
		total, carry = bits.Add64(total, binary.BigEndian.Uint64(b), 0)
		total += carry
		b = b[8:]
	}
	var tail uint64
	if len(b) >= 4 {
		tail = uint64(binary.BigEndian.Uint32(b))
		b = b[4:]
	}
	for k, octet := range b {
		tail += uint64(octet) << (8 - k%2*8)
	}
	total, carry = bits.Add64(total, tail, 0)
	total += carry
	total = total>>32 + total&0xffffffff
	total = total>>16 + total&0xffff
	total = total>>16 + total&0xffff
	return uint16(total>>16 + total)
}

// pseudoSum is the sum of a pseudo-header: what the checksum field of a packet
// holds until it is finished. length is of the transport header and payload.
func pseudoSum(packet []byte, protocol uint8, length int) uint16 {
	addresses := packet[12:20]
	if packet[0]>>4 == 6 {
		addresses = packet[8:40]
	}
	var rest [4]byte
	rest[1] = protocol
	binary.BigEndian.PutUint16(rest[2:], uint16(length))
	return sum(rest[:], sum(addresses, 0))
}

// finishChecksum does what the kernel left to the device. It reports whether
// the place of the checksum lies in the packet.
func finishChecksum(packet []byte, start, position int) bool {
	if start+position+2 > len(packet) {
		return false
	}
	value := ^sum(packet[start:], 0)
	if value == 0 {
		value = 0xffff // zero means none in UDP (RFC 768), and the same elsewhere
	}
	binary.BigEndian.PutUint16(packet[start+position:], value)
	return true
}

// finishHeader writes the checksum of an IPv4 header.
func finishHeader(header []byte) {
	header[10], header[11] = 0, 0
	binary.BigEndian.PutUint16(header[10:], ^sum(header, 0))
}
