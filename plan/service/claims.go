package service

import (
	"fmt"
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
)

// Claim is a VIP that a Service wants on this node, and what is there.
type Claim struct {
	VIP  VIP
	Kind Kind
	Port Port
	// Frontend is what the VIP is now: this Service's, or that of another one
	// which has the better claim.
	Frontend *Frontend
}

// Claims are those of a Service, of one port and family together; nil if there
// is no such Service.
func (p *Plan) Claims(of model.ServiceKey) (all []Claim) {
	s, ok := p.services.Get(of)
	if !ok {
		return nil
	}
	for claim := range claims(s, &p.place) {
		frontend, ok := p.Frontends.Get(claim.vip)
		if !ok {
			continue
		}
		port := Port{of, claim.port.Name, model.FamilyOf(claim.vip.At.Addr())}
		all = append(all, Claim{claim.vip, claim.kind, port, frontend})
	}
	return all
}

// WhyNot says why an answer of a port leads nowhere, in words for people; empty
// if it leads somewhere.
func (p *Plan) WhyNot(of Port, a Answer) string {
	if a.Do == Forward {
		return ""
	}
	all := p.Why(of)
	switch {
	case len(all) == 0:
		return "it has no endpoints"
	case a.Do == Reject && len(all) == 1:
		return "its one endpoint is not ready"
	case a.Do == Reject:
		return fmt.Sprintf("none of its %d endpoints is ready", len(all))
	default:
		return fmt.Sprintf("it has endpoints that take connections, but none on %s, and only such may be used (policy Local)", p.place.node)
	}
}

// Held is what is in a kernel for a VIP, read back.
type Held struct{ Inside, Outside HeldAnswer }

// HeldAnswer is an answer with the targets that it leads to.
type HeldAnswer struct {
	Do      Action
	Targets []netip.AddrPort // by slot
	Holes   int              // slots without a target: such a connection is lost
}
