package service

import (
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// claim is a VIP that a Service wants.
type claim struct {
	vip  VIP
	kind Kind
	port *model.ServicePort
}

// claims are those of a Service on a node, all of one port and family together.
func claims(s *model.Service, at *place) iter.Seq[claim] {
	return func(yield func(claim) bool) {
		for i := range s.Ports {
			for _, family := range model.Families {
				if s.ClusterIP(family).IsValid() && !claimsOf(s, &s.Ports[i], family, at, yield) {
					return
				}
			}
		}
	}
}

func claimsOf(s *model.Service, port *model.ServicePort, family model.Family, at *place, yield func(claim) bool) bool {
	one := func(kind Kind, addr netip.Addr, number uint16) bool {
		return yield(claim{VIP{port.Protocol, netip.AddrPortFrom(addr, number)}, kind, port})
	}
	if !one(ClusterIP, s.ClusterIP(family), port.Port) {
		return false
	}
	for _, own := range at.nodePorts(family) {
		if port.NodePort != 0 && !one(NodePort, own, port.NodePort) {
			return false
		}
	}
	for _, addr := range s.LoadBalancerIPs {
		if model.FamilyOf(addr) == family && !one(LoadBalancer, addr, port.Port) {
			return false
		}
	}
	for _, addr := range s.ExternalIPs {
		if model.FamilyOf(addr) == family && !one(ExternalIP, addr, port.Port) {
			return false
		}
	}
	return true
}

// ranges are who may call a VIP; nil: all. Only those of load balancers are
// restricted, and a family of which no range is given is not. A node that has
// the VIP itself, and may call, calls from it (kubernetes#109826).
func (p *place) ranges(s *model.Service, of claim) []netip.Prefix {
	if of.kind != LoadBalancer {
		return nil
	}
	family := model.FamilyOf(of.vip.At.Addr())
	var all []netip.Prefix
	for _, prefix := range s.SourceRanges {
		if model.FamilyOf(prefix.Addr()) == family {
			all = append(all, prefix)
		}
	}
	if slices.ContainsFunc(all, func(prefix netip.Prefix) bool { return prefix.Contains(p.own[family]) }) {
		for _, vip := range s.LoadBalancerIPs {
			if model.FamilyOf(vip) == family {
				all = append(all, model.HostPrefix(vip))
			}
		}
	}
	all = disjoint(all)
	if len(all) == 1 && all[0].Bits() == 0 {
		return nil
	}
	return all
}

// contest is a VIP that several Services claim.
type contest struct{ claimants []model.ServiceKey }

// withdraw takes a VIP from a Service. If others claim it, they are to try
// again.
func (c *computation) withdraw(key model.ServiceKey, vip VIP) {
	if owner, ok := c.frontends.Get(vip); ok && owner.Port.Service == key {
		c.frontends.Remove(vip)
	}
	old, contested := c.contests.Get(vip)
	if !contested {
		return
	}
	c.contests = c.contests.Without(vip)
	for _, other := range old.claimants {
		c.mark(other)
	}
}

// claim gives a VIP to a Service, unless nobody may have it, or one with a better claim
// has it.
func (c *computation) claim(key model.ServiceKey, vip VIP, frontend *Frontend) {
	if c.place.reserves(vip, frontend.Kind) {
		c.contend(vip, key)
		return
	}
	if current, taken := c.frontends.Get(vip); taken {
		if owner := current.Port.Service; owner != key {
			c.contend(vip, owner)
			c.contend(vip, key)
		}
		if c.compare(current, frontend) <= 0 {
			return
		}
	}
	if old, ok := c.before.Frontends.Get(vip); ok && old.Equal(frontend) {
		frontend = old
	}
	c.frontends.Put(vip, frontend)
}

func (c *computation) contend(vip VIP, key model.ServiceKey) {
	next := &contest{}
	if old, ok := c.contests.Get(vip); ok {
		if slices.Contains(old.claimants, key) {
			return
		}
		next.claimants = slices.Clone(old.claimants)
	}
	next.claimants = append(next.claimants, key)
	c.contests = c.contests.With(vip, next)
}

// compare orders claims to one VIP, the better one first.
func (c *computation) compare(a, b *Frontend) int {
	created := func(f *Frontend) int64 {
		if s, ok := c.snapshot.Services.Get(f.Port.Service); ok {
			return s.Created
		}
		return 0
	}
	return cmp.Or(
		cmp.Compare(a.Kind, b.Kind), cmp.Compare(created(a), created(b)),
		cmp.Compare(a.Port.Service.Namespace, b.Port.Service.Namespace),
		cmp.Compare(a.Port.Service.Name, b.Port.Service.Name),
		cmp.Compare(a.Port.Name, b.Port.Name),
	)
}

// findProblems names the Services that do not have what they claim.
func (c *computation) findProblems() (problems []model.Problem) {
	for vip, contest := range c.contests.All() {
		owner, ok := c.Frontends.Get(vip)
		for _, key := range contest.claimants {
			switch {
			case !ok:
				problems = append(problems, reserved(key, vip))
			case key != owner.Port.Service:
				problems = append(problems, taken(key, vip, owner))
			}
		}
	}
	for _, family := range model.Families {
		if n := c.nodePorts[family]; n > 0 && len(c.place.ports[family]) == 0 {
			problems = append(problems, c.place.noNodePorts(n, family))
		}
	}
	problems = append(problems, c.healthProblems()...)
	slices.SortFunc(problems, model.Problem.Compare)
	return problems
}

func taken(key model.ServiceKey, vip VIP, owner *Frontend) model.Problem {
	return model.Problem{
		Kind: "Service", Namespace: key.Namespace, Name: key.Name, Reason: "AddressTaken",
		Message: fmt.Sprintf("%s is that of Service %s already (as its %s), which keeps it", vip, owner.Port.Service, owner.Kind),
		Remedy:  "give one of them another address or port",
	}
}

func reserved(key model.ServiceKey, vip VIP) model.Problem {
	of := "an API server"
	if vip.Protocol == model.UDP {
		of = "the tunnels between nodes"
	}
	return model.Problem{
		Kind: "Service", Namespace: key.Namespace, Name: key.Name, Reason: "AddressReserved",
		Message: fmt.Sprintf("%s is that of %s, so that this Service is not reached there", vip, of),
		Remedy:  "give it another address or port",
	}
}
