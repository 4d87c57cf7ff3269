package nftables

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/masquerade"
)

// translateBeside changes the source to a port that is none of a tunnel.
func translateBeside(tunnels masquerade.Tunnels, family model.Family, to netip.Addr, randomPorts bool) []expr.Any {
	first, last := tunnels.Others()
	ports := func(min, max uint32) []expr.Any {
		return []expr.Any{
			&expr.Immediate{Register: min, Data: binary.BigEndian.AppendUint16(nil, first)},
			&expr.Immediate{Register: max, Data: binary.BigEndian.AppendUint16(nil, last)},
		}
	}
	if !to.IsValid() {
		return append(ports(word0, word4), masqueradePorts(randomPorts))
	}
	return append(append([]expr.Any{&expr.Immediate{Register: word0, Data: to.AsSlice()}}, ports(word4, word8)...),
		&expr.NAT{
			Type: expr.NATTypeSourceNAT, Family: uint32(headers[family].protocol),
			RegAddrMin: word0, RegProtoMin: word4, RegProtoMax: word8, Specified: true, FullyRandom: randomPorts,
		})
}

// masqueradePorts masquerades with the ports from that in word0 to that in
// word4. The library's masquerade has either flags or ports, and without the
// flag that there are ports, the kernel ignores them. So a redirect, of which
// the table has none, stands for it until fixMasquerade.
func masqueradePorts(random bool) *expr.Redir {
	flags := uint32(unix.NF_NAT_RANGE_PROTO_SPECIFIED)
	if random {
		flags |= unix.NF_NAT_RANGE_PROTO_RANDOM_FULLY
	}
	return &expr.Redir{RegisterProtoMin: word0, RegisterProtoMax: word4, Flags: flags}
}

// fixMasquerade makes the masquerade in an encoded rule, if one is stood for,
// out of what stands for it, which is as long.
func fixMasquerade(rule []byte) ([]byte, error) {
	for _, random := range []bool{false, true} {
		standIn := masqueradePorts(random)
		from, err := expr.Marshal(unix.NFPROTO_INET, standIn)
		if err != nil {
			return nil, fmt.Errorf("encode a redirect: %w", err)
		}
		fields, err := netlink.MarshalAttributes([]netlink.Attribute{
			{Type: unix.NFTA_MASQ_REG_PROTO_MIN, Data: binary.BigEndian.AppendUint32(nil, standIn.RegisterProtoMin)},
			{Type: unix.NFTA_MASQ_REG_PROTO_MAX, Data: binary.BigEndian.AppendUint32(nil, standIn.RegisterProtoMax)},
			{Type: unix.NFTA_MASQ_FLAGS, Data: binary.BigEndian.AppendUint32(nil, standIn.Flags)},
		})
		if err != nil {
			return nil, fmt.Errorf("encode a masquerade: %w", err)
		}
		to, err := netlink.MarshalAttributes([]netlink.Attribute{
			{Type: unix.NFTA_EXPR_NAME, Data: []byte("masq\x00")},
			{Type: unix.NLA_F_NESTED | unix.NFTA_EXPR_DATA, Data: fields},
		})
		if err != nil {
			return nil, fmt.Errorf("encode a masquerade: %w", err)
		}
		rule = bytes.Replace(rule, from, to, 1)
	}
	return rule, nil
}
