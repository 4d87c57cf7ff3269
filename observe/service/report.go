// Package service says for people what one node makes of a Service: where each
// of its addresses leads, and why each endpoint is used or not. It is pure:
// observe/hop adds what the node's kernel has. It decides nothing that
// plan/service has not decided.
//
// A Report belongs to its caller; all else may be called concurrently.
package service

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/service"
)

// Report is what a node makes of a Service. It only grows.
type Report struct {
	Service string `json:"service"` // NAMESPACE/NAME
	Node    string `json:"node"`
	// Affinity is how long clients stay with an endpoint, in seconds; 0: they do
	// not.
	Affinity uint32 `json:"affinitySeconds,omitempty"`
	Ports    []Port `json:"ports"` // one of each port and family
	// Kernel tells that VIPs and endpoints say what the kernel has.
	Kernel bool `json:"kernel"`
}

// Port is one port of the Service in one family.
type Port struct {
	Name      string         `json:"name,omitempty"`
	Protocol  model.Protocol `json:"protocol"`
	Port      uint16         `json:"port"`
	Family    string         `json:"family"` // IPv4 or IPv6
	VIPs      []VIP          `json:"vips"`
	Endpoints []Endpoint     `json:"endpoints"`
	// Former are targets of connections that are no endpoints any more, sorted.
	Former []Former `json:"former,omitempty"`
}

// VIP is one address that the port is reached at.
type VIP struct {
	Address netip.AddrPort `json:"address"`
	Kind    string         `json:"kind"`              // ClusterIP, NodePort, LoadBalancer or ExternalIP
	TakenBy string         `json:"takenBy,omitempty"` // another Service, which has it; then the rest is empty
	Inside  Answer         `json:"inside,omitzero"`   // to pods and to this node
	Outside Answer         `json:"outside,omitzero"`  // to all others
	// Masquerade is whose packets take an address of the node: outside (all but
	// pods), all, or node (those of the node itself).
	Masquerade string         `json:"masquerade,omitempty"`
	Ranges     []netip.Prefix `json:"sourceRanges,omitempty"` // who may call; none: all

	Connections int    `json:"connections"`       // that this node has led on and that are open
	Differs     string `json:"differs,omitempty"` // what the kernel has instead
}

// Answer is what becomes of a new connection.
type Answer struct {
	Do    string `json:"do"`              // forward, refuse or drop
	Count int    `json:"count,omitempty"` // of endpoints to choose from
	Local bool   `json:"local,omitempty"` // of this node alone
	Why   string `json:"why,omitempty"`   // it is not forwarded
}

// The words for what is done.
const (
	Forward = "forward"
	Refuse  = "refuse"
	Drop    = "drop"
)

// Do is the word for an action.
func Do(action service.Action) string {
	switch action {
	case service.Reject:
		return Refuse
	case service.Drop:
		return Drop
	}
	return Forward
}

// Endpoint is one endpoint of the port.
type Endpoint struct {
	Address netip.AddrPort `json:"address"`
	Node    string         `json:"node,omitempty"` // empty: unknown, or outside of the cluster
	Pod     string         `json:"pod,omitempty"`  // NAMESPACE/NAME, if it is known
	Cluster bool           `json:"cluster"`        // new connections go to it
	// Local tells that those go to it that are for endpoints of this node alone.
	Local       bool   `json:"local"`
	Why         string `json:"why"`
	Connections int    `json:"connections"` // from this node
}

// Former is a target that is no endpoint any more.
type Former struct {
	Address     netip.AddrPort `json:"address"`
	Connections int            `json:"connections"`
}

// Of makes the report of a Service from the plan of a node; nil if the plan has
// no such Service.
func Of(plan *service.Plan, snapshot *model.Snapshot, node string, key model.ServiceKey) *Report {
	s, ok := snapshot.Services.Get(key)
	if !ok || plan == nil {
		return nil
	}
	report := &Report{Service: key.String(), Node: node, Affinity: s.Affinity}
	var last service.Port
	for _, claim := range plan.Claims(key) {
		if len(report.Ports) == 0 || claim.Port != last {
			report.Ports = append(report.Ports, portOf(plan, s, claim))
			last = claim.Port
		}
		port := &report.Ports[len(report.Ports)-1]
		port.VIPs = append(port.VIPs, vipOf(plan, claim))
	}
	return report
}

func portOf(plan *service.Plan, s *model.Service, claim service.Claim) Port {
	port := Port{Name: claim.Port.Name, Protocol: claim.VIP.Protocol, Family: claim.Port.Family.String()}
	for _, of := range s.Ports {
		if of.Name == claim.Port.Name {
			port.Port = of.Port
		}
	}
	for _, r := range plan.Why(claim.Port) {
		port.Endpoints = append(port.Endpoints, Endpoint{Address: r.Target, Node: r.Node, Cluster: r.Cluster, Local: r.Local, Why: r.Why})
	}
	return port
}

func vipOf(plan *service.Plan, claim service.Claim) VIP {
	vip := VIP{Address: claim.VIP.At, Kind: claim.Kind.String()}
	f := claim.Frontend
	if f.Port.Service != claim.Port.Service {
		vip.TakenBy = f.Port.Service.String()
		return vip
	}
	answer := func(a service.Answer) Answer {
		return Answer{Do: Do(a.Do), Count: a.Count, Local: a.Local, Why: plan.WhyNot(f.Port, a)}
	}
	vip.Inside, vip.Outside = answer(f.Inside), answer(f.Outside)
	vip.Masquerade, vip.Ranges = f.Masquerade.String(), f.Ranges
	return vip
}

// Compare notes how what the kernel holds of a VIP is not as planned. Held is
// nil if it has nothing.
func (v *VIP) Compare(plan *service.Plan, protocol model.Protocol, held *service.Held) {
	v.Differs = ""
	f, ok := plan.Frontends.Get(service.VIP{Protocol: protocol, At: v.Address})
	switch {
	case !ok || v.TakenBy != "":
	case held == nil:
		v.Differs = "none"
	default:
		inside := differs(plan, f, f.Inside, held.Inside)
		outside := differs(plan, f, f.Outside, held.Outside)
		switch {
		case inside == outside:
			v.Differs = inside
		case outside == "":
			v.Differs = "for pods and the node: " + inside
		case inside == "":
			v.Differs = "for others: " + outside
		default:
			v.Differs = fmt.Sprintf("for pods and the node: %s; for others: %s", inside, outside)
		}
	}
}

func differs(plan *service.Plan, f *service.Frontend, want service.Answer, held service.HeldAnswer) string {
	if want.Do != held.Do {
		return heldText(held)
	}
	var targets []netip.AddrPort
	if backends, ok := plan.Backends.Get(f.Pool(want)); ok && want.Do == service.Forward {
		most := mostTargets
		if backends.Sticky != 0 {
			most = mostSticky
		}
		targets = backends.Targets[:min(len(backends.Targets), most)]
	}
	return Difference(targets, held.Targets, held.Holes)
}

// What a kernel takes of a longer list are the first.
const (
	mostTargets = 1<<16 - 1
	mostSticky  = 1 << 12
)

// Difference says in words how targets in a kernel are not those of the plan,
// which are sorted; empty if they are.
func Difference(planned, held []netip.AddrPort, holes int) string {
	held = slices.SortedFunc(slices.Values(held), netip.AddrPort.Compare)
	var parts []string
	say := func(what string, of, in []netip.AddrPort) {
		var all []string
		for _, target := range of {
			if _, ok := slices.BinarySearchFunc(in, target, netip.AddrPort.Compare); !ok {
				all = append(all, target.String())
			}
		}
		if len(all) > 0 {
			parts = append(parts, what+" "+strings.Join(all, ", "))
		}
	}
	say("without", planned, held)
	say("with", held, planned)
	if holes > 0 {
		parts = append(parts, fmt.Sprintf("with empty slots: %d", holes))
	}
	return strings.Join(parts, ", ")
}

func heldText(held service.HeldAnswer) string {
	switch held.Do {
	case service.Reject:
		return "refused"
	case service.Drop:
		return "dropped"
	}
	return fmt.Sprintf("1 of %d", len(held.Targets)+held.Holes)
}

// Well tells whether each address is the Service's, leads somewhere in the
// cluster, and is in the kernel as planned. That a node has no endpoint of its
// own, where only such may be used, is no fault.
func (r *Report) Well() bool {
	return !slices.ContainsFunc(r.Ports, func(p Port) bool {
		return slices.ContainsFunc(p.VIPs, func(v VIP) bool {
			return v.TakenBy != "" || v.Differs != "" || v.Inside.Do == Refuse || v.Outside.Do == Refuse
		})
	})
}

// String is such as "1 of 3", "1 of 2 here", "refused" or "dropped".
func (a Answer) String() string {
	switch {
	case a.Do == Refuse:
		return "refused"
	case a.Do == Drop:
		return "dropped"
	case a.Local:
		return fmt.Sprintf("1 of %d here", a.Count)
	default:
		return fmt.Sprintf("1 of %d", a.Count)
	}
}

// Answers are what can differ from node to node, one in a line: the answers to
// each kind of address of each port.
func (r *Report) Answers() (all []string) {
	for _, port := range r.Ports {
		for _, vip := range port.VIPs {
			at := vip.Address.String()
			if vip.Kind == service.NodePort.String() {
				at = fmt.Sprint(vip.Address.Port()) // its address is another one on each node
			}
			text := fmt.Sprintf("%s %s/%s, %s: ", vip.Kind, at, port.Protocol, port.Family)
			switch {
			case vip.TakenBy != "":
				text += "taken by " + vip.TakenBy
			case vip.Inside == vip.Outside:
				text += vip.Inside.String()
			default:
				text += fmt.Sprintf("%s for pods and the node, %s for others", vip.Inside, vip.Outside)
			}
			if !slices.Contains(all, text) {
				all = append(all, text)
			}
		}
	}
	return all
}
