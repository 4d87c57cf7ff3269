package policy

import (
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// state is what the next plan is made from.
type state struct {
	from       *model.Snapshot // what of it is looked at
	idle       bool            // there are no policies, so that other pods are not kept
	spaces     model.Map[string, *space]
	labelled   model.Map[string, model.Map[string, struct{}]] // names of namespaces by their labels, as key=value, but for that of the name
	owners     model.Map[netip.Addr, *model.Pod]
	contests   model.Map[netip.Addr, *contest]
	here       model.Map[model.PodKey, *attached]
	claims     model.Map[netip.Addr, *claimants]
	subjects   model.Map[netip.Addr, *subject]
	expected   model.Map[model.PodKey, *expected]
	reach      [len(model.Families)]netip.Prefix // of pods and subjects; see reached
	profiles   model.Map[profileKey, *profile]
	compiled   model.Map[model.PolicyKey, *compiled]
	ordered    []*model.ClusterPolicy
	peers      model.Map[string, *peers]
	users      model.Map[string, int] // of peers: how many sides of profiles
	matcher    *matcher               // of peers
	blocks     *blocks                // of peers
	domains    *domains               // of peers
	nodePeers  []*peers               // of peers, sorted
	hosts      model.Map[netip.Addr, *host]
	groups     model.Map[Group, *group]
	among      model.Map[string, model.Map[Group, struct{}]] // groups by the names of what their members are
	later      model.Map[netip.Addr, struct{}]               // addresses to look at again when there is time; see leave
	nameserver *nameserver                                   // nil: none
	rowUsers   model.Map[Row, int]
	ties       []model.Problem // of policies by themselves
	unheard    bool            // no DNS server of this node answers
	zone       string          // of the cluster's names
	suspects   []suspect
	problems   []model.Problem
}

// group are members of the same.
type group struct {
	members []member
	shifts  []shift
	size    int // addresses of pods, and ranges
}

// computation makes the next plan.
type computation struct {
	snapshot *model.Snapshot
	node     string
	before   *Plan // never nil
	ordered  []*model.ClusterPolicy

	spaces   *draft[string, *space]
	labelled *draft[string, model.Map[string, struct{}]]
	owners   *draft[netip.Addr, *model.Pod]
	contests *draft[netip.Addr, *contest]
	here     *draft[model.PodKey, *attached]
	claims   *draft[netip.Addr, *claimants]
	subjects *draft[netip.Addr, *subject]
	expected *draft[model.PodKey, *expected]
	profiles *draft[profileKey, *profile]
	compiled *draft[model.PolicyKey, *compiled]
	peers    *draft[string, *peers]
	users    count[string]
	hosts    *draft[netip.Addr, *host]
	groups   *draft[Group, *group]
	among    *draft[string, model.Map[Group, struct{}]]
	later    *draft[netip.Addr, struct{}]
	rowUsers count[Row]

	pods   *draft[netip.Addr, Group]
	ranges *draft[netip.Prefix, Group]
	cells  *draft[Cell, Row]
	rows   *draft[Row, *Ports]

	nameserver *nameserver
	queries    model.Map[Query, struct{}]

	matcher   *matcher
	blocks    *blocks
	domains   *domains
	nodePeers []*peers
	signer    *search // of matcher

	pace     pace
	touched  map[netip.Addr]struct{} // addresses whose pod changed, or what chooses it
	reselect map[netip.Addr]struct{} // of subjects, whose pod changed
	stale    map[profileKey]struct{} // that other policies may select
	grown    map[Group]int           // how many members have come, less those that went
	formed   map[Group]group         // groups that somebody is in, without their size
	made     map[Row]*Ports
	said     map[said]Row
}

// Compute plans a node, from the plan that was computed last for it or nil: what
// a change costs follows what it changes. It is nil while policies are not
// known.
func Compute(prev *Plan, snapshot *model.Snapshot, node string) (*Plan, []model.Problem) {
	return compute(prev, snapshot, node, usual)
}

func compute(prev *Plan, snapshot *model.Snapshot, node string, pace pace) (*Plan, []model.Problem) {
	if !snapshot.PoliciesKnown {
		return nil, nil
	}
	idle := snapshot.Policies.Len() == 0 && snapshot.ClusterPolicies.Len() == 0
	if prev == nil || prev.from == nil || prev.idle != idle {
		prev = &Plan{state: state{from: &model.Snapshot{}, idle: idle, matcher: newMatcher(), blocks: newBlocks(nil), domains: newDomains(nil)}}
	}
	c := newComputation(prev, snapshot, node)
	c.pace = pace
	c.findHere()
	c.findPods()
	c.findNameserver()
	c.findResolved()
	c.findNamespaces()
	c.findPolicies()
	c.planSubjects()
	c.planProfiles()
	c.planPeers()
	c.tidy()
	c.planGroups()
	c.planCells()
	next := c.done()
	c.planProblems(next)
	return next, next.problems
}

func newComputation(before *Plan, snapshot *model.Snapshot, node string) *computation {
	b := &before.state
	return &computation{
		snapshot: snapshot, node: node, before: before, ordered: b.ordered,
		spaces: draftOf(b.spaces), labelled: draftOf(b.labelled), owners: draftOf(b.owners), contests: draftOf(b.contests), here: draftOf(b.here), claims: draftOf(b.claims),
		subjects: draftOf(b.subjects), expected: draftOf(b.expected), profiles: draftOf(b.profiles), compiled: draftOf(b.compiled),
		peers: draftOf(b.peers), users: countOf(b.users), groups: draftOf(b.groups), among: draftOf(b.among), later: draftOf(b.later), rowUsers: countOf(b.rowUsers),
		pods: draftOf(before.Pods), ranges: draftOf(before.Ranges), cells: draftOf(before.Cells), rows: draftOf(before.Rows),
		matcher: b.matcher, blocks: b.blocks, domains: b.domains, nodePeers: b.nodePeers, hosts: draftOf(b.hosts),
		touched: map[netip.Addr]struct{}{}, reselect: map[netip.Addr]struct{}{}, stale: map[profileKey]struct{}{},
		grown: map[Group]int{}, formed: map[Group]group{}, made: map[Row]*Ports{}, said: map[said]Row{},
	}
}

// lookedAt is the part of a snapshot that plans are made from.
func lookedAt(s *model.Snapshot) *model.Snapshot {
	return &model.Snapshot{
		Pods: s.Pods, Attachments: s.Attachments, Namespaces: s.Namespaces,
		Policies: s.Policies, ClusterPolicies: s.ClusterPolicies,
		Slices:   s.Slices, // of which those of nameserver are
		Resolved: s.Resolved, Nodes: s.Nodes,
	}
}

// alike tells whether nothing differs in what is looked at.
func alike(a, b *model.Snapshot) bool {
	return a.Pods == b.Pods && a.Attachments == b.Attachments && a.Namespaces == b.Namespaces && a.Policies == b.Policies &&
		a.ClusterPolicies == b.ClusterPolicies && a.Slices == b.Slices && a.Resolved == b.Resolved && a.Nodes == b.Nodes
}

func (c *computation) done() *Plan {
	from := lookedAt(c.snapshot)
	return &Plan{
		Pods: c.pods.done(), Ranges: c.ranges.done(), Cells: c.cells.done(), Rows: c.rows.done(), Queries: c.queries,
		CutEstablished: c.snapshot.Network != nil && c.snapshot.Network.Policy.CutEstablished,
		state: state{
			from: from, idle: c.before.idle, reach: c.reached(), ordered: c.ordered, matcher: c.matcher, blocks: c.blocks, domains: c.domains, nameserver: c.nameserver,
			spaces: c.spaces.done(), labelled: c.labelled.done(), owners: c.owners.done(), contests: c.contests.done(), here: c.here.done(), claims: c.claims.done(),
			subjects: c.subjects.done(), expected: c.expected.done(), profiles: c.profiles.done(), compiled: c.compiled.done(),
			peers: c.peers.done(), users: c.users.done(), nodePeers: c.nodePeers, hosts: c.hosts.done(), groups: c.groups.done(), among: c.among.done(), later: c.later.done(), rowUsers: c.rowUsers.done(),
		},
	}
}

// labelsOf are those of a namespace. One that is not known yet has its name, as
// the API server gives it to all.
func (c *computation) labelsOf(namespace string) model.Labels { return labelsOf(c.snapshot, namespace) }

func labelsOf(snapshot *model.Snapshot, namespace string) model.Labels {
	if n, ok := snapshot.Namespaces.Get(namespace); ok {
		return n.Labels
	}
	return model.LabelsOf(map[string]string{namespaceName: namespace})
}

// findNamespaces looks again at the pods of those whose labels changed.
func (c *computation) findNamespaces() {
	for change := range model.Diff(c.before.from.Namespaces, c.snapshot.Namespaces) {
		if change.Had {
			c.label(change.Key, change.Old.Labels, false)
		}
		if change.Has {
			c.label(change.Key, change.New.Labels, true)
		}
		old, next := labelsOf(c.before.from, change.Key), labelsOf(c.snapshot, change.Key)
		if old == next {
			continue
		}
		for key := range c.profiles.base.All() {
			if key.namespace == change.Key {
				c.stale[key] = struct{}{}
			}
		}
		if slices.Equal(c.matcher.namespaces.match(old), c.matcher.namespaces.match(next)) {
			continue
		}
		if of, ok := c.spaces.get(change.Key); ok {
			for _, pod := range of.pods.All() {
				c.touch(pod)
			}
		}
	}
}

// label notes or forgets labels of a namespace.
func (c *computation) label(namespace string, labels model.Labels, on bool) {
	for key, value := range labels.All() {
		if key == namespaceName {
			continue
		}
		label := key + "=" + value
		of, _ := c.labelled.get(label)
		if on {
			of = of.With(namespace, struct{}{})
		} else {
			of = of.Without(namespace)
		}
		if of.Len() == 0 {
			c.labelled.remove(label)
		} else {
			c.labelled.put(label, of)
		}
	}
}

// spacesOf are the namespaces that peers may be in, if they can be told by labels.
func (c *computation) spacesOf(by *matcher) (names []string, told bool) {
	if len(by.anyone) > 0 {
		return nil, false
	}
	for _, s := range by.namespaces.all.All() {
		at := slices.IndexFunc(s.Requirements, func(r model.Requirement) bool { return r.Operator == model.In })
		if at < 0 {
			return nil, false
		}
		for _, value := range s.Requirements[at].Values {
			if s.Requirements[at].Key == namespaceName {
				names = append(names, value)
				continue
			}
			of, _ := c.labelled.get(s.Requirements[at].Key + "=" + value)
			for name := range of.All() {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), true
}

// findPolicies finds the profiles that policies which changed select or did.
func (c *computation) findPolicies() {
	for change := range model.Diff(c.before.from.Policies, c.snapshot.Policies) {
		c.compiled.remove(change.Key)
		c.withPolicy(change.Key, change.New, change.Has)
		for key := range c.profiles.base.All() {
			if key.namespace == change.Key.Namespace &&
				(change.Had && change.Old.Pods.Matches(key.labels) || change.Has && change.New.Pods.Matches(key.labels)) {
				c.stale[key] = struct{}{}
			}
		}
	}
	reorder := false
	for change := range model.Diff(c.before.from.ClusterPolicies, c.snapshot.ClusterPolicies) {
		reorder = true
		c.compiled.remove(model.PolicyKey{Name: change.Key})
		for key := range c.profiles.base.All() {
			labels := c.labelsOf(key.namespace)
			if change.Had && selects(change.Old, labels, key.labels) || change.Has && selects(change.New, labels, key.labels) {
				c.stale[key] = struct{}{}
			}
		}
	}
	if reorder {
		c.ordered = make([]*model.ClusterPolicy, 0, c.snapshot.ClusterPolicies.Len())
		for _, policy := range c.snapshot.ClusterPolicies.All() {
			c.ordered = append(c.ordered, policy)
		}
		slices.SortFunc(c.ordered, compareOrder)
	}
}

// planProfiles makes those of the pods of this node, and of those that it expects, and
// finds out which peers they ask for.
func (c *computation) planProfiles() {
	if len(c.stale)+len(c.reselect)+len(c.expected.set)+len(c.expected.gone) == 0 {
		return
	}
	used := map[profileKey]*model.Pod{}
	for _, e := range c.expected.all() {
		used[e.key] = e.pod
	}
	for _, s := range c.subjects.all() {
		if s.pod != nil {
			used[s.key] = s.pod
		}
	}
	for key, old := range c.profiles.base.All() {
		if _, ok := used[key]; !ok {
			c.profiles.remove(key)
			c.use(old, -1)
		}
	}
	for key, pod := range used {
		old, known := c.profiles.base.Get(key)
		if _, stale := c.stale[key]; known && !stale {
			continue
		}
		policies, clusters := c.selecting(pod)
		if known && slices.Equal(old.policies, policies) && slices.Equal(old.clusters, clusters) {
			continue
		}
		next := c.newProfile(pod, policies, clusters)
		c.profiles.put(key, next)
		c.use(next, 1)
		if known {
			c.use(old, -1)
		}
	}
}

// use counts who asks for peers.
func (c *computation) use(p *profile, by int) {
	for d := range p.sides {
		for _, tier := range p.sides[d].tiers {
			for _, r := range tier {
				for _, p := range r.peers {
					c.users.add(p.name, by)
					if _, known := c.peers.get(p.name); !known {
						c.peers.put(p.name, p) // one for all of that name: blocks are known by it
					}
				}
			}
		}
	}
}
