package drop

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// answered are the kinds of ICMP that another answers, by their types.
var answered = map[model.Protocol]map[uint8]uint8{
	icmp4: {0: 8, 8: 0, 9: 10, 10: 9, 13: 14, 14: 13, 15: 16, 16: 15, 17: 18, 18: 17},
	icmp6: {128: 129, 129: 128, 130: 131, 131: 130, 133: 134, 134: 133, 135: 136, 136: 135, 139: 140, 140: 139, 144: 145, 145: 144},
}

// CommunityID names a connection as other tools do that see it, with the seed 0:
// https://github.com/corelight/community-id-spec, version 1. Both directions
// have the same.
func (p Packet) CommunityID() string {
	ports, turns := [2]uint16{p.SourcePort, p.DestinationPort}, true
	if p.ICMP != nil {
		var answer uint8
		answer, turns = answered[p.Protocol][p.ICMP.Type]
		ports = [2]uint16{uint16(p.ICMP.Type), uint16(answer)}
		if !turns {
			ports[1] = uint16(p.ICMP.Code)
		}
	}
	source, destination := netip.AddrPortFrom(p.Source, ports[0]), netip.AddrPortFrom(p.Destination, ports[1])
	if turns && source.Compare(destination) > 0 {
		source, destination = destination, source
	}
	bytes := slices.Concat([]byte{0, 0}, source.Addr().AsSlice(), destination.Addr().AsSlice(), []byte{byte(p.Protocol), 0})
	switch p.Protocol {
	case model.TCP, model.UDP, model.SCTP, icmp4, icmp6:
		bytes = binary.BigEndian.AppendUint16(bytes, source.Port())
		bytes = binary.BigEndian.AppendUint16(bytes, destination.Port())
	}
	sum := sha1.Sum(bytes)
	return "1:" + base64.StdEncoding.EncodeToString(sum[:])
}
