package dns

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// made is what a zone was made of, and what making the next one of it needs.
type made struct {
	options  model.DNSOptions
	services model.Map[model.ServiceKey, *model.Service]
	others   model.Map[model.ServiceKey, *model.Name]
	hosts    model.Map[model.SliceKey, *model.Hosts]
	pods     model.Map[model.PodKey, *model.Pod] // those that have names
	nodes    model.Map[string, *model.Node]
	cidrs    model.Map[string, *model.ServiceCIDR]
	hidden   [len(model.Families)]bool

	groups   model.Map[model.ServiceKey, *group]
	below    model.Map[string, int] // Services of a namespace
	podsIn   model.Map[string, int] // names of pods of a namespace
	podCount model.Map[Name, int]   // pods of one name, where that are several: they share their node's address

	wrong    model.Map[model.ServiceKey, model.Problem]
	problems []model.Problem // sorted
}

// group are the Hosts of one Service, sorted by name.
type group struct{ keys []model.SliceKey }

// computation makes the next zone. Services that are dirty are compared, as they
// were with as they are.
type computation struct {
	*Zone          // in the making
	before   *Zone // never nil
	snapshot *model.Snapshot
	svc      Name // svc.<zone>

	names   draft[Name]
	reverse draft[netip.Addr]
	dirty   map[model.ServiceKey]struct{}
	counted map[string]int // Services that came to a namespace
}

// Compute plans the names of the cluster and says what is wrong with them. prev is
// the last zone or nil: what a change costs follows the Services and pods that it
// touches, and if it touches no name, prev is returned. Until all names are known
// prev is returned as well: nil, at first, for a server that is not to deny any.
func Compute(prev *Zone, snapshot *model.Snapshot) (*Zone, []model.Problem) {
	if snapshot.Network == nil || !snapshot.NamesKnown {
		if prev == nil {
			return nil, nil
		}
		return prev, prev.problems
	}
	origin, err := ParseName(snapshot.Network.DNS.Zone)
	if err != nil || len(origin) <= 1 {
		return prev, []model.Problem{badZone(snapshot.Network.DNS.Zone)}
	}
	if prev != nil && prev.unchanged(snapshot) {
		return prev, prev.problems
	}
	c := begin(prev, snapshot, origin)
	c.findHosts()
	c.findServices()
	c.services, c.others, c.hosts = snapshot.Services, snapshot.Names, snapshot.Hosts
	for key := range c.dirty {
		c.redo(key)
	}
	c.redoNamespaces()
	c.redoPods()
	c.redoApex()
	c.redoRanges()
	c.Zone.names, c.Zone.reverse = c.names.done(), c.reverse.done()
	if c.wrong != c.before.wrong || prev == nil {
		c.problems = c.findProblems()
	}
	if c.same(c.before) {
		c.Serial = c.before.Serial
	}
	return c.Zone, c.problems
}

// begin prepares the next zone. One of another domain has nothing in common with
// the last.
func begin(prev *Zone, snapshot *model.Snapshot, origin Name) *computation {
	c := &computation{Zone: &Zone{}, before: &Zone{}, snapshot: snapshot, dirty: map[model.ServiceKey]struct{}{}, counted: map[string]int{}}
	if prev != nil && prev.Origin == origin {
		*c.Zone, c.before = *prev, prev
	}
	c.options = snapshot.Network.DNS
	c.Origin, c.TTL, c.Serial = origin, c.options.TTL, uint32(snapshot.Revision)
	c.svc = origin.child("svc")
	c.names, c.reverse = newDraft(c.Zone.names), newDraft(c.Zone.reverse)
	if c.empty == nil {
		c.empty = &Records{}
	}
	return c
}

// unchanged tells whether a snapshot says nothing new about names.
func (z *Zone) unchanged(s *model.Snapshot) bool {
	return z.services == s.Services && z.others == s.Names && z.hosts == s.Hosts && z.cidrs == s.ServiceCIDRs &&
		z.nodes == s.Nodes && z.pods == podsNamed(s) && z.options.Equal(&s.Network.DNS) && z.hidden == hiddenFamilies(&s.Network.Masquerade)
}

// same tells whether no answer of two zones differs.
func (z *Zone) same(other *Zone) bool {
	return z.Origin == other.Origin && z.TTL == other.TTL && z.NS == other.NS && z.names == other.names && z.reverse == other.reverse
}

func (c *computation) mark(key model.ServiceKey) { c.dirty[key] = struct{}{} }

// findServices marks those that changed, and counts those that came and went.
func (c *computation) findServices() {
	touched := map[model.ServiceKey]struct{}{}
	for change := range model.Diff(c.before.services, c.snapshot.Services) {
		touched[change.Key] = struct{}{}
	}
	for change := range model.Diff(c.before.others, c.snapshot.Names) {
		touched[change.Key] = struct{}{}
	}
	for key := range touched {
		c.mark(key)
		if was, is := c.before.has(key), has(c.snapshot, key); is && !was {
			c.counted[key.Namespace]++
		} else if was && !is {
			c.counted[key.Namespace]--
		}
	}
}

func (z *Zone) has(key model.ServiceKey) bool {
	_, service := z.services.Get(key)
	_, other := z.others.Get(key)
	return service || other
}

func has(s *model.Snapshot, key model.ServiceKey) bool {
	_, service := s.Services.Get(key)
	_, other := s.Names.Get(key)
	return service || other
}

// findHosts keeps the groups up to date.
func (c *computation) findHosts() {
	groups := map[model.ServiceKey][]model.SliceKey{} // those that change
	of := func(hosts *model.Hosts) model.ServiceKey {
		return model.ServiceKey{Namespace: hosts.Namespace, Name: hosts.Service}
	}
	keys := func(service model.ServiceKey) []model.SliceKey {
		if all, ok := groups[service]; ok {
			return all
		}
		if old, ok := c.groups.Get(service); ok {
			return slices.Clone(old.keys)
		}
		return nil
	}
	byName := func(a, b model.SliceKey) int { return cmp.Compare(a.Name, b.Name) }
	for change := range model.Diff(c.before.hosts, c.snapshot.Hosts) {
		moved := change.Had && change.Has && change.Old.Service != change.New.Service
		if change.Had {
			c.mark(of(change.Old))
		}
		if change.Had && (!change.Has || moved) {
			all := keys(of(change.Old))
			if at, ok := slices.BinarySearchFunc(all, change.Key, byName); ok {
				all = slices.Delete(all, at, at+1)
			}
			groups[of(change.Old)] = all
		}
		if change.Has {
			c.mark(of(change.New))
		}
		if change.Has && (!change.Had || moved) {
			all := keys(of(change.New))
			at, _ := slices.BinarySearchFunc(all, change.Key, byName)
			groups[of(change.New)] = slices.Insert(all, at, change.Key)
		}
	}
	if c.groups.Len() == 0 { // all at once
		c.groups = model.Collect(func(yield func(model.ServiceKey, *group) bool) {
			for service, all := range groups {
				if len(all) > 0 && !yield(service, &group{all}) {
					return
				}
			}
		})
		return
	}
	for service, all := range groups {
		if len(all) == 0 {
			c.groups = c.groups.Without(service)
		} else {
			c.groups = c.groups.With(service, &group{all})
		}
	}
}

// redoNamespaces makes those exist that have Services.
func (c *computation) redoNamespaces() {
	for namespace, by := range c.counted {
		if by == 0 {
			continue
		}
		n, _ := c.below.Get(namespace)
		if n += by; n == 0 {
			c.below = c.below.Without(namespace)
			c.names.without(c.svc.child(namespace))
			continue
		}
		c.below = c.below.With(namespace, n)
		c.names.with(c.svc.child(namespace), c.empty)
	}
}

// redoApex plans what every zone has.
func (c *computation) redoApex() {
	c.NS = c.svc.child(c.options.Service.Namespace).child(c.options.Service.Name)
	c.names.with(c.Origin, c.empty)
	c.names.with(c.svc, c.empty)
	c.names.with(c.Origin.child("dns-version"), &Records{TXT: []string{version}})
}

// version is that of the specification.
const version = "1.1.0"

func (c *computation) redoRanges() {
	hidden := hiddenFamilies(&c.snapshot.Network.Masquerade)
	changed := c.own.all == nil || c.cidrs != c.snapshot.ServiceCIDRs || c.hidden != hidden
	for change := range model.Diff(c.nodes, c.snapshot.Nodes) {
		if changed {
			break
		}
		changed = !change.Had || !change.Has || !slices.Equal(change.Old.PodCIDRs, change.New.PodCIDRs)
	}
	c.nodes, c.cidrs, c.hidden = c.snapshot.Nodes, c.snapshot.ServiceCIDRs, hidden
	if changed {
		c.own = ownRanges(c.snapshot)
	}
}
