package nftables

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"

	nft "github.com/google/nftables"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/service"
)

// services are the maps that all Services share: see docs/adr/0006. Their
// values are classes and numbers, which packets carry from one lookup to the
// next as their priority (type classid).
type services struct {
	families [len(model.Families)]serviceMaps
	// Sets of others, by family: ranges of pods of all nodes, ClusterIPs, and the
	// ranges that those are in.
	pods, clusterIPs, cidrs []*nft.Set

	applied, desired serviceView
	pools            map[service.Pool]*slots // as they are in the kernel
	numbers          numbers                 // that pools in the kernel have
	chains           map[dispatched]struct{} // classes in the kernel
	stays            stays

	unrecalled bool // the kernel has refused clients that were to stay where they are

	pending update                     // what the last update sent
	aside   map[model.ServiceKey]error // what the kernel has refused during this Apply
}

// CarriesServices implements dataplane.ServiceCarrier.
func (p *Plane) CarriesServices() {}

// serviceView is the part of a plan that is in the maps.
type serviceView struct {
	frontends model.Map[service.VIP, *service.Frontend]
	backends  model.Map[service.Pool, *service.Backends]
}

// serviceMaps are those of a family. VIPs are keys of the first six.
type serviceMaps struct {
	family model.Family

	classes, ids             *nft.Set // of VIPs whoever asks, and numbers of their pools
	outside                  *nft.Set // classes of special VIPs for those outside; numbers are in ids
	inside, insideIDs        *nft.Set // the same for pods and the node
	sources                  *nft.Set // whose packets are masqueraded
	ranges                   *nft.Set // who may call a VIP that is restricted
	slots                    *nft.Set // number of a pool and of a slot: target
	picks, targets, affinity *nft.Set // the same in two steps for sticky pools, and who is bound to which

	dispatch, answers *nft.Set // chains by class: of all classes, and of those that special VIPs have
}

func (m *serviceMaps) all() []*nft.Set {
	return []*nft.Set{
		m.classes, m.ids, m.outside, m.inside, m.insideIDs, m.sources, m.ranges, m.slots, m.picks, m.targets, m.affinity,
		m.dispatch, m.answers,
	}
}

func newServices(pods, clusterIPs, cidrs []*nft.Set) services {
	s := services{pods: pods, clusterIPs: clusterIPs, cidrs: cidrs}
	for _, family := range model.Families {
		s.families[family] = newServiceMaps(family)
	}
	return s
}

// mostBound is how many clients can be bound to targets at a time, in each
// family. One more is not bound, and served all the same.
const mostBound = 1 << 18

func newServiceMaps(family model.Family) serviceMaps {
	suffix, address := [...]string{"4", "6"}[family], []nft.SetDatatype{nft.TypeIPAddr, nft.TypeIP6Addr}[family]
	vip := nft.MustConcatSetType(address, nft.TypeInetProto, nft.TypeInetService)
	target := nft.MustConcatSetType(address, nft.TypeInetService)
	slot := nft.MustConcatSetType(nft.TypeClassID, nft.TypeInteger)
	mapOf := func(name, comment string, key, data nft.SetDatatype) *nft.Set {
		return &nft.Set{Name: name + suffix, Comment: comment, IsMap: true, KeyType: key, DataType: data}
	}
	m := serviceMaps{
		family:    family,
		classes:   mapOf("services", "what is done with packets to addresses of Services", vip, nft.TypeClassID),
		ids:       mapOf("service-pools", "which pool of targets they have", vip, nft.TypeClassID),
		outside:   mapOf("services-outside", "the same, if the answer depends on who asks", vip, nft.TypeClassID),
		inside:    mapOf("services-inside", "for pods and the node itself", vip, nft.TypeClassID),
		insideIDs: mapOf("service-pools-inside", "for pods and the node itself", vip, nft.TypeClassID),
		sources:   mapOf("service-sources", "0:1 masquerade from outside, 0:2 from all, 0:3 from this node", vip, nft.TypeClassID),
		ranges: &nft.Set{
			Name: "service-ranges" + suffix, Comment: "who may call", Interval: true, Concatenation: true,
			KeyType: nft.MustConcatSetType(address, nft.TypeInetProto, nft.TypeInetService, address),
		},
		slots:    mapOf("service-slots", "pool and slot: target", slot, target),
		picks:    mapOf("sticky-slots", "the same, of pools that clients stay with", slot, nft.TypeClassID),
		targets:  mapOf("sticky-targets", "what they lead to", nft.TypeClassID, target),
		affinity: mapOf("sticky-clients", "client and pool: where it stays", clientType(family), nft.TypeClassID),
		dispatch: mapOf("service-chains", "what a class is", nft.TypeClassID, nft.TypeVerdict),
		answers:  mapOf("service-answers", "what a class is, once it is known who asks", nft.TypeClassID, nft.TypeVerdict),
	}
	m.affinity.Dynamic, m.affinity.HasTimeout, m.affinity.Size = true, true, mostBound
	return m
}

// clientType is of a client and a pool. What identifies a client in IPv6 are
// the last 96 bits of its address: nft 1.0.6 cannot load a rule with a key of
// more than 16 bytes. Two clients of the same are bound together, no more.
func clientType(family model.Family) nft.SetDatatype {
	client := nft.TypeIPAddr
	if family == model.IPv6 {
		client = nft.TypeInteger
		client.Bytes = clientLength[family]
	}
	return nft.MustConcatSetType(client, nft.TypeClassID)
}

// clientLength is in bytes.
var clientLength = [...]uint32{model.IPv4: 4, model.IPv6: 12}

// kernel implements mirror.
func (s *services) kernel() (sets []*nft.Set) {
	for i := range s.families {
		sets = append(sets, s.families[i].all()...)
	}
	return sets
}

// Desire says what should be.
func (s *services) Desire(plan *service.Plan) {
	s.desired = serviceView{plan.Frontends, plan.Backends}
}

// Pending is 0 if nothing differs.
func (s *services) Pending() int {
	if s.applied == s.desired {
		return 0
	}
	return 1
}

// create adds the maps, the chains that all VIPs share, and all else that there
// should be.
func (s *services) create(b *batch) error {
	for i := range s.families {
		m := &s.families[i]
		for _, set := range m.all() {
			m.describe(b, set)
			if err := b.AddSet(set, nil); err != nil {
				return fmt.Errorf("add map %s: %w", set.Name, err)
			}
		}
	}
	if err := s.addChains(b); err != nil {
		return err
	}
	if err := s.change(b, b); err != nil || s.unrecalled {
		return err
	}
	return s.rebind(b, s.recall())
}

func (m *serviceMaps) describe(b *batch, set *nft.Set) {
	switch set {
	case m.slots:
		b.describe(set, described{key: typeOfSlot(), data: typeOfTarget(m.family)})
	case m.picks:
		b.describe(set, described{key: typeOfSlot(), data: typeOfPriority(), hostData: true})
	case m.affinity:
		if m.family == model.IPv6 {
			b.describe(set, described{key: typeOfClient6(), data: typeOfPriority(), hostData: true})
			return
		}
		b.describe(set, described{hostData: true})
	case m.targets, m.dispatch, m.answers:
		b.describe(set, described{hostKey: true})
	case m.ranges:
	default:
		b.describe(set, described{hostData: true})
	}
}

// update is what one batch changes, and what is to be known once the kernel has
// taken it.
type update struct {
	*services
	batch    *batch
	chainsIn *batch // where new chains are: see sendAhead
	sets     []*nft.Set
	edits    []edits                 // of each set, those that are not in the batch yet
	changed  map[service.Pool]*slots // nil: gone
	numbers  numbers
	added    []dispatched // that had no chain
	err      error        // the first
}

// dispatched is a class that leads to its chain.
type dispatched struct {
	family  model.Family
	class   uint32
	answers bool // it is in this map, not in that of all
}

// update changes the elements that differ. See elements.update. The chains that they
// need are sent before, by sendAhead.
func (s *services) update(b *batch) error {
	chains, err := newBatch(inPieces)
	if err != nil {
		return err
	}
	chains.link = b.link
	return s.change(b, chains)
}

func (s *services) change(b, chains *batch) error {
	sets := s.kernel()
	u := update{
		services: s, batch: b, chainsIn: chains, sets: sets, edits: make([]edits, len(sets)),
		changed: map[service.Pool]*slots{}, numbers: s.numbers.clone(),
	}
	for change := range model.Diff(s.applied.backends, s.desired.backends) {
		if s.aside[change.Key.Service] == nil {
			u.changePool(change)
		}
	}
	for change := range model.Diff(s.applied.frontends, s.desired.frontends) {
		if !s.hasAside(change) {
			u.changeFrontend(change)
		}
	}
	for i := range sets {
		u.send(i)
	}
	u.batch, u.sets, u.edits = nil, nil, nil
	s.pending = u
	return u.err
}

func (s *services) hasAside(change model.Change[service.VIP, *service.Frontend]) bool {
	return len(s.aside) > 0 &&
		(change.Had && s.aside[change.Old.Port.Service] != nil || change.Has && s.aside[change.New.Port.Service] != nil)
}

func (u *update) changePool(change model.Change[service.Pool, *service.Backends]) {
	of, m := change.Key.Service, &u.families[change.Key.Family]
	old := u.pools[change.Key]
	var next *slots
	switch {
	case !change.Has:
	case old != nil && old.sticky == (change.New.Sticky != 0):
		next = old.become(change.Old, change.New)
	default:
		next = newSlots(change.New, u.numbers.take())
	}
	u.changed[change.Key] = next
	before, after := old, next
	if old != nil && next != nil && old.number != next.number {
		before, after = nil, nil // all of it differs
	}
	u.edit(of, m.poolElements(old, after), m.poolElements(next, before))
	if old != nil && (next == nil || after == nil) {
		u.numbers.give(old.number)
	}
}

func (u *update) changeFrontend(change model.Change[service.VIP, *service.Frontend]) {
	m := &u.families[model.FamilyOf(change.Key.At.Addr())]
	var old, next []element
	var of model.ServiceKey
	if change.Had {
		of = change.Old.Port.Service
		old = u.frontendElements(m, change.Key, change.Old, func(pool service.Pool) uint32 { return u.pools[pool].id() })
	}
	if change.Has {
		of = change.New.Port.Service
		next = u.frontendElements(m, change.Key, change.New, u.number)
		u.need(m, change.New)
	}
	u.edit(of, without(old, next), without(next, old))
}

// number is that of a pool as it will be.
func (u *update) number(pool service.Pool) uint32 {
	if next, ok := u.changed[pool]; ok {
		return next.id()
	}
	return u.pools[pool].id()
}

// need notes the classes of a frontend that have no chain yet.
func (u *update) need(m *serviceMaps, f *service.Frontend) {
	if !f.Special() {
		u.needClass(dispatched{m.family, u.class(f, f.Inside, false), false})
		return
	}
	u.needClass(dispatched{m.family, u.class(f, f.Outside, false), true})
	u.needClass(dispatched{m.family, u.class(f, f.Inside, true), true})
}

func (u *update) needClass(d dispatched) {
	if forwards(d.class) && !u.has(d) && u.err == nil {
		u.err = u.addClass(u.chainsIn, d)
		u.added = append(u.added, d)
	}
}

// has tells whether a class is there, or about to be.
func (u *update) has(d dispatched) bool {
	_, ok := u.chains[d]
	return ok || slices.Contains(u.added, d)
}

// element is one of a map.
type element struct {
	set             *nft.Set
	key, end, value []byte // end: of an interval
}

// without are the elements that others lack, or have with another value.
func without(these, others []element) (left []element) {
	for _, e := range these {
		same := false
		for _, other := range others {
			same = same || e.set == other.set && bytes.Equal(e.key, other.key) &&
				bytes.Equal(e.end, other.end) && bytes.Equal(e.value, other.value)
		}
		if !same {
			left = append(left, e)
		}
	}
	return left
}

// frontendElements are those of a VIP.
func (s *services) frontendElements(m *serviceMaps, vip service.VIP, f *service.Frontend, number func(service.Pool) uint32) (all []element) {
	key := vipKey(vip)
	add := func(set *nft.Set, value uint32) { all = append(all, element{set: set, key: key, value: native(value)}) }
	forwards := false
	answer := func(a service.Answer, classes, ids *nft.Set) {
		add(classes, s.class(f, a, ids == m.insideIDs))
		if a.Do == service.Forward {
			add(ids, number(f.Pool(a)))
			forwards = true
		}
	}
	if !f.Special() {
		answer(f.Inside, m.classes, m.ids)
	} else {
		special := uint32(classSpecial)
		if f.Ranges != nil {
			special = classRestricted
		}
		add(m.classes, special)
		answer(f.Outside, m.outside, m.ids)
		answer(f.Inside, m.inside, m.insideIDs)
		for _, prefix := range f.Ranges {
			low, high := bounds(prefix)
			all = append(all, element{
				set: m.ranges, key: append(bytes.Clone(key), low...), end: append(bytes.Clone(key), high...),
			})
		}
	}
	if forwards {
		add(m.sources, uint32(f.Masquerade))
	}
	return all
}

// vipKey is an address, a protocol and a port.
func vipKey(vip service.VIP) []byte {
	return appendPort(append(vip.At.Addr().AsSlice(), byte(vip.Protocol), 0, 0, 0), vip.At.Port())
}

// bounds are the first and last address of a prefix.
func bounds(prefix netip.Prefix) (low, high []byte) {
	low, high = prefix.Addr().AsSlice(), prefix.Addr().AsSlice()
	for bit := prefix.Bits(); bit < len(high)*8; bit++ {
		high[bit/8] |= 0x80 >> (bit % 8)
	}
	return low, high
}

// sendAhead adds the chains that an update needs, before any element leads to one of
// them. In one transaction a packet might find the element and an empty chain: its rules
// are those of the moment in which it came to the first of them, elements those of the
// moment in which it looks one up (nft_do_chain and nft_set_elem_active, Linux 6.18). It
// would be remembered as a connection to the VIP itself.
func (s *services) sendAhead() ([]refusal, error) {
	if len(s.pending.added) == 0 {
		return nil, nil
	}
	refused, err := s.pending.chainsIn.send()
	if err == nil && len(refused) == 0 {
		s.settleChains()
	}
	return refused, err
}

func (s *services) settleChains() {
	for _, added := range s.pending.added {
		if s.chains == nil {
			s.chains = map[dispatched]struct{}{}
		}
		s.chains[added] = struct{}{}
	}
	s.pending.added, s.pending.chainsIn = nil, nil
}

// settle says that the kernel has taken what create or update sent.
func (s *services) settle() {
	for pool, next := range s.pending.changed {
		if next == nil {
			delete(s.pools, pool)
			continue
		}
		if s.pools == nil {
			s.pools = map[service.Pool]*slots{}
		}
		s.pools[pool] = next
	}
	s.settleChains()
	s.numbers, s.pending = s.pending.numbers, update{}
	if len(s.aside) == 0 {
		s.applied = s.desired
		return
	}
	for change := range model.Diff(s.applied.backends, s.desired.backends) {
		if s.aside[change.Key.Service] != nil {
			continue
		}
		if change.Has {
			s.applied.backends = s.applied.backends.With(change.Key, change.New)
		} else {
			s.applied.backends = s.applied.backends.Without(change.Key)
		}
	}
	for change := range model.Diff(s.applied.frontends, s.desired.frontends) {
		if s.hasAside(change) {
			continue
		}
		if change.Has {
			s.applied.frontends = s.applied.frontends.With(change.Key, change.New)
		} else {
			s.applied.frontends = s.applied.frontends.Without(change.Key)
		}
	}
}

// forget says that the kernel holds nothing.
func (s *services) forget() {
	s.applied, s.pools, s.numbers, s.chains = serviceView{}, nil, numbers{}, nil
}

// retry gives what was put aside another chance.
func (s *services) retry() { s.aside, s.unrecalled = nil, false }

func (s *services) refused(string) (problems []model.Problem) {
	for key, err := range s.aside {
		problems = append(problems, model.Problem{
			Kind: "Service", Namespace: key.Namespace, Name: key.Name, Reason: "KernelRefused",
			Message: fmt.Sprintf("the kernel refused an element of its nftables maps, so it stays as it was: %v", err),
			Remedy:  "see nft list table inet fairlead on the node, and report it with the output of fairlead status",
		})
	}
	return problems
}

// addresses are elements that are addresses.
type addresses = elements[netip.Addr, struct{}]

func newAddresses(name, comment string) addresses {
	return addresses{
		sets: perFamily(name, comment, func(set *nft.Set, address nft.SetDatatype) { set.KeyType = address }),
		encode: func(addr netip.Addr, _ struct{}) (int, []nft.SetElement) {
			return int(model.FamilyOf(addr)), []nft.SetElement{{Key: addr.AsSlice()}}
		},
		named: func(addr netip.Addr) string { return "service refuse " + addr.String() },
	}
}
