package nftables

import (
	"net/netip"
	"strings"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/masquerade"
	"github.com/fairlead-net/fairlead/plan/route"
)

// rules is what the rules that give packets an address of the node depend on, and
// whether there is a chain for what is forwarded. All else is in sets.
type rules struct {
	outside, inside [len(model.Families)]netip.Addr // sources of what leaves the cluster, and of what stays on the node or goes to peers directly; invalid: the interface's
	ends            [len(model.Families)]netip.Addr // the node's addresses on tunnels; invalid: it has none
	randomPorts     bool
	tunnels         masquerade.Tunnels
	judged          bool // what is forwarded is: a policy restricts a pod, or packets of 127.0.0.1 could be among it
}

func rulesOf(node *plan.Node) rules {
	r := rules{
		outside: node.Masquerade.Sources, inside: node.HostPort.Own,
		randomPorts: node.Masquerade.RandomPorts, tunnels: node.Masquerade.Tunnels,
		judged: node.Policy.Cells.Len() > 0 || node.Policy.CutEstablished || node.Service.Sysctls.Len() > 0,
	}
	if node.Route != nil {
		for address := range node.Route.Addresses.All() {
			if strings.HasPrefix(address.Device, route.TunnelPrefix) {
				r.ends[model.FamilyOf(address.Prefix.Addr())] = address.Prefix.Addr()
			}
		}
	}
	return r
}

// own gives packets between the node and its pods an address of the node.
func (r rules) own(family model.Family) []expr.Any { return translate(family, r.inside[family], false) }

// translate changes the source. Random ports are for many connections that
// leave at once, lest two pick the same one and the second packet is dropped
// (see nf_nat_used_tuple in the kernel).
func translate(family model.Family, to netip.Addr, randomPorts bool) []expr.Any {
	if !to.IsValid() {
		return []expr.Any{&expr.Masq{FullyRandom: randomPorts}}
	}
	return []expr.Any{
		&expr.Immediate{Register: word0, Data: to.AsSlice()},
		&expr.NAT{
			Type: expr.NATTypeSourceNAT, Family: uint32(headers[family].protocol),
			RegAddrMin: word0, FullyRandom: randomPorts,
		},
	}
}

func postrouting() *nft.Chain {
	return &nft.Chain{
		Name: "postrouting", Table: ourTable(), Type: nft.ChainTypeNAT,
		Hooknum: nft.ChainHookPostrouting, Priority: nft.ChainPriorityNATSource,
	}
}

// fillPostrouting adds the rules to the empty chain. What others decided for a
// connection before stays: the kernel asks them only for its first packet.
func (p *Plane) fillPostrouting(b *batch) {
	chain, r := postrouting(), &p.rules
	p.addHairpins(b, chain)
	b.rule(chain, "", translated(ipsDstNAT), then(expr.VerdictJump, "service-source"))
	for _, family := range model.Families {
		outwards := append(of(family),
			source(family, word0), in(p.pods.sets[family]),
			destination(family, word0), notIn(p.cluster.sets[family]),
			destination(family, word0), notIn(p.excluded.sets[family]))
		for _, port := range r.tunnels {
			if port != 0 {
				b.rule(chain, "no pod's packet looks like one of a tunnel", outwards, toUDP(port),
					counted(translateBeside(r.tunnels, family, r.outside[family], r.randomPorts)...))
			}
		}
		b.rule(chain, "from pods of this node to the outside", outwards,
			counted(translate(family, r.outside[family], r.randomPorts)...))
	}
}
