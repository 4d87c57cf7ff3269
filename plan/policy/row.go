package policy

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// protocols are those with ports, sorted.
var protocols = [...]model.Protocol{model.TCP, model.UDP, model.SCTP}

// stretch is ports of which all rules say the same.
type stretch struct {
	from   uint16
	stage  stage
	denied Rule
}

// stage is how far a connection has come.
type stage uint8

const (
	asked  stage = iota // no rule has fit yet
	passed              // one left it to the next tier
	accepted
	denied
)

func (s stretch) decision() Decision {
	if s.stage == denied {
		return Decision{By: s.denied}
	}
	return Decision{Accept: true}
}

// strip is all ports of a protocol, sorted.
type strip []stretch

// decide is a rule's say on some ports.
func (s strip) decide(f *fitting, from, to uint16) {
	at, _ := slices.BinarySearchFunc(s, from, func(s stretch, port uint16) int { return int(s.from) - int(port) })
	for ; at < len(s) && s[at].from <= to; at++ {
		if s[at].stage != asked {
			continue
		}
		switch f.action {
		case model.Accept:
			s[at].stage = accepted
		case model.Deny:
			s[at].stage, s[at].denied = denied, f.by
		case model.Pass:
			s[at].stage = passed
		}
	}
}

// canvas is all protocols; the last stands for those without ports.
type canvas [len(protocols) + 1]strip

// finish decides what nobody has.
func (c *canvas) finish(as stage, by Rule) {
	for i := range c {
		for j := range c[i] {
			if c[i][j].stage == asked {
				c[i][j].stage, c[i][j].denied = as, by
			}
		}
	}
}

// fittings are the rules of all tiers that fit somebody.
type fittings [model.BaselineTier + 1][]*fitting

// fit finds the rules that fit members of a group. Who has the same key has the
// same rules.
func (s *side) fit(members []member) (all fittings, key string) {
	var text []byte
	for tier, rules := range s.tiers {
		for i, r := range rules {
			f := r.fit(members)
			if f == nil {
				continue
			}
			all[tier] = append(all[tier], f)
			text = binary.AppendUvarint(append(text, byte(tier)), uint64(i))
			if f.named {
				text = fmt.Append(text, f.ports)
			}
		}
	}
	return all, string(text)
}

// ports fold the tiers: they say what becomes of connections that rules fit. A
// pod that calls itself is free of NetworkPolicies.
func (s *side) ports(tiers fittings, itself bool) *Ports {
	var edges [len(protocols) + 1][]uint16
	for _, tier := range tiers {
		for _, f := range tier {
			for _, port := range f.ports {
				if at := slices.Index(protocols[:], port.Protocol); at >= 0 {
					edges[at] = append(edges[at], port.From)
					if port.To < 65535 {
						edges[at] = append(edges[at], port.To+1)
					}
				}
			}
		}
	}
	var c canvas
	for i := range c {
		edges[i] = append(edges[i], 0)
		slices.Sort(edges[i])
		for _, edge := range slices.Compact(edges[i]) {
			c[i] = append(c[i], stretch{from: edge})
		}
	}
	c.paint(tiers[model.AdminTier])
	switch {
	case s.isolated == nil:
		c.paint(tiers[model.BaselineTier])
	case itself:
		c.finish(accepted, Rule{})
	default:
		c.paint(tiers[model.NamespaceTier])
		c.finish(denied, *s.isolated)
	}
	return c.ports()
}

// fitting is a rule of which the other end is one.
type fitting struct {
	*rule
	ports []model.PolicyPort // numbers all
	named bool               // some of them had names
}

// fit is nil if the other end, that of members, is none of the rule's peers.
func (r *rule) fit(members []member) *fitting {
	as := r.among(members)
	if !r.anyone && as == nil {
		return nil
	}
	f := &fitting{rule: r, ports: r.ports}
	if len(r.peers) == 0 || len(r.peers[0].names) == 0 {
		return f
	}
	f.ports, f.named = nil, true
	for _, port := range r.ports {
		if port.Name != "" {
			at := slices.Index(r.peers[0].names, portName{port.Protocol, port.Name})
			if as == nil || as.ports == nil || as.ports[at] == 0 {
				continue
			}
			port = model.PolicyPort{Protocol: port.Protocol, From: as.ports[at], To: as.ports[at]}
		}
		f.ports = append(f.ports, port)
	}
	return f
}

// among finds one of the members that is one of the rule's peers. Both are
// sorted by name.
func (r *rule) among(members []member) *member {
	for i, j := 0, 0; i < len(r.peers) && j < len(members); {
		switch by := strings.Compare(r.peers[i].name, members[j].name); {
		case by == 0:
			return &members[j]
		case by < 0:
			i++
		default:
			j++
		}
	}
	return nil
}

// paint asks the rules of a tier, one after the other.
func (c *canvas) paint(rules []*fitting) {
	for _, f := range rules {
		if f.any {
			for i := range c {
				c[i].decide(f, 0, 65535)
			}
			continue
		}
		for _, port := range f.ports {
			if at := slices.Index(protocols[:], port.Protocol); at >= 0 {
				c[at].decide(f, port.From, port.To)
			}
		}
	}
	for i := range c {
		for j := range c[i] {
			if c[i][j].stage == passed {
				c[i][j].stage = asked
			}
		}
	}
}

// ports make the canvas short: what differs from that of protocols without
// ports, and nothing twice.
func (c *canvas) ports() *Ports {
	p := &Ports{Default: c[len(protocols)][0].decision()}
	for i, protocol := range protocols {
		for j, s := range c[i] {
			decision, to := s.decision(), uint16(65535)
			if j+1 < len(c[i]) {
				to = c[i][j+1].from - 1
			}
			if decision == p.Default {
				continue
			}
			if n := len(p.Ranges); n > 0 && p.Ranges[n-1] == (PortRange{protocol, p.Ranges[n-1].From, s.from - 1, decision}) && s.from > 0 {
				p.Ranges[n-1].To = to
				continue
			}
			p.Ranges = append(p.Ranges, PortRange{protocol, s.from, to, decision})
		}
	}
	return p
}
