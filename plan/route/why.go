package route

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// Why says in words, for people, why packets reach a peer's pods the way they
// do; empty if there is no such peer, or it has no pods. Families that differ in
// their reason each have one.
func (p *Plan) Why(name string) string {
	peer, ok := p.nodes.Get(name)
	if !ok || name == p.input.self.Name {
		return ""
	}
	var reasons []string
	for _, family := range model.Families {
		if !peer.PodCIDR(family).IsValid() {
			continue
		}
		if reason := p.input.why(peer, family); !slices.Contains(reasons, reason) {
			reasons = append(reasons, reason)
		}
	}
	return strings.Join(reasons, "; ")
}

// why is of one family of the pods.
func (in *input) why(peer *model.Node, family model.Family) string {
	way := in.way(peer, family)
	onLink := in.onLink(peer, family)
	outer, reachable := in.outer(peer)
	switch {
	case way == Direct:
		return fmt.Sprintf("%s is on the network of %s", peer.Address(family), in.uplinks[family].Name)
	case !reachable:
		return "the nodes have no address family in common"
	case way == 0:
		return fmt.Sprintf("%s is not on the network of %s, and backend host-gw has no tunnel", join(peer.Addresses), in.uplinkText())
	}
	reason := ""
	switch own := in.uplinks[family]; {
	case onLink:
		reason = fmt.Sprintf("spec.directRouting of the Network is false, though %s is on the network of %s", peer.Address(family), own.Name)
	case own == nil:
		reason = fmt.Sprintf("this node has no %s address on an interface", family)
	case !peer.Address(family).IsValid():
		reason = fmt.Sprintf("the peer has no %s address", family)
	default:
		reason = fmt.Sprintf("%s is not on the network of %s (%s)", peer.Address(family), own.Name, join(networksOf(own, family)))
	}
	return fmt.Sprintf("%s; %s over %s", reason, way, outer)
}

// networksOf are those of a link in one family, as it has them.
func networksOf(link *model.Link, family model.Family) (texts []fmt.Stringer) {
	for _, prefix := range link.Addresses {
		if model.FamilyOf(prefix.Addr()) == family {
			texts = append(texts, prefix.Masked())
		}
	}
	return texts
}
