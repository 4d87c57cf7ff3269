package nftables

import (
	"slices"

	"github.com/fairlead-net/fairlead/plan/policy"
)

// split are the ports of a row, by the map that they are in: what is in one of
// the first two decides, else the protocol, else the default.
type split struct{ single, ranges, protocols []policy.PortRange }

// mostPort is the last.
const mostPort = 1<<16 - 1

// splitPorts has as few ranges as can be: of each protocol, the decision that
// most ports have in ranges is that of the protocol.
func splitPorts(ports *policy.Ports) (s split) {
	for rest := ports.Ranges; len(rest) > 0; {
		n := slices.IndexFunc(rest, func(r policy.PortRange) bool { return r.Protocol != rest[0].Protocol })
		if n < 0 {
			n = len(rest)
		}
		s.splitProtocol(rest[:n], ports.Default)
		rest = rest[n:]
	}
	return s
}

func (s *split) splitProtocol(ranges []policy.PortRange, other policy.Decision) {
	all := withGaps(ranges, other)
	weights := map[policy.Decision]int{}
	most := other
	for _, r := range all {
		if weights[r.Decision] += int(r.To) - int(r.From); weights[r.Decision] > weights[most] {
			most = r.Decision
		}
	}
	if most != other {
		s.protocols = append(s.protocols, policy.PortRange{Protocol: ranges[0].Protocol, To: mostPort, Decision: most})
	}
	for _, r := range all {
		switch {
		case r.Decision == most:
		case r.From == r.To:
			s.single = append(s.single, r)
		default:
			s.ranges = append(s.ranges, r)
		}
	}
}

// withGaps has all ports of a protocol, those that are in no range with another
// decision.
func withGaps(ranges []policy.PortRange, other policy.Decision) (all []policy.PortRange) {
	protocol, next := ranges[0].Protocol, 0
	for _, r := range ranges {
		if int(r.From) > next {
			all = append(all, policy.PortRange{Protocol: protocol, From: uint16(next), To: r.From - 1, Decision: other})
		}
		all = append(all, r)
		next = int(r.To) + 1
	}
	if next <= mostPort {
		all = append(all, policy.PortRange{Protocol: protocol, From: uint16(next), To: mostPort, Decision: other})
	}
	return all
}

// denials are the rules that deny something in a row, each once.
func denials(ports *policy.Ports) (rules []policy.Rule) {
	note := func(d policy.Decision) {
		if !d.Accept && !slices.Contains(rules, d.By) {
			rules = append(rules, d.By)
		}
	}
	note(ports.Default)
	for _, r := range ports.Ranges {
		note(r.Decision)
	}
	return rules
}

// looser tells whether a row allows something that another denies.
func looser(row, than *policy.Ports) bool {
	if row == nil || than == nil {
		return true
	}
	at := []policy.PortRange{{}}
	for _, r := range slices.Concat(row.Ranges, than.Ranges) {
		at = append(at, r, policy.PortRange{Protocol: r.Protocol}, policy.PortRange{Protocol: r.Protocol, From: r.To + 1})
	}
	return slices.ContainsFunc(at, func(r policy.PortRange) bool {
		return row.Decide(r.Protocol, r.From).Accept && !than.Decide(r.Protocol, r.From).Accept
	})
}

// closeLooser closes pods that say less to a group than to others, since who is
// of the group is not known to be.
func (s *policies) closeLooser(group policy.Group, err error) {
	for cell, row := range s.desired.cells.All() {
		if cell.Group != group || group == policy.Others || s.closed[cell.Subject] != nil {
			continue
		}
		name, _ := s.desired.cells.Get(policy.Cell{Subject: cell.Subject})
		others, _ := s.desired.rows.Get(name)
		if own, _ := s.desired.rows.Get(row); looser(others, own) {
			s.close(cell.Subject)(err)
		}
	}
}

// deniedBy tells which rule has a number.
func (s *policies) deniedBy(number uint32) (policy.Rule, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rule, ok := s.names[number]
	if !ok {
		rule, ok = s.former[number]
	}
	return rule, ok
}
