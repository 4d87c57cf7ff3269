package main

import (
	"encoding/binary"
	"hash/crc32"
)

// Types of chunks (RFC 9260, section 3.2).
const (
	initiate    = 1
	acknowledge = 2 // of initiate
	abort       = 6
)

// packet is one of SCTP with one chunk (RFC 9260, section 3).
type packet struct {
	from, to uint16
	tag      uint32 // that the receiver chose
	kind     uint8
	body     []byte // of the chunk
}

// header are the octets of the common header; a chunk has four before its body.
const header = 12

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (p packet) bytes() []byte {
	b := make([]byte, header+4, header+4+len(p.body))
	binary.BigEndian.PutUint16(b[0:], p.from)
	binary.BigEndian.PutUint16(b[2:], p.to)
	binary.BigEndian.PutUint32(b[4:], p.tag)
	b[header] = p.kind
	binary.BigEndian.PutUint16(b[header+2:], uint16(4+len(p.body)))
	b = append(b, p.body...)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, castagnoli)) // appendix A
	return b
}

// parse reads a packet; not if it is too short, or its checksum is wrong.
func parse(b []byte) (packet, bool) {
	if len(b) < header+4 {
		return packet{}, false
	}
	sum := binary.LittleEndian.Uint32(b[8:])
	binary.LittleEndian.PutUint32(b[8:], 0)
	if sum != crc32.Checksum(b, castagnoli) {
		return packet{}, false
	}
	return packet{
		from: binary.BigEndian.Uint16(b[0:]), to: binary.BigEndian.Uint16(b[2:]), tag: binary.BigEndian.Uint32(b[4:]),
		kind: b[header], body: b[header+4:],
	}, true
}

// beginning is the body of a chunk that begins an association: the tag that the
// sender chose, its window, streams both ways, and the first number.
func beginning(tag uint32) []byte {
	b := make([]byte, 16)
	binary.BigEndian.PutUint32(b[0:], tag)
	binary.BigEndian.PutUint32(b[4:], 65536)
	binary.BigEndian.PutUint16(b[8:], 1)
	binary.BigEndian.PutUint16(b[10:], 1)
	binary.BigEndian.PutUint32(b[12:], 1)
	return b
}

// theirTag is the tag that the sender of a beginning chose.
func (p packet) theirTag() uint32 {
	if len(p.body) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(p.body)
}
