package policy

import (
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
	plan "github.com/fairlead-net/fairlead/plan/policy"
)

// PortRange are ports of one protocol, both included; From and To are 0 of
// protocols without ports, which are called ICMP.
type PortRange struct {
	Protocol string `json:"protocol"`
	From     uint16 `json:"from"`
	To       uint16 `json:"to"`
}

func (r PortRange) String() string {
	if r.Protocol == protocolName(icmp) {
		return r.Protocol
	}
	protocol, _ := model.ParseProtocol(r.Protocol) // it was written by String
	return rangeText(protocol, r.From, r.To)
}

// protocols are those that are told apart.
var protocols = [...]model.Protocol{model.TCP, model.UDP, model.SCTP, icmp}

// stretch is ports of which each Ports says the same.
type stretch struct {
	protocol model.Protocol
	from, to uint16
}

// stretchesOf cuts all ports so that none of several Ports says two things of
// one stretch; nil says the same of all.
func stretchesOf(all ...*plan.Ports) (cut []stretch) {
	for _, protocol := range protocols {
		edges := []uint16{0}
		for _, ports := range all {
			for i := 0; ports != nil && i < len(ports.Ranges); i++ {
				r := &ports.Ranges[i]
				if r.Protocol != protocol {
					continue
				}
				edges = append(edges, r.From)
				if r.To < 65535 {
					edges = append(edges, r.To+1)
				}
			}
		}
		slices.Sort(edges)
		edges = slices.Compact(edges)
		for i, from := range edges {
			to := uint16(65535)
			if i+1 < len(edges) {
				to = edges[i+1] - 1
			}
			if protocol == icmp {
				to = 0
			}
			cut = append(cut, stretch{protocol, from, to})
		}
	}
	return cut
}

// decide looks a stretch up; nil accepts all.
func (s stretch) decide(ports *plan.Ports) plan.Decision {
	if ports == nil {
		return plan.Decision{Accept: true}
	}
	return ports.Decide(s.protocol, s.from)
}

// join adds a stretch to ranges, which are sorted.
func join(ranges []PortRange, s stretch) []PortRange {
	name := protocolName(s.protocol)
	if n := len(ranges); n > 0 && ranges[n-1].Protocol == name && s.from > 0 && ranges[n-1].To == s.from-1 {
		ranges[n-1].To = s.to
		return ranges
	}
	return append(ranges, PortRange{name, s.from, s.to})
}

// rangesText is for people.
func rangesText(ranges []PortRange) string {
	if len(ranges) == 0 {
		return "none"
	}
	texts := make([]string, len(ranges))
	whole := 0
	for i, r := range ranges {
		texts[i] = r.String()
		if r.From == 0 && (r.To == 65535 || r.Protocol == protocolName(icmp)) {
			whole++
		}
	}
	if whole == len(protocols) {
		return "any"
	}
	return strings.Join(texts, ", ")
}

// pair is a direction from one unit to another in one family: what both ends
// say, in one world.
type pair struct{ egress, ingress *plan.Ports }

// pairOf looks up what both ends say; nil: nobody restricts it.
func (s *survey) pairOf(world int, from, to *unit, family model.Family) pair {
	p := s.worlds[world].plan
	say := func(d model.Direction, at, peer *unit) *plan.Ports {
		if at.like == nil {
			return nil
		}
		subject := plan.Subject{Direction: d, Address: first(at.like.Addresses, family)}
		row, restricted := p.Cells.Get(plan.Cell{Subject: subject, Group: peer.groups[world][family]})
		if !restricted {
			row, restricted = p.Cells.Get(plan.Cell{Subject: subject, Group: plan.Others})
		}
		if !restricted {
			return nil
		}
		ports, _ := p.Rows.Get(row)
		return ports
	}
	return pair{queriesOf(say(model.Egress, from, to), to), say(model.Ingress, to, from)}
}

// queriesOf are ports of the Service of DNS: what policies say of those that it
// has. It refuses the rest.
func queriesOf(ports *plan.Ports, to *unit) *plan.Ports {
	if to.queries == nil {
		return ports
	}
	var only plan.Ports
	for _, port := range to.queries {
		at := stretch{port.Protocol, port.Port, port.Port}
		only.Ranges = append(only.Ranges, plan.PortRange{Protocol: port.Protocol, From: port.Port, To: port.Port, Decision: at.decide(ports)})
	}
	return &only
}

// allowed are the ports that both ends allow.
func (p pair) allowed() (ranges []PortRange) {
	for _, s := range stretchesOf(p.egress, p.ingress) {
		if s.decide(p.egress).Accept && s.decide(p.ingress).Accept {
			ranges = join(ranges, s)
		}
	}
	return ranges
}

// apart tells whether there is a connection from one unit to another that leaves
// the pod: not if it is one pod's to itself.
func apart(from, to *unit, family model.Family) bool {
	return from.has[family] && to.has[family] && (from.like != nil || to.like != nil) && (from != to || from.pods > 1)
}
