package agent

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/fairlead-net/fairlead/ipam"
	"github.com/fairlead-net/fairlead/model"
)

// Details is all that an agent can say of its node, for those who look on. It is
// served as JSON at /debug/status and only grows.
type Details struct {
	Node      string            `json:"node"`
	Version   string            `json:"version"`
	Began     time.Time         `json:"began"` // this process
	Ready     bool              `json:"ready"`
	Message   string            `json:"message"` // why not, or what should be known
	Checks    []CheckDetails    `json:"checks"`
	Problems  []ProblemDetails  `json:"problems,omitempty"`
	Snapshot  SnapshotDetails   `json:"snapshot"`
	Uplink    string            `json:"uplink,omitempty"`
	PodMTU    int               `json:"podMTU,omitempty"` // bytes
	Links     []LinkDetails     `json:"links,omitempty"`
	Tunnels   []LinkDetails     `json:"tunnels,omitempty"`
	Addresses []AddressDetails  `json:"addresses,omitempty"`
	Conntrack *ConntrackDetails `json:"conntrack,omitempty"`
	Peers     []PeerDetails     `json:"peers,omitempty"`
	Pods      []PodDetails      `json:"pods,omitempty"`
}

// CheckDetails is a step of the agent's start.
type CheckDetails struct {
	Name string `json:"name"`
	Done bool   `json:"done"`
	Why  string `json:"why,omitempty"` // it waits
}

// ProblemDetails is a model.Problem.
type ProblemDetails struct {
	Object  string `json:"object"` // kind/name or kind/namespace/name
	Field   string `json:"field,omitempty"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Remedy  string `json:"remedy,omitempty"`
}

// SnapshotDetails tells how far the kernel is behind the cluster.
type SnapshotDetails struct {
	Revision uint64 `json:"revision"`
	Applied  uint64 `json:"applied"`
	Nodes    int    `json:"nodes"`
	Pods     int    `json:"pods"`
	Refused  int    `json:"refused"` // parts of the plan
}

// LinkDetails is an interface.
type LinkDetails struct {
	Name      string         `json:"name"`
	MTU       int            `json:"mtu"` // bytes
	Addresses []netip.Prefix `json:"addresses,omitempty"`
}

// AddressDetails is how much of a family's ranges is taken.
type AddressDetails struct {
	Family   string         `json:"family"`
	Ranges   []netip.Prefix `json:"ranges"`
	Capacity uint64         `json:"capacity"` // at most 2^53, which every reader of JSON can tell
	InUse    int            `json:"inUse"`
	Cooling  int            `json:"cooling"`
}

// ConntrackDetails counts connections.
type ConntrackDetails struct {
	Used  uint64 `json:"used"`
	Limit uint64 `json:"limit"`
}

// PeerDetails is the way to another node.
type PeerDetails struct {
	Node      string       `json:"node"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
	Way       string       `json:"way"` // direct, vxlan, ipip, udp or none
	Why       string       `json:"why,omitempty"`
}

// PodDetails is a pod that the agent has connected.
type PodDetails struct {
	Namespace string       `json:"namespace,omitempty"` // empty, as the name, if the pod is not known
	Name      string       `json:"name,omitempty"`
	Device    string       `json:"device"` // the node's end
	Addresses []netip.Addr `json:"addresses"`
}

func (s *state) details(now time.Time) *Details {
	snapshot, _ := s.feed.Latest()
	result, _ := s.loop.outcome.get()
	d := &Details{
		Node: s.node, Version: s.version, Began: s.began.UTC(),
		Snapshot: SnapshotDetails{
			Revision: snapshot.Revision, Applied: s.metrics.applied.Load(),
			Nodes: snapshot.Nodes.Len(), Pods: snapshot.Pods.Len(), Refused: len(result.refused),
		},
	}
	d.Ready, _, d.Message = verdict(s.checks, result, s.notices)
	for _, check := range s.checks {
		c := CheckDetails{Name: check.name, Done: isDone(check.done)}
		if !c.Done {
			c.Why = check.why()
		}
		d.Checks = append(d.Checks, c)
	}
	for _, p := range s.problems() {
		d.Problems = append(d.Problems, ProblemDetails{p.Object(), p.Field, p.Reason, p.Message, p.Remedy})
	}
	d.addLinks(snapshot, s.node)
	for _, usage := range s.attacher.usage(now) {
		d.Addresses = append(d.Addresses, AddressDetails{
			Family: familyLabel(usage.Family), Ranges: usage.Ranges,
			Capacity: uint64(min(usage.Total, math.Exp2(53))), InUse: usage.InUse, Cooling: usage.Cooling,
		})
	}
	if used, limit, ok := conntrackUse(); ok {
		d.Conntrack = &ConntrackDetails{uint64(used), uint64(limit)}
	}
	d.addPeers(snapshot, result)
	for key, attachment := range snapshot.Attachments.All() {
		if key == endpointKey { // of probes; no pod
			continue
		}
		d.Pods = append(d.Pods, PodDetails{attachment.Pod.Namespace, attachment.Pod.Name, attachment.Device, attachment.Addresses})
	}
	slices.SortFunc(d.Pods, func(a, b PodDetails) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Device, b.Device))
	})
	return d
}

func (d *Details) addLinks(snapshot *model.Snapshot, node string) {
	if link := uplink(snapshot, node); link != nil && snapshot.Network != nil {
		d.Uplink, d.PodMTU = link.Name, podMTU(snapshot, node)
	}
	for _, link := range snapshot.Links.All() {
		d.Links = append(d.Links, LinkDetails{link.Name, link.MTU, link.Addresses})
	}
	slices.SortFunc(d.Links, func(a, b LinkDetails) int { return cmp.Compare(a.Name, b.Name) })
}

func (d *Details) addPeers(snapshot *model.Snapshot, result outcome) {
	if result.plan == nil || result.plan.Route == nil {
		return
	}
	routes := result.plan.Route
	for _, tunnel := range routes.VXLANs.All() {
		d.Tunnels = append(d.Tunnels, LinkDetails{Name: tunnel.Name, MTU: tunnel.MTU})
	}
	for _, tunnel := range routes.IPIPs.All() {
		d.Tunnels = append(d.Tunnels, LinkDetails{Name: tunnel.Name, MTU: tunnel.MTU})
	}
	for _, tunnel := range routes.UDPs.All() {
		d.Tunnels = append(d.Tunnels, LinkDetails{Name: tunnel.Name, MTU: tunnel.MTU})
	}
	slices.SortFunc(d.Tunnels, func(a, b LinkDetails) int { return cmp.Compare(a.Name, b.Name) })
	for i, tunnel := range d.Tunnels {
		for address := range routes.Addresses.All() {
			if address.Device == tunnel.Name {
				d.Tunnels[i].Addresses = append(d.Tunnels[i].Addresses, address.Prefix)
			}
		}
		slices.SortFunc(d.Tunnels[i].Addresses, netip.Prefix.Compare)
	}
	for name, node := range snapshot.Nodes.All() {
		if name == d.Node {
			continue
		}
		way, _ := routes.Ways.Get(name)
		d.Peers = append(d.Peers, PeerDetails{name, node.Addresses, way.String(), routes.Why(name)})
	}
	slices.SortFunc(d.Peers, func(a, b PeerDetails) int { return cmp.Compare(a.Node, b.Node) })
}

// usage is how much of the node's ranges is taken. The allocator learns of them
// when a pod asks, which may not have been yet.
func (a *attacher) usage(now time.Time) []ipam.Usage {
	snapshot, _ := a.feed.Latest()
	a.mu.Lock()
	defer a.mu.Unlock()
	if node, ok := snapshot.Nodes.Get(a.node); ok && len(node.PodCIDRs) > 0 {
		a.addresses.SetRanges(node.PodCIDRs)
	}
	return a.addresses.Usage(now)
}
