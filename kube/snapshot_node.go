package kube

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"sigs.k8s.io/yaml"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/model"
)

// nodeStateKind is the document of a snapshot file that has what a node knows of
// itself. Kubernetes has no such kind.
const nodeStateKind = "NodeState"

// nodeState is that document.
type nodeState struct {
	APIVersion  string            `json:"apiVersion"`       // fairlead.io/v1alpha1
	Kind        string            `json:"kind"`             // NodeState
	Former      object            `json:"former,omitempty"` // spec of the Network, as to routing, of a moment ago
	Coming      object            `json:"coming,omitempty"` // the same, in a moment
	Links       []linkState       `json:"links,omitempty"`
	Attachments []attachmentState `json:"attachments,omitempty"`
	Firewalls   *firewallState    `json:"firewalls,omitempty"`
	NameServers map[string]string `json:"nameServers,omitempty"`     // by family, how the node's DNS server is: absent, well or hung; none: it was not asked
	Resolved    []resolvedState   `json:"resolved,omitempty"`        // addresses that domain names in policies lead to
	NoPolicies  bool              `json:"policiesUnknown,omitempty"` // they have not been read yet
	NoNames     bool              `json:"namesUnknown,omitempty"`    // Services and endpoints of headless ones have not been read yet, or are not followed
}

// resolvedState are the names of an address.
type resolvedState struct {
	Address netip.Addr `json:"address"`
	Names   []string   `json:"names,omitempty"`
	Lapsed  []string   `json:"lapsed,omitempty"` // names that have led there before
}

// readNameServer reads how the DNS server is in a family.
func readNameServer(name, is string) (model.Family, model.NameServer, error) {
	for _, family := range model.Families {
		for server := model.NameServerUnknown; server <= model.NameServerHung; server++ {
			if family.String() == name && server.String() == is {
				return family, server, nil
			}
		}
	}
	return 0, 0, fmt.Errorf("%s: %s: want IPv4 or IPv6, and unknown, absent, well or hung", name, is)
}

// firewallState is what others filter with.
type firewallState struct {
	Drops  []chainState `json:"drops"`            // chains where packets are forwarded that drop what they do not accept
	Passes []passState  `json:"passes,omitempty"` // packets of pods that these accept
}

type passState struct {
	Chain chainState   `json:"chain"`
	Of    model.PassOf `json:"of"`
	Pods  netip.Prefix `json:"pods"`
}

type chainState struct {
	Family string `json:"family"` // ip, ip6 or inet
	Table  string `json:"table"`
	Chain  string `json:"chain"`
}

type linkState struct {
	Name      string         `json:"name"`
	MTU       int            `json:"mtu"` // bytes
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	AcceptsRA bool           `json:"acceptsRA,omitempty"`
}

type attachmentState struct {
	ContainerID string          `json:"containerID"`
	Interface   string          `json:"interface"`
	Namespace   string          `json:"namespace,omitempty"` // of the pod
	Pod         string          `json:"pod,omitempty"`
	UID         string          `json:"uid,omitempty"` // of the pod
	Device      string          `json:"device"`
	MAC         model.MAC       `json:"mac,omitzero"` // of the pod's side
	Addresses   []netip.Addr    `json:"addresses,omitempty"`
	HostPorts   []hostPortState `json:"hostPorts,omitempty"`
}

type hostPortState struct {
	Protocol model.Protocol `json:"protocol"`
	HostIP   netip.Addr     `json:"hostIP,omitzero"`
	HostPort uint16         `json:"hostPort"`
	PodPort  uint16         `json:"podPort"`
}

func addNodeState(to *model.Snapshot, document []byte) error {
	var state nodeState
	if err := yaml.UnmarshalStrict(document, &state); err != nil {
		return fmt.Errorf("%s: %w", nodeStateKind, err)
	}
	former, err := readRouting(state.Former)
	if err != nil {
		return fmt.Errorf("%s: former: %w", nodeStateKind, err)
	}
	coming, err := readRouting(state.Coming)
	if err != nil {
		return fmt.Errorf("%s: coming: %w", nodeStateKind, err)
	}
	to.Former, to.Coming, to.PoliciesKnown, to.NamesKnown = former, coming, !state.NoPolicies, !state.NoNames
	if state.Firewalls != nil {
		to.Firewalls = &model.Firewalls{}
		for _, chain := range state.Firewalls.Drops {
			to.Firewalls.Drops = append(to.Firewalls.Drops, model.ForwardChain(chain))
		}
		for _, pass := range state.Firewalls.Passes {
			to.Firewalls.Passes = append(to.Firewalls.Passes, model.ForwardPass{Chain: model.ForwardChain(pass.Chain), Of: pass.Of, Pods: pass.Pods})
		}
	}
	for name, is := range state.NameServers {
		family, server, err := readNameServer(name, is)
		if err != nil {
			return fmt.Errorf("%s: nameServers: %w", nodeStateKind, err)
		}
		to.NameServers[family] = server
	}
	for _, resolved := range state.Resolved {
		to.Resolved = to.Resolved.With(resolved.Address, &model.Resolved{
			Names: slices.Compact(slices.Sorted(slices.Values(resolved.Names))), Lapsed: slices.Compact(slices.Sorted(slices.Values(resolved.Lapsed))),
		})
	}
	for _, link := range state.Links {
		l := model.Link(link)
		to.Links = to.Links.With(l.Name, &l)
	}
	for _, a := range state.Attachments {
		attachment := &model.Attachment{
			AttachmentKey: model.AttachmentKey{ContainerID: a.ContainerID, Interface: a.Interface},
			Pod:           model.PodKey{Namespace: a.Namespace, Name: a.Pod}, UID: model.UIDOf(a.UID),
			Device: a.Device, MAC: a.MAC, Addresses: a.Addresses,
		}
		for _, port := range a.HostPorts {
			attachment.HostPorts = append(attachment.HostPorts, model.HostPort{
				Protocol: port.Protocol, HostIP: port.HostIP, Port: port.HostPort, PodPort: port.PodPort,
			})
		}
		to.Attachments = to.Attachments.With(attachment.AttachmentKey, attachment)
	}
	return nil
}

func nodeStateOf(snapshot *model.Snapshot) nodeState {
	state := nodeState{APIVersion: v1alpha1.GroupVersion().String(), Kind: nodeStateKind, NoPolicies: !snapshot.PoliciesKnown, NoNames: !snapshot.NamesKnown}
	if snapshot.Former != nil {
		state.Former = routingObjectOf(snapshot.Former)
	}
	if snapshot.Coming != nil {
		state.Coming = routingObjectOf(snapshot.Coming)
	}
	if snapshot.Firewalls != nil {
		state.Firewalls = &firewallState{Drops: []chainState{}}
		for _, chain := range snapshot.Firewalls.Drops {
			state.Firewalls.Drops = append(state.Firewalls.Drops, chainState(chain))
		}
		for _, pass := range snapshot.Firewalls.Passes {
			state.Firewalls.Passes = append(state.Firewalls.Passes, passState{chainState(pass.Chain), pass.Of, pass.Pods})
		}
	}
	for family, server := range snapshot.NameServers {
		if server != model.NameServerUnknown {
			if state.NameServers == nil {
				state.NameServers = map[string]string{}
			}
			state.NameServers[model.Families[family].String()] = server.String()
		}
	}
	for _, addr := range slices.SortedFunc(keys(snapshot.Resolved), netip.Addr.Compare) {
		resolved, _ := snapshot.Resolved.Get(addr)
		state.Resolved = append(state.Resolved, resolvedState{addr, resolved.Names, resolved.Lapsed})
	}
	for _, name := range slices.Sorted(keys(snapshot.Links)) {
		link, _ := snapshot.Links.Get(name)
		state.Links = append(state.Links, linkState(*link))
	}
	for _, key := range slices.SortedFunc(keys(snapshot.Attachments), func(a, b model.AttachmentKey) int {
		return cmp.Or(cmp.Compare(a.ContainerID, b.ContainerID), cmp.Compare(a.Interface, b.Interface))
	}) {
		a, _ := snapshot.Attachments.Get(key)
		written := attachmentState{
			ContainerID: a.ContainerID, Interface: a.Interface, Namespace: a.Pod.Namespace, Pod: a.Pod.Name, UID: a.UID.String(),
			Device: a.Device, MAC: a.MAC, Addresses: a.Addresses,
		}
		for _, port := range a.HostPorts {
			written.HostPorts = append(written.HostPorts, hostPortState{port.Protocol, port.HostIP, port.Port, port.PodPort})
		}
		state.Attachments = append(state.Attachments, written)
	}
	return state
}
