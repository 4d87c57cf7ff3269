package service

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// candidate is an endpoint at the number that it has a port at.
type candidate struct {
	at netip.AddrPort
	*model.Endpoint
}

// collect finds the endpoints of a port, sorted. An address and number that
// several endpoints have, because a pod's address was given on while the pod
// goes, is the one's that stays (kubernetes#135266).
func (g *group) collect(slicesOf model.Map[model.SliceKey, *model.EndpointSlice], of *model.ServicePort, family model.Family) (all []candidate) {
	if g == nil {
		return nil
	}
	for _, key := range g.keys {
		slice, ok := slicesOf.Get(key)
		if !ok || slice.Family != family {
			continue
		}
		for _, port := range slice.Ports {
			if port.Name != of.Name || port.Protocol != of.Protocol || port.Port == 0 {
				continue
			}
			all = slices.Grow(all, len(slice.Endpoints))
			for i := range slice.Endpoints {
				endpoint := &slice.Endpoints[i]
				if endpoint.Address.IsValid() && model.FamilyOf(endpoint.Address) == family {
					all = append(all, candidate{netip.AddrPortFrom(endpoint.Address, port.Port), endpoint})
				}
			}
		}
	}
	slices.SortStableFunc(all, func(a, b candidate) int {
		return cmp.Or(a.at.Compare(b.at), a.rank()-b.rank(), cmp.Compare(a.Node, b.Node))
	})
	return slices.CompactFunc(all, func(a, b candidate) bool { return a.at == b.at })
}

// rank orders endpoints of one address: the lowest has it.
func (c candidate) rank() (rank int) {
	for i, worse := range []bool{!c.Serving, !c.Ready, c.Terminating} {
		if worse {
			rank |= 1 << i
		}
	}
	return rank
}

// leaving tells whether the endpoint takes connections where none is ready.
func (c candidate) leaving() bool { return c.Serving && c.Terminating }

// nearness is which ready endpoints the hints leave.
type nearness uint8

const (
	anywhere nearness = iota
	sameZone
	sameNode
)

// near is the nearest for which all ready endpoints have hints, one of them for
// here. A single endpoint without hints turns them off: it may be new, and the
// others not have been spread anew.
func (p *place) near(all []candidate) nearness {
	node, zone := true, p.zone != ""
	forNode, forZone := false, false
	for _, c := range all {
		if !c.Ready {
			continue
		}
		if c.Hints == nil {
			return anywhere
		}
		node = node && len(c.Hints.Nodes) > 0
		zone = zone && len(c.Hints.Zones) > 0
		forNode = forNode || slices.Contains(c.Hints.Nodes, p.node)
		forZone = forZone || slices.Contains(c.Hints.Zones, p.zone)
	}
	switch {
	case node && forNode:
		return sameNode
	case zone && forZone:
		return sameZone
	}
	return anywhere
}

// within tells whether an endpoint is as near as that.
func (p *place) within(c candidate, near nearness) bool {
	switch near {
	case sameNode:
		return slices.Contains(c.Hints.Nodes, p.node)
	case sameZone:
		return slices.Contains(c.Hints.Zones, p.zone)
	}
	return true
}

// cluster are the targets among all: the ready ones that are near, or else
// those that are leaving, wherever they are.
func (p *place) cluster(all []candidate) []netip.AddrPort {
	near := p.near(all)
	ready := targets(all, func(c candidate) bool { return c.Ready && p.within(c, near) })
	if len(ready) > 0 {
		return ready
	}
	return targets(all, candidate.leaving)
}

// local are the targets on this node: the ready ones, or else those that are
// leaving, even if others are ready elsewhere. Hints have no say.
func (p *place) local(all []candidate) []netip.AddrPort {
	here := func(c candidate) bool { return c.Node == p.node }
	ready := targets(all, func(c candidate) bool { return here(c) && c.Ready })
	if len(ready) > 0 {
		return ready
	}
	return targets(all, func(c candidate) bool { return here(c) && c.leaving() })
}

// usable tells whether an endpoint takes connections, somewhere.
func usable(all []candidate) bool {
	return slices.ContainsFunc(all, func(c candidate) bool { return c.Ready || c.leaving() })
}

func targets(all []candidate, of func(candidate) bool) []netip.AddrPort {
	count := 0
	for _, c := range all {
		if of(c) {
			count++
		}
	}
	if count == 0 {
		return nil
	}
	chosen := make([]netip.AddrPort, 0, count)
	for _, c := range all {
		if of(c) {
			chosen = append(chosen, c.at)
		}
	}
	return chosen
}
