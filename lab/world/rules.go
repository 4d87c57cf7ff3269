package world

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// cut is one direction of one way between two partitioned machines: a pair of
// hardware addresses, or of addresses of one family.
type cut struct {
	from, to []byte // 6, 4 or 16 bytes
}

// cuts lists every pair of addresses that the partitions keep apart.
func (b fabric) cuts(f faults) ([]cut, error) {
	var cuts []cut
	for _, p := range f.Partitions {
		var sides [2][][]byte
		for i, name := range p {
			m, err := b.world.machine(name)
			if err != nil {
				return nil, err
			}
			for _, port := range m.Ports {
				sides[i] = append(sides[i], hardwareAddr(b.world.Name, name, port.Interface))
				for _, a := range port.Addresses {
					sides[i] = append(sides[i], a.Addr().AsSlice())
				}
			}
		}
		for _, a := range sides[0] {
			for _, b := range sides[1] {
				if len(a) == len(b) {
					cuts = append(cuts, cut{a, b}, cut{b, a})
				}
			}
		}
	}
	return cuts, nil
}

// applyRules replaces the fabric's rules by those of the faults, in one
// transaction, in the network namespace of the calling thread.
func applyRules(f faults, cuts []cut) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("reach the fabric's nftables: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyBridge, Name: "faults"}
	conn.AddTable(table) // so that there is one to delete
	conn.DelTable(table)
	conn.AddTable(table)
	in := conn.AddChain(&nftables.Chain{
		Table: table, Name: "in", Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityFilter,
	})
	out := conn.AddChain(&nftables.Chain{
		Table: table, Name: "out", Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityFilter,
	})
	add := func(chain *nftables.Chain, match []expr.Any) {
		match = append(match, &expr.Verdict{Kind: expr.VerdictDrop})
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: match})
	}
	for _, c := range cuts {
		add(in, c.match())
	}
	for _, port := range slices.Sorted(maps.Keys(f.Loss)) {
		add(in, append(onPort(expr.MetaKeyIIFNAME, port), byChance(f.Loss[port])...))
		add(out, append(onPort(expr.MetaKeyOIFNAME, port), byChance(f.Loss[port])...))
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("set the fabric's rules: %w", err)
	}
	return nil
}

func onPort(key expr.MetaKey, port string) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, port)
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name},
	}
}

func byChance(percent float64) []expr.Any {
	limit := binary.BigEndian.AppendUint32(nil, uint32(percent*100+0.5))
	return []expr.Any{
		&expr.Numgen{Register: 1, Modulus: 10_000, Type: unix.NFT_NG_RANDOM},
		&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 4, Size: 4},
		&expr.Cmp{Op: expr.CmpOpLt, Register: 1, Data: limit},
	}
}

// match matches a packet from one side to the other.
func (c cut) match() []expr.Any {
	size := uint32(len(c.from))
	if size == 6 {
		return slices.Concat(
			field(expr.PayloadBaseLLHeader, 6, c.from),
			field(expr.PayloadBaseLLHeader, 0, c.to))
	}
	protocol, source := uint16(unix.ETH_P_IP), uint32(12)
	if a, _ := netip.AddrFromSlice(c.from); a.Is6() {
		protocol, source = unix.ETH_P_IPV6, 8
	}
	return slices.Concat(
		[]expr.Any{
			&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, protocol)},
		},
		field(expr.PayloadBaseNetworkHeader, source, c.from),
		field(expr.PayloadBaseNetworkHeader, source+size, c.to))
}

// field matches the bytes at an offset of a header.
func field(base expr.PayloadBase, offset uint32, want []byte) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: uint32(len(want))},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: want},
	}
}
