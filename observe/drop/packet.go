package drop

import (
	"encoding/binary"
	"net/netip"
	"strconv"

	"github.com/fairlead-net/fairlead/model"
)

// Packet is what its first bytes tell.
type Packet struct {
	Source, Destination netip.Addr
	Protocol            model.Protocol // of the payload, one of ICMP too
	// Ports are 0 of protocols without, and of fragments but the first.
	SourcePort, DestinationPort uint16
	ICMP                        *ICMP // nil of other protocols
}

// Protocols that are not among those of model.
const (
	icmp4 model.Protocol = 1
	icmp6 model.Protocol = 58
)

// protocolName is for people.
func protocolName(protocol model.Protocol) string {
	switch protocol {
	case icmp4:
		return "ICMP"
	case icmp6:
		return "ICMPv6"
	case model.TCP, model.UDP, model.SCTP:
		return protocol.String()
	}
	return strconv.Itoa(int(protocol))
}

// Decode reads the first bytes of a packet. It is false of what is no IP packet;
// what is cut off is left out.
func Decode(bytes []byte) (Packet, bool) {
	if len(bytes) == 0 {
		return Packet{}, false
	}
	switch bytes[0] >> 4 {
	case 4:
		return decode4(bytes)
	case 6:
		return decode6(bytes)
	}
	return Packet{}, false
}

func decode4(bytes []byte) (p Packet, ok bool) {
	length := int(bytes[0]&15) * 4
	if length < 20 || len(bytes) < length {
		return Packet{}, false
	}
	p.Source, p.Destination = netip.AddrFrom4([4]byte(bytes[12:])), netip.AddrFrom4([4]byte(bytes[16:]))
	p.Protocol = model.Protocol(bytes[9])
	if binary.BigEndian.Uint16(bytes[6:])&0x1fff == 0 {
		p.decodePayload(bytes[length:])
	}
	return p, true
}

// Extension headers of IPv6 that a protocol may follow (RFC 8200).
const (
	hopByHop    = 0
	routing     = 43
	fragment    = 44
	destination = 60
)

func decode6(bytes []byte) (p Packet, ok bool) {
	if len(bytes) < 40 {
		return Packet{}, false
	}
	p.Source, p.Destination = netip.AddrFrom16([16]byte(bytes[8:])), netip.AddrFrom16([16]byte(bytes[24:]))
	next, rest := bytes[6], bytes[40:]
	for {
		p.Protocol = model.Protocol(next)
		switch next {
		case hopByHop, routing, destination:
			if len(rest) < 8 || len(rest) < int(rest[1])*8+8 {
				return p, true
			}
			next, rest = rest[0], rest[int(rest[1])*8+8:]
		case fragment:
			if len(rest) < 8 {
				return p, true
			}
			first := binary.BigEndian.Uint16(rest[2:])>>3 == 0
			next, rest = rest[0], rest[8:]
			if !first {
				p.Protocol = model.Protocol(next)
				return p, true
			}
		default:
			p.decodePayload(rest)
			return p, true
		}
	}
}

func (p *Packet) decodePayload(bytes []byte) {
	if len(bytes) < 4 {
		return
	}
	switch p.Protocol {
	case model.TCP, model.UDP, model.SCTP:
		p.SourcePort, p.DestinationPort = binary.BigEndian.Uint16(bytes), binary.BigEndian.Uint16(bytes[2:])
	case icmp4, icmp6:
		p.ICMP = &ICMP{Type: bytes[0], Code: bytes[1]}
	}
}
