package udptunnel

import (
	"encoding/binary"
	"errors"

	"github.com/fairlead-net/fairlead/model"
)

// A datagram is a header of four bytes and one whole inner packet, so that
// each can be understood alone:
//
//	0: version
//	1: flags
//	2: where the inner packet's unfinished checksum begins to count, in bytes
//	3: where it is stored, in bytes from there
//
// The last two are zero unless flagUnfinished is set: then the field holds the
// sum of the pseudo-header only. The outer UDP checksum protects the way; the
// receiving kernel finishes the inner one if the packet ever leaves through a
// device that cannot.
const (
	wireVersion    = 1
	wireHeader     = 4
	flagUnfinished = 1
)

// Overhead is what an outer packet adds to the inner one, in bytes.
func Overhead(outer model.Family) int {
	const udp = 8
	if outer == model.IPv4 {
		return ipv4Header + udp + wireHeader
	}
	return ipv6Header + udp + wireHeader
}

var (
	errVersion   = errors.New("unknown version of the tunnel")
	errTruncated = errors.New("shorter than its headers say")
)

// checkWire tells whether a datagram is one of ours, with a whole IP header.
func checkWire(datagram []byte) error {
	if len(datagram) < wireHeader {
		return errTruncated
	}
	if datagram[0] != wireVersion || datagram[1]&^flagUnfinished != 0 {
		return errVersion
	}
	packet := datagram[wireHeader:]
	if !wholeHeader(packet) {
		return errTruncated
	}
	if datagram[1]&flagUnfinished != 0 && int(datagram[2])+int(datagram[3])+2 > len(packet) {
		return errTruncated
	}
	return nil
}

// wholeHeader tells whether there is an IP header without options.
func wholeHeader(packet []byte) bool {
	if len(packet) < 20 {
		return false
	}
	switch packet[0] >> 4 {
	case 4:
		return true
	case 6:
		return len(packet) >= 40
	}
	return false
}

// offload is the virtio_net_hdr before each packet of the TUN device: what the
// kernel left undone, or may leave undone. All lengths are in bytes.
type offload struct {
	flags    uint8
	kind     uint8  // of the super-packet; zero: it is a plain packet
	headers  uint16 // of the super-packet
	segment  uint16 // payload of each of its segments
	start    uint16 // see the header of datagrams
	position uint16
}

const offloadSize = 10

func readOffload(b []byte) offload {
	return offload{
		flags: b[0], kind: b[1],
		headers:  binary.NativeEndian.Uint16(b[2:]),
		segment:  binary.NativeEndian.Uint16(b[4:]),
		start:    binary.NativeEndian.Uint16(b[6:]),
		position: binary.NativeEndian.Uint16(b[8:]),
	}
}

func (o offload) write(b []byte) {
	b[0], b[1] = o.flags, o.kind
	binary.NativeEndian.PutUint16(b[2:], o.headers)
	binary.NativeEndian.PutUint16(b[4:], o.segment)
	binary.NativeEndian.PutUint16(b[6:], o.start)
	binary.NativeEndian.PutUint16(b[8:], o.position)
}
