package nftables

import (
	"encoding/binary"
	"net/netip"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/hostport"
)

// portMap is where ports of the node lead: a map of ports at every address for
// each family, and one of those at one address.
type portMap = elements[hostport.Port, netip.AddrPort]

func newPortMap() portMap {
	everywhere := perFamily("hostports", "at all addresses of the node", func(set *nft.Set, address nft.SetDatatype) {
		set.IsMap = true
		set.KeyType = nft.MustConcatSetType(nft.TypeInetProto, nft.TypeInetService)
		set.DataType = nft.MustConcatSetType(address, nft.TypeInetService)
	})
	somewhere := perFamily("hostip-ports", "at one address of the node", func(set *nft.Set, address nft.SetDatatype) {
		set.IsMap = true
		set.KeyType = nft.MustConcatSetType(address, nft.TypeInetProto, nft.TypeInetService)
		set.DataType = nft.MustConcatSetType(address, nft.TypeInetService)
	})
	return portMap{
		sets: append(everywhere, somewhere...),
		encode: func(port hostport.Port, to netip.AddrPort) (int, []nft.SetElement) {
			addr, in := port.At.Addr(), int(model.FamilyOf(port.At.Addr()))
			key := []byte{byte(port.Protocol), 0, 0, 0}
			if !addr.IsUnspecified() {
				in += len(everywhere)
				key = append(addr.AsSlice(), key...)
			}
			return in, []nft.SetElement{{
				Key: appendPort(key, port.At.Port()),
				Val: appendPort(to.Addr().AsSlice(), to.Port()),
			}}
		},
		named: func(port hostport.Port) string { return "hostport " + port.String() },
	}
}

// appendPort appends one in the four bytes that it has in a concatenation.
func appendPort(to []byte, port uint16) []byte {
	return append(binary.BigEndian.AppendUint16(to, port), 0, 0)
}

// addressPairs are addresses, each twice.
type addressPairs = elements[netip.Addr, struct{}]

func newHairpins() addressPairs {
	return newPairs("hairpins", "pods that reach themselves by a port of the node")
}

func newPairs(name, comment string) addressPairs {
	return addressPairs{
		sets: perFamily(name, comment, func(set *nft.Set, address nft.SetDatatype) {
			set.KeyType = nft.MustConcatSetType(address, address)
		}),
		encode: func(pod netip.Addr, _ struct{}) (int, []nft.SetElement) {
			return int(model.FamilyOf(pod)), []nft.SetElement{{Key: append(pod.AsSlice(), pod.AsSlice()...)}}
		},
		named: func(pod netip.Addr) string { return "hairpin " + pod.String() },
	}
}

// addHostPorts adds the chains that lead packets to ports of the node on to
// pods: those from elsewhere, and the node's own.
func (p *Plane) addHostPorts(b *batch) {
	table := ourTable()
	ports := b.AddChain(&nft.Chain{Table: table, Name: "hostport"})
	prerouting := b.AddChain(&nft.Chain{
		Name: "prerouting", Table: table, Type: nft.ChainTypeNAT,
		Hooknum: nft.ChainHookPrerouting, Priority: nft.ChainPriorityNATDest,
	})
	output := b.AddChain(&nft.Chain{
		Name: "output", Table: table, Type: nft.ChainTypeNAT,
		Hooknum: nft.ChainHookOutput, Priority: nft.ChainPriorityNATDest,
	})
	// The kernel would drop it as a martian, were it not translated first.
	b.rule(prerouting, "only the node reaches its loopback interface", loopback(headers[model.IPv4].dest), then(expr.VerdictReturn, ""))
	b.rule(output, "which no packet from ::1 leaves",
		of(model.IPv6), []expr.Any{destination(model.IPv6, word0), equal(netip.IPv6Loopback().AsSlice()...)}, then(expr.VerdictReturn, ""))
	p.policies.judgeQueries(b, prerouting)
	for _, chain := range []*nft.Chain{prerouting, output} {
		for i := range p.services.families {
			m := &p.services.families[i]
			b.rule(chain, "", of(m.family), then(expr.VerdictJump, m.name("services")))
		}
		b.rule(chain, "", local(), then(expr.VerdictJump, ports.Name))
	}
	for _, family := range model.Families {
		after := word0 + headers[family].words
		b.rule(ports, "", of(family), []expr.Any{
			destination(family, word0), meta(expr.MetaKeyL4PROTO, after), destinationPort(after + 1),
			mapped(p.ports.sets[len(model.Families)+int(family)]), toPod(family),
		})
	}
	for _, family := range model.Families {
		b.rule(ports, "", of(family), []expr.Any{
			meta(expr.MetaKeyL4PROTO, word0), destinationPort(word1), mapped(p.ports.sets[family]), toPod(family),
		})
	}
}

// toPod translates to the address and port that a map has found.
func toPod(family model.Family) expr.Any {
	return &expr.NAT{
		Type: expr.NATTypeDestNAT, Family: uint32(headers[family].protocol),
		RegAddrMin: word0, RegProtoMin: word0 + headers[family].words, Specified: true,
	}
}

// addHairpins makes pods that reach themselves by a port of the node, and the
// node that reaches them by 127.0.0.1, do so with an address of the node: the
// answer would not come back to be translated.
func (p *Plane) addHairpins(b *batch, chain *nft.Chain) {
	for _, family := range model.Families {
		b.rule(chain, "pods that reach themselves", of(family), []expr.Any{
			source(family, word0), destination(family, word0+headers[family].words), in(p.hairpins.sets[family]),
		}, counted(p.rules.own(family)...))
	}
	b.rule(chain, "from 127.0.0.1 to pods", loopback(headers[model.IPv4].source), toPods(), counted(p.rules.own(model.IPv4)...))
}
