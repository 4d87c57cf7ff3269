// Package masquerade plans which packets of pods leave with their node's
// address: those from a pod of this node to an address that is no pod's, unless
// the configuration excludes it. That includes other nodes: the network between
// them need not know pods. It is pure.
package masquerade

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// Plan says what to masquerade. It is immutable.
type Plan struct {
	Pods        model.Map[netip.Prefix, struct{}] // sources: the pods of this node; empty: masquerade nothing
	Cluster     model.Map[netip.Prefix, struct{}] // destinations that are left alone: all pods; no two overlap
	Excluded    model.Map[netip.Prefix, struct{}] // and these, which are outside of the cluster; no two overlap
	Sources     [len(model.Families)]netip.Addr   // packets leave with these; invalid: with that of the interface
	RandomPorts bool                              // else a packet's port is kept if it is free
	Tunnels     Tunnels                           // packets to these ports leave from none of them

	// What the next plan is made from.
	exclude []netip.Prefix // as configured
	nodes   model.Map[string, *model.Node]
	holders model.Map[netip.Prefix, int] // how many nodes have this range
	lengths model.Map[length, int]       // how many ranges have this length
}

// length is a prefix length in one family. As long as a family has only one,
// no two of its ranges can overlap.
type length struct {
	family model.Family
	bits   int
}

// Compute plans masquerading on one node and says what is wrong with the
// configuration there. prev is the last plan or nil, and is returned if the
// snapshot does not say enough for another.
func Compute(prev *Plan, snapshot *model.Snapshot, name string) (*Plan, []model.Problem) {
	self, ok := snapshot.Nodes.Get(name)
	if !ok || snapshot.Network == nil {
		return prev, nil
	}
	next := &Plan{}
	if prev != nil {
		*next = *prev
	}
	config := &snapshot.Network.Masquerade
	problems := next.configure(config, self, snapshot.Links)
	next.Tunnels = tunnels(snapshot)
	if prev == nil || !slices.Equal(next.exclude, config.Exclude) {
		next.exclude = config.Exclude
		next.Excluded = cover(slices.Concat(unforwarded[:], config.Exclude))
	}
	overlaps := false
	for change := range model.Diff(next.nodes, snapshot.Nodes) {
		if change.Has {
			overlaps = next.add(change.New.PodCIDRs) || overlaps
		}
		if change.Had {
			overlaps = next.remove(change.Old.PodCIDRs) || overlaps
		}
	}
	if overlaps {
		next.Cluster = cover(next.ranges())
	}
	next.nodes = snapshot.Nodes
	return next, problems
}

// unforwarded are destinations that Linux does not pass on, so that a packet to
// them does not leave the link: multicast, and link-local of IPv6 (RFC 4291
// section 2.5.6). It does pass on that of IPv4: clouds answer there (169.254.169.254),
// and only to nodes.
var unforwarded = [...]netip.Prefix{
	netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8"),
}

// configure plans what depends neither on other nodes nor on destinations.
func (p *Plan) configure(config *model.Masquerade, self *model.Node, links model.Map[string, *model.Link]) (problems []model.Problem) {
	p.RandomPorts = config.RandomPorts
	p.Pods = model.Map[netip.Prefix, struct{}]{}
	p.Sources = [len(model.Families)]netip.Addr{}
	for _, prefix := range self.PodCIDRs {
		if config.On[model.FamilyOf(prefix.Addr())] {
			p.Pods = p.Pods.With(prefix, struct{}{})
		}
	}
	own := addresses(self, links)
	for _, family := range model.Families {
		if !config.On[family] || !self.PodCIDR(family).IsValid() {
			continue
		}
		from := slices.DeleteFunc(slices.Clone(config.From), func(prefix netip.Prefix) bool {
			return model.FamilyOf(prefix.Addr()) != family
		})
		p.Sources[family] = first(own, from)
		if len(from) > 0 && !p.Sources[family].IsValid() {
			problems = append(problems, model.Problem{
				Kind: "Node", Name: self.Name, Field: "masquerade", Reason: "NoMasqueradeAddress",
				Message: fmt.Sprintf("no interface of the node that is up has an address in %s, so pods leave the cluster with that of the interface they leave by", from),
				Remedy:  "give the node an address in one of those ranges, or take them out of spec.masquerade of the Network default",
			})
		}
	}
	return problems
}

// addresses are those that the node has now, its InternalIPs first.
func addresses(self *model.Node, links model.Map[string, *model.Link]) (all []netip.Addr) {
	for _, link := range links.All() {
		for _, prefix := range link.Addresses {
			all = append(all, prefix.Addr())
		}
	}
	rank := func(addr netip.Addr) int {
		if at := slices.Index(self.Addresses, addr); at >= 0 {
			return at
		}
		return len(self.Addresses)
	}
	slices.SortFunc(all, func(a, b netip.Addr) int { return cmp.Or(rank(a)-rank(b), a.Compare(b)) })
	return all
}

// first is the first address in one of the ranges; invalid if there is none.
func first(of []netip.Addr, in []netip.Prefix) netip.Addr {
	for _, addr := range of {
		if slices.ContainsFunc(in, func(prefix netip.Prefix) bool { return prefix.Contains(addr) }) {
			return addr
		}
	}
	return netip.Addr{}
}

// add and remove tell whether the ranges may overlap, so that Cluster has to be
// made anew.
func (p *Plan) add(prefixes []netip.Prefix) (overlaps bool) {
	for _, prefix := range prefixes {
		holders, _ := p.holders.Get(prefix)
		p.holders = p.holders.With(prefix, holders+1)
		if holders == 0 {
			p.Cluster = p.Cluster.With(prefix, struct{}{})
			overlaps = p.count(prefix, 1) || overlaps
		}
	}
	return overlaps
}

func (p *Plan) remove(prefixes []netip.Prefix) (overlaps bool) {
	for _, prefix := range prefixes {
		holders, _ := p.holders.Get(prefix)
		if holders > 1 {
			p.holders = p.holders.With(prefix, holders-1)
			continue
		}
		p.holders = p.holders.Without(prefix)
		p.Cluster = p.Cluster.Without(prefix)
		overlaps = p.count(prefix, -1) || overlaps
	}
	return overlaps
}

func (p *Plan) count(prefix netip.Prefix, by int) (overlaps bool) {
	at := length{model.FamilyOf(prefix.Addr()), prefix.Bits()}
	before := p.distinct(at.family)
	n, _ := p.lengths.Get(at)
	if n+by == 0 {
		p.lengths = p.lengths.Without(at)
	} else {
		p.lengths = p.lengths.With(at, n+by)
	}
	return before > 1 || p.distinct(at.family) > 1
}

func (p *Plan) distinct(family model.Family) (lengths int) {
	for at := range p.lengths.All() {
		if at.family == family {
			lengths++
		}
	}
	return lengths
}

// ranges are those of all nodes.
func (p *Plan) ranges() (all []netip.Prefix) {
	for prefix := range p.holders.All() {
		all = append(all, prefix)
	}
	return all
}

// cover is the ranges that lie in no other.
func cover(prefixes []netip.Prefix) model.Map[netip.Prefix, struct{}] {
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	var cover model.Map[netip.Prefix, struct{}]
	var last netip.Prefix
	for _, prefix := range prefixes {
		if last.IsValid() && last.Overlaps(prefix) {
			continue
		}
		cover, last = cover.With(prefix, struct{}{}), prefix
	}
	return cover
}
