package world

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Headers are what a packet's headers say.
type Headers struct {
	Source, Destination         netip.Addr
	Protocol                    int    // IP protocol number of the payload
	HopLimit                    int    // TTL
	SourcePort, DestinationPort uint16 // of TCP and UDP
	Echo                        string // "request" or "reply", of ICMP and ICMPv6
	EchoID, EchoSequence        uint16
	VNI                         int      // of VXLAN
	Inner                       *Headers // the packet in a VXLAN or IP tunnel
}

// Inmost is the packet that a machine or pod sent, without tunnels.
func (h Headers) Inmost() Headers {
	for h.Inner != nil {
		h = *h.Inner
	}
	return h
}

// The UDP ports of VXLAN: the standard one and Linux's default.
const (
	vxlanPort      = 4789
	vxlanLinuxPort = 8472
)

// Headers decodes a packet; ok is false if it is no IP packet, or cut short.
func (p Packet) Headers() (h Headers, ok bool) {
	if p.ethernet {
		return decodeEthernet(p.Raw)
	}
	return decodeIP(p.Raw)
}

// Summary is one line about a packet, such as
//
//	n1 eth0 out 148 bytes: 10.1.0.11:4321 > 10.2.0.13:8472 udp, vxlan 1: 10.244.0.2 > 10.244.1.3 icmp echo request 7/1
func (p Packet) Summary() string {
	what := "not IP"
	if h, ok := p.Headers(); ok {
		what = h.String()
	} else if p.ethernet && len(p.Raw) >= 14 {
		what = fmt.Sprintf("ethertype %#04x", binary.BigEndian.Uint16(p.Raw[12:]))
		if what == "ethertype 0x0806" {
			what = "arp"
		}
	}
	return fmt.Sprintf("%s %s %s %d bytes: %s", p.Machine, p.Interface, p.Direction, p.Length, what)
}

// String is the line of tcpdump in short.
func (h Headers) String() string {
	source, destination := h.Source.String(), h.Destination.String()
	name := fmt.Sprintf("protocol %d", h.Protocol)
	switch h.Protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP:
		name = "tcp"
		if h.Protocol == unix.IPPROTO_UDP {
			name = "udp"
		}
		source = netip.AddrPortFrom(h.Source, h.SourcePort).String()
		destination = netip.AddrPortFrom(h.Destination, h.DestinationPort).String()
	case unix.IPPROTO_ICMP:
		name = "icmp"
	case unix.IPPROTO_ICMPV6:
		name = "icmpv6"
	}
	line := fmt.Sprintf("%s > %s %s", source, destination, name)
	if h.Echo != "" {
		line += fmt.Sprintf(" echo %s %d/%d", h.Echo, h.EchoID, h.EchoSequence)
	}
	if h.Inner != nil {
		tunnel := "in IP"
		if h.Protocol == unix.IPPROTO_UDP {
			tunnel = fmt.Sprintf("vxlan %d", h.VNI)
		}
		line += fmt.Sprintf(", %s: %s", tunnel, h.Inner)
	}
	return line
}

func decodeEthernet(b []byte) (Headers, bool) {
	if len(b) < 14 {
		return Headers{}, false
	}
	switch binary.BigEndian.Uint16(b[12:]) {
	case unix.ETH_P_IP, unix.ETH_P_IPV6:
		return decodeIP(b[14:])
	}
	return Headers{}, false
}

func decodeIP(b []byte) (Headers, bool) {
	var h Headers
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		size := int(b[0]&15) * 4
		if size < 20 || len(b) < size {
			return h, false
		}
		h.Source, h.Destination = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		h.Protocol, h.HopLimit = int(b[9]), int(b[8])
		if binary.BigEndian.Uint16(b[6:])&0x1fff == 0 { // the first fragment, or whole
			h.decodePayload(b[size:])
		}
		return h, true
	case len(b) >= 40 && b[0]>>4 == 6:
		h.Source, h.Destination = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		h.HopLimit = int(b[7])
		next, payload := skipExtensions(int(b[6]), b[40:])
		h.Protocol = next
		h.decodePayload(payload)
		return h, true
	}
	return h, false
}

// skipExtensions finds the payload behind IPv6 extension headers (RFC 8200,
// section 4); there is none in a later fragment.
func skipExtensions(next int, b []byte) (int, []byte) {
	for len(b) >= 8 {
		switch next {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS:
			next, b = int(b[0]), b[min(len(b), 8+int(b[1])*8):]
		case unix.IPPROTO_FRAGMENT:
			if binary.BigEndian.Uint16(b[2:])>>3 != 0 {
				return int(b[0]), nil
			}
			next, b = int(b[0]), b[8:]
		default:
			return next, b
		}
	}
	return next, b
}

func (h *Headers) decodePayload(b []byte) {
	if h.Protocol == unix.IPPROTO_IPIP || h.Protocol == unix.IPPROTO_IPV6 {
		if inner, ok := decodeIP(b); ok {
			h.Inner = &inner
		}
		return
	}
	if len(b) < 8 {
		return
	}
	switch h.Protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP:
		h.SourcePort, h.DestinationPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		isVXLAN := h.DestinationPort == vxlanPort || h.DestinationPort == vxlanLinuxPort
		if h.Protocol != unix.IPPROTO_UDP || !isVXLAN || len(b) < 16 || b[8]&0x08 == 0 { // the I flag, RFC 7348
			return
		}
		if inner, ok := decodeEthernet(b[16:]); ok {
			h.VNI, h.Inner = int(binary.BigEndian.Uint32(b[12:])>>8), &inner
		}
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		echo := map[byte]string{8: "request", 0: "reply"}
		if h.Protocol == unix.IPPROTO_ICMPV6 {
			echo = map[byte]string{128: "request", 129: "reply"}
		}
		if h.Echo = echo[b[0]]; h.Echo != "" {
			h.EchoID, h.EchoSequence = binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:])
		}
	}
}
