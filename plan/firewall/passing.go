package firewall

import (
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// passing is what chains accept, compared with the ranges of all nodes. It is immutable.
type passing struct {
	nodes     model.Map[string, *model.Node] // of which this is
	firewalls *model.Firewalls

	chains map[model.ForwardChain]*accepted
	all    []netip.Prefix // of each family one range that has those of all nodes
}

// accepted is what a chain accepts.
type accepted struct {
	of map[model.PassOf]*prefixes
	// trusts tells, by family, whether it accepts what comes from any pod of the cluster.
	trusts [len(model.Families)]bool
}

// passingOf is that of prev if nothing has changed.
func passingOf(prev *Plan, snapshot *model.Snapshot) *passing {
	if prev != nil && prev.passing != nil && prev.passing.nodes == snapshot.Nodes && prev.passing.firewalls == snapshot.Firewalls {
		return prev.passing
	}
	p := &passing{nodes: snapshot.Nodes, firewalls: snapshot.Firewalls, chains: map[model.ForwardChain]*accepted{}}
	for _, pass := range snapshot.Firewalls.Passes {
		chain := p.chains[pass.Chain]
		if chain == nil {
			chain = &accepted{of: map[model.PassOf]*prefixes{}, trusts: [len(model.Families)]bool{true, true}}
			for _, of := range []model.PassOf{model.FromPods, model.ToPods, model.BySource} {
				chain.of[of] = &prefixes{has: map[netip.Prefix]bool{}}
			}
			p.chains[pass.Chain] = chain
		}
		if set := chain.of[pass.Of]; set != nil {
			set.add(pass.Pods)
		}
	}
	var whole [len(model.Families)]netip.Prefix
	for _, node := range snapshot.Nodes.All() {
		for _, pods := range node.PodCIDRs {
			family := model.FamilyOf(pods.Addr())
			whole[family] = union(whole[family], pods)
			for _, chain := range p.chains {
				chain.trusts[family] = chain.trusts[family] && chain.of[model.BySource].cover(pods)
			}
		}
	}
	p.all = slices.DeleteFunc(whole[:], func(all netip.Prefix) bool { return !all.IsValid() })
	return p
}

// both tells whether a chain accepts what pods send, and what is sent to them: by any pod
// at least.
func (p *passing) both(chain model.ForwardChain, pods netip.Prefix) bool {
	a := p.chains[chain]
	return a != nil && (a.of[model.FromPods].cover(pods) || a.of[model.BySource].cover(pods)) &&
		(a.of[model.ToPods].cover(pods) || a.trusts[model.FamilyOf(pods.Addr())])
}

// prefixes are a set, in which those that have another one in them are found soon.
type prefixes struct {
	has  map[netip.Prefix]bool
	bits []int // lengths that there are
}

func (p *prefixes) add(prefix netip.Prefix) {
	p.has[prefix.Masked()] = true
	if !slices.Contains(p.bits, prefix.Bits()) {
		p.bits = append(p.bits, prefix.Bits())
	}
}

// cover tells whether one of them has all addresses of another prefix.
func (p *prefixes) cover(part netip.Prefix) bool {
	return slices.ContainsFunc(p.bits, func(bits int) bool {
		if bits > part.Bits() {
			return false
		}
		whole, err := part.Addr().Prefix(bits)
		return err == nil && p.has[whole]
	})
}

// union is the smallest prefix that has both; the second one if the first is not valid.
func union(whole, part netip.Prefix) netip.Prefix {
	if !whole.IsValid() {
		return part.Masked()
	}
	for bits := min(whole.Bits(), part.Bits()); ; bits-- {
		if all, err := whole.Addr().Prefix(bits); err != nil || all.Contains(part.Addr()) {
			return all
		}
	}
}
