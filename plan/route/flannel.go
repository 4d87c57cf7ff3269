package route

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// A cluster that moves from flannel has nodes of both for a while. Flannel leaves
// all that it has put into the kernel when it ends, so that its tunnel works on
// both sides between any two nodes, whichever of the two networks runs there. As
// long as a Node says that it is flannel's, the route to its pods that flannel has
// made is left in its place; when it no longer does, ours takes that place. See
// docs/adr/0006-beside-flannel.md.

// FlannelPrefix begins the names of flannel's tunnel devices (flannel.1,
// flannel-v6.1).
const FlannelPrefix = "flannel"

// flannelLinks names flannel's tunnels, and the bridges that have the range of
// this node's pods, each list sorted.
func flannelLinks(self *model.Node, links model.Map[string, *model.Link]) (tunnels, bridges string) {
	own := self.PodCIDR(model.IPv4)
	var found [2][]string
	for name, link := range links.All() {
		has := func(prefix netip.Prefix) bool { return own.IsValid() && prefix.Masked() == own }
		switch {
		case strings.HasPrefix(name, FlannelPrefix):
			found[0] = append(found[0], name)
		case slices.ContainsFunc(link.Addresses, has):
			found[1] = append(found[1], name)
		}
	}
	slices.Sort(found[0])
	slices.Sort(found[1])
	return strings.Join(found[0], " "), strings.Join(found[1], " ")
}

// besideFlannel adds the settings that the two need beside each other. What a
// peer sends through flannel's tunnel may be answered another way. And a pod on
// a bridge takes the whole range for its neighbours: the node answers its ARP
// requests for pods that are on links of their own, and at once. (There is no
// such setting for IPv6: for it, each address would have to be named.)
func (in *input) besideFlannel(settings map[string]string) {
	for _, tunnel := range strings.Fields(in.flannel) {
		settings[looseFilter(tunnel)] = "2"
	}
	for _, bridge := range strings.Fields(in.bridges) {
		settings["net/ipv4/conf/"+bridge+"/proxy_arp"] = "1"
		settings["net/ipv4/neigh/"+bridge+"/proxy_delay"] = "0"
	}
}

// flannelProblems says that nodes of flannel cannot send to this node's pods: they
// do so through a tunnel that a reboot takes away.
func (in *input) flannelProblems() []model.Problem {
	if in.self.Flannel != "vxlan" || in.flannel != "" || !in.has(model.IPv4) {
		return nil
	}
	return []model.Problem{in.problem("metadata.annotations", "FlannelTunnelMissing",
		"the node says that it is flannel's, but has no tunnel of flannel any more, through which nodes that have not moved to Fairlead send to its pods",
		"move the other nodes, then remove the annotations: kubectl annotate nodes --all flannel.alpha.coreos.com/kube-subnet-manager-")}
}
