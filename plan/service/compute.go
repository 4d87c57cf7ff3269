package service

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// group are the EndpointSlices of one Service, sorted by name.
type group struct{ keys []model.SliceKey }

// computation makes the next plan. Services that are dirty are taken out as
// they were before, and put in as they are now.
type computation struct {
	*Plan          // in the making
	before   *Plan // never nil
	snapshot *model.Snapshot
	dirty    map[model.ServiceKey]struct{}
	queue    []model.ServiceKey // all that are dirty
	checked  []uint16           // ports of HealthChecks to be looked at
	drafts
}

// drafts are of those maps of a plan that have entries of all Services, until they
// are finished.
type drafts struct {
	frontends  *model.Draft[VIP, *Frontend]
	backends   *model.Draft[Pool, *Backends]
	serving    *model.Draft[Port, *Serving]
	clusterIPs *model.Draft[netip.Addr, struct{}]
	grouped    *model.Draft[model.ServiceKey, *group]
}

func draftsOf(p *Plan) drafts {
	return drafts{
		model.DraftOf(p.Frontends), model.DraftOf(p.Backends), model.DraftOf(p.Serving), model.DraftOf(p.ClusterIPs), model.DraftOf(p.groups),
	}
}

func (d *drafts) finish(p *Plan) {
	p.Frontends, p.Backends, p.Serving, p.ClusterIPs = d.frontends.Map(), d.backends.Map(), d.serving.Map(), d.clusterIPs.Map()
	p.groups = d.grouped.Map()
}

// Compute plans the Services of one node and says what is wrong with them. prev
// is the last plan or nil: what a change costs follows the Services that it
// touches. Without the node's own object, prev is returned.
func Compute(prev *Plan, snapshot *model.Snapshot, name string) (*Plan, []model.Problem) {
	self, ok := snapshot.Nodes.Get(name)
	if !ok {
		if prev == nil {
			return nil, nil
		}
		return prev, prev.problems
	}
	c := &computation{Plan: &Plan{}, before: &Plan{}, snapshot: snapshot, dirty: map[model.ServiceKey]struct{}{}}
	if prev != nil {
		*c.Plan, c.before = *prev, prev
	}
	c.drafts = draftsOf(c.before)
	config := c.before.place.config
	if snapshot.Network != nil {
		config = snapshot.Network.Services
	}
	c.Here = here(self, snapshot.Links)
	c.followBalancers()
	c.place = newPlace(self, c.Here, c.balancers, config)
	if c.place.dns = c.before.place.dns; snapshot.Network != nil {
		c.place.dns = snapshot.Network.DNS.Service
	}
	if c.Sysctls.Len() != c.place.sysctls().Len() {
		c.Sysctls = c.place.sysctls()
	}
	c.findSlices()
	c.place.tunnels, c.place.apiServers = snapshot.TunnelPorts(), c.apiServers()
	c.findServices()
	for i := 0; i < len(c.queue); i++ { // it grows
		c.remove(c.queue[i])
	}
	for _, key := range c.queue {
		c.add(key)
	}
	c.finish(c.Plan)
	c.planHealthChecks()
	c.planHealthAddresses()
	c.planCIDRs()
	c.planHairpins()
	c.services, c.slices, c.attachments = snapshot.Services, snapshot.Slices, snapshot.Attachments
	if prev == nil || len(c.queue) > 0 || !slices.Equal(config.NodePortAddresses, c.before.place.config.NodePortAddresses) {
		c.problems = c.findProblems()
	}
	return c.Plan, c.problems
}

// here are the addresses of the node itself.
func here(self *model.Node, links model.Map[string, *model.Link]) (all model.Map[netip.Addr, struct{}]) {
	for _, addr := range self.Addresses {
		all = all.With(addr, struct{}{})
	}
	for _, link := range links.All() {
		for _, prefix := range link.Addresses {
			all = all.With(prefix.Addr(), struct{}{})
		}
	}
	return all
}

func (c *computation) mark(key model.ServiceKey) {
	if _, marked := c.dirty[key]; !marked {
		c.dirty[key] = struct{}{}
		c.queue = append(c.queue, key)
	}
}

// findSlices keeps the groups up to date.
func (c *computation) findSlices() {
	for change := range model.Diff(c.before.slices, c.snapshot.Slices) {
		service := func(slice *model.EndpointSlice) model.ServiceKey {
			return model.ServiceKey{Namespace: slice.Namespace, Name: slice.Service}
		}
		moved := change.Had && change.Has && change.Old.Service != change.New.Service
		if change.Had {
			c.mark(service(change.Old))
			if !change.Has || moved {
				c.ungroup(service(change.Old), change.Key)
			}
		}
		if change.Has {
			c.mark(service(change.New))
			if !change.Had || moved {
				c.group(service(change.New), change.Key)
			}
		}
	}
}

func (c *computation) group(service model.ServiceKey, key model.SliceKey) {
	next := &group{}
	if old, ok := c.grouped.Get(service); ok {
		next.keys = slices.Clone(old.keys)
	}
	at, _ := slices.BinarySearchFunc(next.keys, key, func(a, b model.SliceKey) int { return cmp.Compare(a.Name, b.Name) })
	next.keys = slices.Insert(next.keys, at, key)
	c.grouped.Put(service, next)
}

func (c *computation) ungroup(service model.ServiceKey, key model.SliceKey) {
	old, ok := c.grouped.Get(service)
	if !ok {
		return
	}
	next := &group{slices.DeleteFunc(slices.Clone(old.keys), func(k model.SliceKey) bool { return k == key })}
	if len(next.keys) == 0 {
		c.grouped.Remove(service)
		return
	}
	c.grouped.Put(service, next)
}

// apiServers are where the API servers are, sorted.
func (c *computation) apiServers() (all []netip.AddrPort) {
	from, ok := c.grouped.Get(model.ServiceKey{Namespace: "default", Name: "kubernetes"})
	if !ok {
		return nil
	}
	for _, key := range from.keys {
		slice, _ := c.snapshot.Slices.Get(key)
		for _, port := range slice.Ports {
			for i := range slice.Endpoints {
				all = append(all, netip.AddrPortFrom(slice.Endpoints[i].Address, port.Port))
			}
		}
	}
	slices.SortFunc(all, netip.AddrPort.Compare)
	return slices.Compact(all)
}

// findServices marks those that changed: all, if the node did, and those that
// are reached from outside, if only what matters to these did.
func (c *computation) findServices() {
	for change := range model.Diff(c.before.services, c.snapshot.Services) {
		c.mark(change.Key)
	}
	same, sameOutside := c.place.equal(&c.before.place)
	if same && sameOutside {
		return
	}
	for key, s := range c.snapshot.Services.All() {
		outside := len(s.ExternalIPs) > 0 || len(s.LoadBalancerIPs) > 0 ||
			slices.ContainsFunc(s.Ports, func(port model.ServicePort) bool { return port.NodePort != 0 })
		if !same || outside {
			c.mark(key)
		}
	}
}

// followBalancers counts the addresses of load balancers.
func (c *computation) followBalancers() {
	for change := range model.Diff(c.before.services, c.snapshot.Services) {
		var old, next []netip.Addr
		if change.Had {
			old = change.Old.LoadBalancerIPs
		}
		if change.Has {
			next = change.New.LoadBalancerIPs
		}
		if slices.Equal(old, next) {
			continue
		}
		for _, addr := range next {
			n, _ := c.balancers.Get(addr)
			c.balancers = c.balancers.With(addr, n+1)
		}
		for _, addr := range old {
			n, _ := c.balancers.Get(addr)
			if c.balancers = c.balancers.Without(addr); n > 1 {
				c.balancers = c.balancers.With(addr, n-1)
			}
		}
	}
}

// remove takes out what a Service has claimed and where that led.
func (c *computation) remove(key model.ServiceKey) {
	old, ok := c.before.services.Get(key)
	if !ok {
		return
	}
	for claim := range claims(old, &c.before.place) {
		c.withdraw(key, claim.vip)
	}
	for i := range old.Ports {
		for _, family := range model.Families {
			port := Port{key, old.Ports[i].Name, family}
			c.backends.Remove(Pool{port, false})
			c.backends.Remove(Pool{port, true})
			c.serving.Remove(port)
		}
	}
	c.countNodePorts(old, -1)
	c.followHealthCheck(old, false)
	c.clusterHolders = hold(c.clusterIPs, c.clusterHolders, old.ClusterIPs, -1)
}

// hold counts who holds addresses, and keeps those that somebody does. Of those
// that several do it returns how many.
func hold(held *model.Draft[netip.Addr, struct{}], several model.Map[netip.Addr, int], addrs []netip.Addr, by int) model.Map[netip.Addr, int] {
	for _, addr := range addrs {
		n, ok := several.Get(addr)
		if _, one := held.Get(addr); one && !ok {
			n = 1
		}
		switch n += by; {
		case n <= 0:
			held.Remove(addr)
		case n == 1:
			held.Put(addr, struct{}{})
		}
		if several = several.Without(addr); n > 1 {
			several = several.With(addr, n)
		}
	}
	return several
}

func (c *computation) countNodePorts(s *model.Service, by int) {
	for _, addr := range s.ClusterIPs {
		for _, port := range s.Ports {
			if port.NodePort != 0 {
				c.nodePorts[model.FamilyOf(addr)] += by
			}
		}
	}
}

// add puts in a Service as it is now.
func (c *computation) add(key model.ServiceKey) {
	s, ok := c.snapshot.Services.Get(key)
	if !ok {
		return
	}
	slicesOf, _ := c.grouped.Get(key)
	var frontends [2]*Frontend // inner and outer, of the port and family that come next
	var last Port
	for claim := range claims(s, &c.place) {
		port := Port{key, claim.port.Name, model.FamilyOf(claim.vip.At.Addr())}
		if frontends[0] == nil || port != last {
			frontends[0], frontends[1] = c.addPort(s, claim.port, port, slicesOf)
			last = port
		}
		frontend := frontends[0]
		if claim.kind != ClusterIP {
			outer := *frontends[1]
			outer.Kind, outer.Ranges = claim.kind, c.place.ranges(s, claim)
			frontend = &outer
		}
		c.claim(key, claim.vip, frontend)
	}
	c.countNodePorts(s, 1)
	c.followHealthCheck(s, true)
	c.clusterHolders = hold(c.clusterIPs, c.clusterHolders, s.ClusterIPs, 1)
}

// addPort plans where a port leads: from its ClusterIP, and from elsewhere.
func (c *computation) addPort(s *model.Service, of *model.ServicePort, port Port, from *group) (inner, outer *Frontend) {
	all := from.collect(c.snapshot.Slices, of, port.Family)
	external := of.NodePort != 0 || len(s.ExternalIPs) > 0 || len(s.LoadBalancerIPs) > 0
	none := Answer{Do: Reject}
	if usable(all) {
		none.Do = Drop
	}
	var cluster, local []netip.AddrPort
	if !s.InternalLocal || external {
		cluster = c.place.cluster(c.place.elsewhere(s.ServiceKey, all))
		c.addBackends(Pool{port, false}, cluster, s.Affinity)
	}
	if s.InternalLocal || external && s.ExternalLocal {
		local = c.place.local(all)
		c.addBackends(Pool{port, true}, local, s.Affinity)
	}
	if of.Protocol == model.UDP {
		c.addServing(port, all)
	}
	toCluster, toLocal := answer(none, cluster, false), answer(none, local, true)
	inner = &Frontend{Port: port, Kind: ClusterIP, Sticky: s.Affinity, Inside: toCluster, Outside: toCluster, Masquerade: FromOutside}
	if c.place.config.MasqueradeAll {
		inner.Masquerade = FromAll
	}
	if s.InternalLocal {
		inner.Inside, inner.Outside = toLocal, toLocal
	}
	outer = &Frontend{Port: port, Sticky: s.Affinity, Inside: toCluster, Outside: toCluster, Masquerade: FromAll}
	if s.ExternalLocal {
		outer.Outside, outer.Masquerade = toLocal, FromNode
	}
	return inner, outer
}

func answer(none Answer, targets []netip.AddrPort, local bool) Answer {
	if len(targets) == 0 {
		return none
	}
	return Answer{Forward, local, len(targets)}
}

func (c *computation) addBackends(pool Pool, targets []netip.AddrPort, sticky uint32) {
	if len(targets) == 0 {
		return
	}
	next := &Backends{targets, sticky}
	if old, ok := c.before.Backends.Get(pool); ok && old.Equal(next) {
		next = old
	}
	c.backends.Put(pool, next)
}

// addServing keeps those that are ready though they do not serve, as
// publishNotReadyAddresses has it.
func (c *computation) addServing(port Port, all []candidate) {
	next := &Serving{targets(all, func(c candidate) bool { return c.Serving || c.Ready })}
	if old, ok := c.before.Serving.Get(port); ok && slices.Equal(old.Targets, next.Targets) {
		next = old
	}
	c.serving.Put(port, next)
}

// planCIDRs leaves out ranges that lie in others.
func (c *computation) planCIDRs() {
	if c.cidrs == c.snapshot.ServiceCIDRs {
		return
	}
	c.cidrs = c.snapshot.ServiceCIDRs
	var all []netip.Prefix
	for _, cidr := range c.cidrs.All() {
		all = append(all, cidr.Prefixes...)
	}
	c.CIDRs = model.Map[netip.Prefix, struct{}]{}
	for _, prefix := range disjoint(all) {
		c.CIDRs = c.CIDRs.With(prefix, struct{}{})
	}
}

// disjoint are the ranges that lie in no other.
func disjoint(prefixes []netip.Prefix) (cover []netip.Prefix) {
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	for _, prefix := range prefixes {
		if n := len(cover); n == 0 || !cover[n-1].Overlaps(prefix) {
			cover = append(cover, prefix)
		}
	}
	return cover
}

func (c *computation) planHairpins() {
	hairpins := model.DraftOf(c.Hairpins)
	for change := range model.Diff(c.before.attachments, c.snapshot.Attachments) {
		if change.Had {
			c.podHolders = hold(hairpins, c.podHolders, change.Old.Addresses, -1)
		}
		if change.Has {
			c.podHolders = hold(hairpins, c.podHolders, change.New.Addresses, 1)
		}
	}
	c.Hairpins = hairpins.Map()
}
