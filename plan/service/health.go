package service

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// HealthCheck is what load balancers are told at a port of the node
// (healthCheckNodePort), so that they lead clients of a Service only to nodes
// that have endpoints of it (KEP-1669).
type HealthCheck struct {
	Service model.ServiceKey
	// Local are how many addresses of each family endpoints on this node have that
	// are ready. Those that terminate do not count, though they may get connections
	// still: load balancers are to turn to another node before they are gone.
	Local [len(model.Families)]int
}

// followHealthCheck notes that a Service wants its port, or does not any more.
func (c *computation) followHealthCheck(s *model.Service, wants bool) {
	port := s.HealthCheckNodePort
	if port == 0 {
		return
	}
	next := &contest{}
	if old, ok := c.checks.Get(port); ok {
		next.claimants = slices.DeleteFunc(slices.Clone(old.claimants), func(key model.ServiceKey) bool { return key == s.ServiceKey })
	}
	if wants {
		next.claimants = append(next.claimants, s.ServiceKey)
	}
	c.checks = c.checks.With(port, next)
	if !slices.Contains(c.checked, port) {
		c.checked = append(c.checked, port)
	}
}

// planHealthChecks gives each port to the oldest Service that wants it. The API
// server hands a port out once; two may want one for the moment in which it goes
// from one to the other.
func (c *computation) planHealthChecks() {
	for _, port := range c.checked {
		c.checkContests = c.checkContests.Without(port)
		claims, _ := c.checks.Get(port)
		if len(claims.claimants) == 0 {
			c.checks, c.HealthChecks = c.checks.Without(port), c.HealthChecks.Without(port)
			continue
		}
		owner := slices.MinFunc(claims.claimants, c.compareServices)
		next := &HealthCheck{Service: owner, Local: c.ready(owner)}
		if old, ok := c.before.HealthChecks.Get(port); ok && *old == *next {
			next = old
		}
		c.HealthChecks = c.HealthChecks.With(port, next)
		if len(claims.claimants) > 1 {
			c.checkContests = c.checkContests.With(port, struct{}{})
		}
	}
}

// planHealthAddresses finds where the ports of health checks are: at all addresses
// of the families that the node has, or where the configuration restricts node
// ports to.
func (c *computation) planHealthAddresses() {
	var all []netip.Addr
	for _, family := range model.Families {
		switch any := [...]netip.Addr{model.IPv4: netip.IPv4Unspecified(), model.IPv6: netip.IPv6Unspecified()}[family]; {
		case len(c.place.networks(family)) > 0:
			all = append(all, c.place.ports[family]...)
		case c.place.own[family].IsValid():
			all = append(all, any)
		}
	}
	isNew := func(addr netip.Addr) bool { _, ok := c.HealthAddresses.Get(addr); return !ok }
	if len(all) == c.HealthAddresses.Len() && !slices.ContainsFunc(all, isNew) {
		return
	}
	c.HealthAddresses = model.Map[netip.Addr, struct{}]{}
	for _, addr := range all {
		c.HealthAddresses = c.HealthAddresses.With(addr, struct{}{})
	}
}

// compareServices orders Services of the snapshot, the older one first.
func (c *computation) compareServices(a, b model.ServiceKey) int {
	created := func(key model.ServiceKey) int64 {
		if s, ok := c.snapshot.Services.Get(key); ok {
			return s.Created
		}
		return 0
	}
	return cmp.Or(cmp.Compare(created(a), created(b)), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// ready counts the addresses of a Service's ready endpoints on this node, each
// once, however many ports it has.
func (c *computation) ready(key model.ServiceKey) (count [len(model.Families)]int) {
	s, _ := c.snapshot.Services.Get(key)
	slicesOf, _ := c.groups.Get(key)
	for _, family := range model.Families {
		if !s.ClusterIP(family).IsValid() {
			continue // it is not served
		}
		var all []netip.Addr
		for i := range s.Ports {
			for _, candidate := range slicesOf.collect(c.snapshot.Slices, &s.Ports[i], family) {
				if candidate.Ready && candidate.Node == c.place.node {
					all = append(all, candidate.at.Addr())
				}
			}
		}
		slices.SortFunc(all, netip.Addr.Compare)
		count[family] = len(slices.Compact(all))
	}
	return count
}

// healthProblems names the Services that do not have the port they want.
func (c *computation) healthProblems() (problems []model.Problem) {
	for port := range c.checkContests.All() {
		claims, _ := c.checks.Get(port)
		owner, _ := c.HealthChecks.Get(port)
		for _, key := range claims.claimants {
			if key != owner.Service {
				problems = append(problems, model.Problem{
					Kind: "Service", Namespace: key.Namespace, Name: key.Name, Field: "spec.healthCheckNodePort", Reason: "HealthCheckPortTaken",
					Message: fmt.Sprintf("port %d is that of Service %s already, which keeps it: load balancers are not told which nodes have endpoints", port, owner.Service),
					Remedy:  "make one of the two Services anew, with another port",
				})
			}
		}
	}
	return problems
}
