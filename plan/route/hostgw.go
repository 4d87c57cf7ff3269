package route

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// Backend host-gw has plain routes and nothing else. A peer that is not on-link
// is stranded: its pods are refused here, and a problem names both nodes.

// strands tells whether the backend has no way to some range of a peer.
func (in *input) strands(peer *model.Node) bool {
	if _, ok := in.outer(peer); !ok || in.network.Backend != model.BackendHostGW {
		return false // who has no address in common is the cluster's problem
	}
	return slices.ContainsFunc(peer.PodCIDRs, func(prefix netip.Prefix) bool {
		return !in.onLink(peer, model.FamilyOf(prefix.Addr()))
	})
}

// strandedProblems names the first few peers.
func (p *Plan) strandedProblems() (problems []model.Problem) {
	const most = 10
	if p.stranded.Len() == 0 {
		return nil
	}
	var names []string
	for name := range p.stranded.All() {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names[:min(most, len(names))] {
		peer, _ := p.stranded.Get(name)
		message := fmt.Sprintf("node %s (%s) is not on the network of %s, so its pods cannot be reached from node %s: backend host-gw has no tunnel",
			name, join(peer.Addresses), p.input.uplinkText(), p.input.self.Name)
		if i == most-1 && len(names) > most {
			message += fmt.Sprintf("; nor are %d more", len(names)-most)
		}
		problems = append(problems, p.input.problem("status.addresses", "NodeNotOnLink", message,
			"join the nodes by one network, or set spec.backend of networks.fairlead.io default to vxlan"))
	}
	return problems
}

func join[T fmt.Stringer](items []T) string {
	texts := make([]string, len(items))
	for i, item := range items {
		texts[i] = item.String()
	}
	return strings.Join(texts, ", ")
}

// uplinkText is such as "eth0 (172.30.1.11/24)".
func (in *input) uplinkText() string {
	link := in.uplinks[in.preferred()]
	return fmt.Sprintf("%s (%s)", link.Name, join(link.Addresses))
}
