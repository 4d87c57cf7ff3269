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
	config := c.before.place.config
	if snapshot.Network != nil {
		config = snapshot.Network.Services
	}
	c.Here = here(self, snapshot.Links)
	c.place = newPlace(self, c.Here, config)
	if c.place.dns = c.before.place.dns; snapshot.Network != nil {
		c.place.dns = snapshot.Network.DNS.Service
	}
	if c.Sysctls.Len() != c.place.sysctls().Len() {
		c.Sysctls = c.place.sysctls()
	}
	c.findSlices()
	c.findServices()
	for i := 0; i < len(c.queue); i++ { // it grows
		c.remove(c.queue[i])
	}
	for _, key := range c.queue {
		c.add(key)
	}
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
	if old, ok := c.groups.Get(service); ok {
		next.keys = slices.Clone(old.keys)
	}
	at, _ := slices.BinarySearchFunc(next.keys, key, func(a, b model.SliceKey) int { return cmp.Compare(a.Name, b.Name) })
	next.keys = slices.Insert(next.keys, at, key)
	c.groups = c.groups.With(service, next)
}

func (c *computation) ungroup(service model.ServiceKey, key model.SliceKey) {
	old, ok := c.groups.Get(service)
	if !ok {
		return
	}
	next := &group{slices.DeleteFunc(slices.Clone(old.keys), func(k model.SliceKey) bool { return k == key })}
	if len(next.keys) == 0 {
		c.groups = c.groups.Without(service)
		return
	}
	c.groups = c.groups.With(service, next)
}

// findServices marks those that changed: all, if the node did, and those that
// have node ports, if only its addresses did.
func (c *computation) findServices() {
	for change := range model.Diff(c.before.services, c.snapshot.Services) {
		c.mark(change.Key)
	}
	same, samePorts := c.place.equal(&c.before.place)
	if same && samePorts {
		return
	}
	for key, s := range c.snapshot.Services.All() {
		if !same || slices.ContainsFunc(s.Ports, func(port model.ServicePort) bool { return port.NodePort != 0 }) {
			c.mark(key)
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
			c.Backends = c.Backends.Without(Pool{port, false}).Without(Pool{port, true})
			c.Serving = c.Serving.Without(port)
		}
	}
	c.countNodePorts(old, -1)
	c.followHealthCheck(old, false)
	c.ClusterIPs, c.clusterHolders = hold(c.ClusterIPs, c.clusterHolders, old.ClusterIPs, -1)
}

// hold counts who holds addresses, and returns those that somebody does.
func hold(held model.Map[netip.Addr, struct{}], holders model.Map[netip.Addr, int], addrs []netip.Addr, by int) (model.Map[netip.Addr, struct{}], model.Map[netip.Addr, int]) {
	for _, addr := range addrs {
		n, _ := holders.Get(addr)
		if n += by; n == 0 {
			held, holders = held.Without(addr), holders.Without(addr)
		} else {
			held, holders = held.With(addr, struct{}{}), holders.With(addr, n)
		}
	}
	return held, holders
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
	slicesOf, _ := c.groups.Get(key)
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
	c.ClusterIPs, c.clusterHolders = hold(c.ClusterIPs, c.clusterHolders, s.ClusterIPs, 1)
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
	c.Backends = c.Backends.With(pool, next)
}

// addServing keeps those that are ready though they do not serve, as
// publishNotReadyAddresses has it.
func (c *computation) addServing(port Port, all []candidate) {
	next := &Serving{targets(all, func(c candidate) bool { return c.Serving || c.Ready })}
	if old, ok := c.before.Serving.Get(port); ok && slices.Equal(old.Targets, next.Targets) {
		next = old
	}
	c.Serving = c.Serving.With(port, next)
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
	for change := range model.Diff(c.before.attachments, c.snapshot.Attachments) {
		if change.Had {
			c.Hairpins, c.podHolders = hold(c.Hairpins, c.podHolders, change.Old.Addresses, -1)
		}
		if change.Has {
			c.Hairpins, c.podHolders = hold(c.Hairpins, c.podHolders, change.New.Addresses, 1)
		}
	}
}
