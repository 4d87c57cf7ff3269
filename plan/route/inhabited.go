package route

import (
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// residents counts the addresses of other nodes by the networks that they are in,
// of each length that ranges of pods have or had: so it is known whether nodes live
// in a range, without a look at all of them.
type residents struct {
	lengths [len(model.Families)][]int
	counts  model.Map[netip.Prefix, int]
}

// inhabited tells whether a node's address is in a range of pods. A route to it
// would take packets to that node with it, those of the tunnel among them.
func (p *Plan) inhabited(prefix netip.Prefix) bool {
	n, _ := p.residents.counts.Get(prefix)
	return n > 0 || slices.ContainsFunc(p.input.self.Addresses, prefix.Contains)
}

// watchLength counts the nodes in networks as long as the range.
func (p *Plan) watchLength(prefix netip.Prefix) {
	family, bits := model.FamilyOf(prefix.Addr()), prefix.Bits()
	if slices.Contains(p.residents.lengths[family], bits) {
		return
	}
	p.residents.lengths[family] = append(slices.Clone(p.residents.lengths[family]), bits)
	for addr, names := range p.addresses.names.All() {
		if model.FamilyOf(addr) == family {
			p.reside(netip.PrefixFrom(addr, bits).Masked(), len(*names))
		}
	}
}

// move counts an address of another node that came (by 1) or went (by -1), and
// plans the ranges again in which it is the first, or was the last.
func (p *Plan) move(addr netip.Addr, by int) {
	for _, bits := range p.residents.lengths[model.FamilyOf(addr)] {
		network := netip.PrefixFrom(addr, bits).Masked()
		before := p.inhabited(network)
		p.reside(network, by)
		if p.inhabited(network) != before {
			p.replanRange(network)
		}
	}
}

func (p *Plan) reside(network netip.Prefix, by int) {
	if n, _ := p.residents.counts.Get(network); n+by != 0 {
		p.residents.counts = p.residents.counts.With(network, n+by)
	} else {
		p.residents.counts = p.residents.counts.Without(network)
	}
}
