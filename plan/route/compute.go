package route

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// input is what every route of a plan depends on. While it stays equal, only
// what changed among the nodes and pods is planned again.
type input struct {
	network model.Routing
	beside  [2]model.Routing // the former one and the coming one, zero if there is none
	self    *model.Node
	uplinks [len(model.Families)]*model.Link // by family; nil where this node has none
	present [len(model.Families)]bool        // the node's address is on its uplink now
	ra      string                           // names of the links that follow router advertisements, sorted
	flannel string                           // names of flannel's tunnels, sorted
	bridges string                           // names of the links that have pods of this node's range, sorted
	links   string                           // networks of all links, sorted
	service string                           // ranges of ClusterIPs, sorted
}

// Compute plans routing on one node and says what is wrong with the node. prev
// is the last plan or nil; it is returned if the snapshot does not say enough
// for another.
func Compute(prev *Plan, snapshot *model.Snapshot, name string) (*Plan, []model.Problem) {
	self, ok := snapshot.Nodes.Get(name)
	if snapshot.Network == nil || !ok {
		return prev, nil
	}
	in := input{network: snapshot.Network.Routing, self: self, ra: advertised(snapshot.Links)}
	in.flannel, in.bridges = flannelLinks(self, snapshot.Links)
	for i, other := range []*model.Routing{snapshot.Former, snapshot.Coming} {
		if other != nil {
			in.beside[i] = *other
		}
	}
	if prev != nil {
		in.uplinks = prev.input.uplinks
	}
	segments := networks(snapshot.Links)
	in.links = join(segments)
	ranges := clusterIPs(snapshot.ServiceCIDRs)
	in.service = join(ranges)
	problems := in.findUplinks(snapshot.Links)
	if in.uplinks[in.preferred()] == nil {
		return prev, problems
	}
	problems = append(problems, in.problems()...)

	next := &Plan{input: in, segments: segments, clusterIPs: ranges}
	if prev != nil && prev.input == in {
		*next = *prev
	} else {
		next.planSelf()
	}
	nodes, attachments := next.nodes, next.attachments
	next.nodes, next.attachments = snapshot.Nodes, snapshot.Attachments
	for change := range model.Diff(nodes, next.nodes) {
		if change.Key != name {
			next.changePeer(change.Old, change.New)
		}
	}
	for change := range model.Diff(attachments, next.attachments) {
		next.changePod(change.Old, change.New)
	}
	problems = append(problems, next.strandedProblems()...)
	for _, problem := range next.collisions.All() {
		problems = append(problems, problem)
	}
	return next, append(problems, next.ownProblems()...)
}

// findUplinks finds the interface that has the node's address. An uplink that
// is gone for the moment stays in the plan: what was programmed may still work,
// and comes back with the link.
func (in *input) findUplinks(links model.Map[string, *model.Link]) (problems []model.Problem) {
	if len(in.self.Addresses) == 0 {
		problems = append(problems, model.NodeWithoutAddress(in.self.Name))
	}
	for _, family := range model.Families {
		addr := in.self.Address(family)
		if !addr.IsValid() {
			in.uplinks[family] = nil
			continue
		}
		link := holder(links, addr)
		in.present[family] = link != nil
		if link == nil {
			if old := in.uplinks[family]; old != nil && !old.Has(addr) {
				in.uplinks[family] = nil
			}
			problems = append(problems, in.problem("status.addresses", "AddressNotOnNode",
				fmt.Sprintf("no interface that is up has the node's address %s", addr),
				"bring the interface up, or give the kubelet the right --node-ip; one on lo has to be on the interface that leads to the other nodes, too"))
			continue
		}
		// One that only looks new changes no plan.
		if old := in.uplinks[family]; old == nil || !old.Equal(link) {
			in.uplinks[family] = link
		}
	}
	return problems
}

// Uplink finds the interface that carries traffic to other nodes: the one that
// has the node's address, of IPv4 if it has one. It is nil if none has.
func Uplink(links model.Map[string, *model.Link], node *model.Node) *model.Link {
	for _, family := range model.Families {
		if link := holder(links, node.Address(family)); link != nil {
			return link
		}
	}
	return nil
}

// holder finds the interface that has an address; nil if none has.
func holder(links model.Map[string, *model.Link], addr netip.Addr) *model.Link {
	var found *model.Link
	for _, link := range links.All() {
		// The smallest name, lest two holders take turns.
		if link.Has(addr) && (found == nil || link.Name < found.Name) {
			found = link
		}
	}
	return found
}

// advertised names the links that follow router advertisements.
func advertised(links model.Map[string, *model.Link]) string {
	var names []string
	for name, link := range links.All() {
		if link.AcceptsRA {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// networks are those that links are on, sorted. An address alone is no network.
func networks(links model.Map[string, *model.Link]) (found []netip.Prefix) {
	for _, link := range links.All() {
		for _, prefix := range link.Addresses {
			if !prefix.IsSingleIP() && !prefix.Addr().IsLinkLocalUnicast() {
				found = append(found, prefix.Masked())
			}
		}
	}
	slices.SortFunc(found, netip.Prefix.Compare)
	return slices.Compact(found)
}

// preferred is the family that carries tunnels unless a peer lacks it: IPv4 if
// there is a choice, for its smaller header.
func (in *input) preferred() model.Family {
	if in.uplinks[model.IPv4] != nil {
		return model.IPv4
	}
	return model.IPv6
}

// mtu is that of packets on the wire between nodes, in bytes.
func (in *input) mtu(family model.Family) int { return wireMTU(in.network.MTU, in.uplinks[family]) }

func wireMTU(wanted int, link *model.Link) int {
	if wanted == 0 || wanted > link.MTU {
		return link.MTU
	}
	return wanted
}

// minMTU of IPv6: RFC 8200 section 5.
const minMTUIPv6 = 1280

func (in *input) problems() (problems []model.Problem) {
	if len(in.self.PodCIDRs) == 0 {
		problems = append(problems, model.NodeWithoutPodCIDR(in.self.Name))
	}
	for _, family := range model.Families {
		if in.uplinks[family] == nil {
			continue
		}
		if link := in.uplinks[family]; in.network.MTU > link.MTU {
			problems = append(problems, model.Problem{
				Kind: "Network", Name: "default", Field: "spec.mtu", Reason: "MTUTooLarge",
				Message: fmt.Sprintf("%d is more than the %d of %s on node %s, which is used instead",
					in.network.MTU, link.MTU, link.Name, in.self.Name),
				Remedy: "lower spec.mtu, or raise the MTU of the interface",
			})
		}
		way, tunnels := in.tunnelOfIPv6()
		if mtu := in.tunnelMTU(way, family); tunnels && mtu < minMTUIPv6 {
			problems = append(problems, in.problem("", "MTUTooSmall",
				fmt.Sprintf("a tunnel over %s leaves %d bytes, and IPv6 needs 1280", in.uplinks[family].Name, mtu),
				"raise the MTU of the interface"))
		}
	}
	return problems
}

// tunnelOfIPv6 is the one that pods' IPv6 may go through, if there is one.
func (in *input) tunnelOfIPv6() (way Way, tunnels bool) {
	switch {
	case !in.self.PodCIDR(model.IPv6).IsValid():
		return 0, false
	case in.network.Backend == model.BackendUDP:
		return ViaUDP, true
	default:
		return ViaVXLAN, in.carriesVXLAN(&in.network)
	}
}

// ownProblems are those of the node's own ranges.
func (p *Plan) ownProblems() (problems []model.Problem) {
	in := &p.input
	for _, prefix := range in.self.PodCIDRs {
		if segment, ok := p.collides(prefix); ok {
			problems = append(problems, in.problem("spec.podCIDRs", "PodCIDROnLink",
				fmt.Sprintf("%s, the range of its pods, overlaps %s, a network that the node is on; pods may not reach all of either", prefix, segment),
				"if an interface of a network add-on of before has it, delete that when its pods are gone; else give kube-controller-manager another --cluster-cidr"))
		}
	}
	problems = append(problems, in.flannelProblems()...)
	if in.network.Backend == model.BackendIPIP && !in.has(model.IPv4) {
		problems = append(problems, in.problem("status.addresses", "IPIPNeedsIPv4",
			"the node has no IPv4 address on an interface, and backend ipip has no other outer packets; VXLAN is used to and from it",
			"give its kubelet --node-ip with an IPv4 address, or choose backend vxlan"))
	}
	return problems
}

func (in *input) problem(field, reason, message, remedy string) model.Problem {
	return model.Problem{
		Kind: "Node", Name: in.self.Name, Field: field,
		Reason: reason, Message: message, Remedy: remedy,
	}
}

// planSelf plans what no other node or pod decides.
func (p *Plan) planSelf() {
	in := &p.input
	p.Sysctls = sysctls(in)
	for _, prefix := range in.self.PodCIDRs {
		p.planOwnRange(prefix)
	}
	p.planTunnels()
	p.planClusterIPs()
}

// planOwnRange refuses packets to addresses that no pod has, lest the default route
// sends them round in circles. A network that is on a link stays as it is.
func (p *Plan) planOwnRange(prefix netip.Prefix) {
	if p.refuses(prefix) {
		p.Routes = p.Routes.Without(prefix)
		return
	}
	p.Routes = p.Routes.With(prefix, Route{Unreachable: true})
}

// sysctls are the few that the kernel forces on a router. accept_ra comes with
// forwarding: with it, the value 1 stops following advertisements (kernel
// documentation, ip-sysctl, accept_ra).
func sysctls(in *input) model.Map[string, string] {
	settings := map[string]string{}
	if in.self.PodCIDR(model.IPv4).IsValid() {
		settings["net/ipv4/ip_forward"] = "1"
		if in.preferred() == model.IPv6 {
			// The kernel tells pods of the path MTU that a tunnel has learned. Over
			// IPv4 routers divide the outer packets; over IPv6 nobody does, and what
			// is too large would be lost without a word.
			settings["net/ipv4/ip_forward_use_pmtu"] = "1"
		}
	}
	if in.self.PodCIDR(model.IPv6).IsValid() {
		settings["net/ipv6/conf/all/forwarding"] = "1"
		for _, link := range strings.Fields(in.ra) {
			settings["net/ipv6/conf/"+link+"/accept_ra"] = "2"
		}
	}
	if link := in.uplinks[model.IPv4]; link != nil {
		settings[looseFilter(link.Name)] = "2"
	}
	in.besideFlannel(settings)
	return model.MapOf(settings)
}

// looseFilter is the setting for loose reverse path filtering (RFC 3704
// section 2.4): two nodes may disagree whether they are on-link, and then
// packets come another way than they go.
func looseFilter(device string) string { return "net/ipv4/conf/" + device + "/rp_filter" }
