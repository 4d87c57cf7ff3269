// Package hostport plans which ports of a node lead to pods (hostPort of a
// container). It is pure.
//
// A host port is reached at the node's addresses from everywhere, pods and the
// node included, and at 127.0.0.1 from the node. It is not reached at ::1: the
// kernel lets no packet of that address leave the loopback interface.
package hostport

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// Plan says where ports of the node lead. It is immutable.
type Plan struct {
	Ports    model.Map[Port, netip.AddrPort] // value: the pod's address and port
	Kept     model.Map[Kept, struct{}]       // endpoints of Services that go on with the connections that they have
	Hairpins model.Map[netip.Addr, struct{}] // pods that may reach themselves by a port of the node
	Sysctls  model.Map[string, string]       // that 127.0.0.1 needs, by path below /proc/sys
	Own      [len(model.Families)]netip.Addr // source of hairpins and of loopback's packets; invalid: the kernel chooses

	made        bool
	problems    []model.Problem
	reserved    [6]uint16                                         // UDP ports of tunnels: a pod that had one would speak as its node
	attachments model.Map[model.AttachmentKey, *model.Attachment] // that it was made from

	services model.Map[model.ServiceKey, *model.Service] // likewise
	slices   model.Map[model.SliceKey, *model.EndpointSlice]
	hosting  hosting
}

// Port is one of the node. An unspecified address means all of the node's in
// its family.
type Port struct {
	Protocol model.Protocol
	At       netip.AddrPort
}

// Kept is an endpoint of a Service on this node that a port of UDP leads to no more,
// and its connections do: while one pod follows upon another, as those of TCP.
type Kept struct {
	Port Port
	At   netip.AddrPort
}

func (k Kept) String() string { return fmt.Sprintf("%s of %s", k.At, k.Port) }

func (p Port) String() string { return fmt.Sprintf("%s %s", p.Protocol, p.At) }

// Compute plans the host ports of one node and says which of them cannot be had.
// prev is the last plan or nil; it is returned if the node is not known.
func Compute(prev *Plan, snapshot *model.Snapshot, name string) (*Plan, []model.Problem) {
	self, ok := snapshot.Nodes.Get(name)
	if !ok {
		if prev == nil {
			return nil, nil
		}
		return prev, prev.problems
	}
	next := &Plan{reserved: snapshot.TunnelPorts()}
	if prev == nil {
		prev = &Plan{}
	}
	of, moved := prev.findHosting(snapshot, name)
	if prev.made && prev.reserved == next.reserved && !moved && !changed(prev.attachments, snapshot.Attachments) {
		*next = *prev
	} else {
		// First: no pod takes the port of a gateway.
		hosts := next.planServices(&of, snapshot.Attachments, name)
		next.planPorts(snapshot.Attachments, hosts)
		slices.SortFunc(next.problems, model.Problem.Compare)
	}
	next.made, next.hosting, next.services, next.slices = true, of, snapshot.Services, snapshot.Slices
	next.attachments, next.Own = snapshot.Attachments, own(self, snapshot.Links)
	return next, next.problems
}

// changed tells whether an attachment with host ports differs. Few have some.
func changed(old, new model.Map[model.AttachmentKey, *model.Attachment]) bool {
	for change := range model.Diff(old, new) {
		if change.Had && len(change.Old.HostPorts) > 0 || change.Has && len(change.New.HostPorts) > 0 {
			return true
		}
	}
	return false
}

// own is the node's address of each family, if an interface has it now.
func own(self *model.Node, links model.Map[string, *model.Link]) (addrs [len(model.Families)]netip.Addr) {
	for _, family := range model.Families {
		for _, link := range links.All() {
			if addr := self.Address(family); addr.IsValid() && link.Has(addr) {
				addrs[family] = addr
			}
		}
	}
	return addrs
}

// planPorts gives a port that two pods want to the one whose name comes first. Those of
// Services are taken, at each of the node's addresses.
func (p *Plan) planPorts(attachments model.Map[model.AttachmentKey, *model.Attachment], hosts map[Port]model.ServiceKey) {
	var all []*model.Attachment
	for _, attachment := range attachments.All() {
		if len(attachment.HostPorts) > 0 {
			all = append(all, attachment)
		}
	}
	slices.SortFunc(all, func(a, b *model.Attachment) int {
		return cmp.Or(
			cmp.Compare(a.Pod.Namespace, b.Pod.Namespace), cmp.Compare(a.Pod.Name, b.Pod.Name),
			cmp.Compare(a.ContainerID, b.ContainerID), cmp.Compare(a.Interface, b.Interface),
		)
	})
	owners := map[Port]*model.Attachment{}
	for _, attachment := range all {
		for _, wanted := range attachment.HostPorts {
			p.planPort(attachment, wanted, owners, hosts)
		}
	}
}

func (p *Plan) planPort(of *model.Attachment, wanted model.HostPort, owners map[Port]*model.Attachment, hosts map[Port]model.ServiceKey) {
	if wanted.Protocol == model.UDP && slices.Contains(p.reserved[:], wanted.Port) {
		p.problems = append(p.problems, problem(of, "HostPortReserved",
			fmt.Sprintf("host port %s is that of the tunnels between nodes", wanted),
			"choose another hostPort, or another spec.vxlan.port or spec.udp.port of networks.fairlead.io default"))
		return
	}
	planned := false
	for _, addr := range of.Addresses {
		family := model.FamilyOf(addr)
		host := wanted.HostIP
		if !host.IsValid() {
			host = unspecified[family]
		}
		if model.FamilyOf(host) != family {
			continue
		}
		planned = true
		port := Port{wanted.Protocol, netip.AddrPortFrom(host, wanted.Port)}
		if owner, is := hosts[Port{wanted.Protocol, netip.AddrPortFrom(unspecified[family], wanted.Port)}]; is {
			p.problems = append(p.problems, taken(of, wanted, "Service "+owner.String()))
			return
		}
		if owner := owners[port]; owner != nil && owner != of {
			p.problems = append(p.problems, taken(of, wanted, "pod "+owner.Pod.String()))
			return
		}
		owners[port] = of
		p.Ports = p.Ports.With(port, netip.AddrPortFrom(addr, wanted.PodPort))
		p.Hairpins = p.Hairpins.With(addr, struct{}{})
		if addr.Is4() {
			// Else the kernel takes the packets for martians (RFC 1812 section 5.3.7).
			p.Sysctls = p.Sysctls.With("net/ipv4/conf/"+of.Device+"/route_localnet", "1")
		}
	}
	if !planned {
		p.problems = append(p.problems, problem(of, "HostPortFamily",
			fmt.Sprintf("host port %s leads nowhere: the pod has no %s address", wanted, model.FamilyOf(wanted.HostIP)),
			"leave out hostIP, or run the pod where pods have addresses of that family"))
	}
}

var unspecified = [...]netip.Addr{model.IPv4: netip.IPv4Unspecified(), model.IPv6: netip.IPv6Unspecified()}

func taken(of *model.Attachment, wanted model.HostPort, owner string) model.Problem {
	return problem(of, "HostPortTaken",
		fmt.Sprintf("host port %s leads to %s already", wanted, owner),
		"give one of them another hostPort, or another node")
}

func problem(of *model.Attachment, reason, message, remedy string) model.Problem {
	return model.Problem{
		Kind: "Pod", Namespace: of.Pod.Namespace, Name: of.Pod.Name, Field: "spec.containers[*].ports[*].hostPort",
		Reason: reason, Message: message, Remedy: remedy,
	}
}
