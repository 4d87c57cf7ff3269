package trace

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// Walk follows a packet from its node to where it ends. It asks each node on
// the way once for each time that the packet comes by.
func Walk(cluster []Place, trip Trip, ask Ask) *Path {
	w := &walk{cluster: cluster, trip: trip, path: &Path{From: trip.From, To: trip.To}}
	if trip.From.Pod && trip.From.Address == trip.To.Address {
		w.line(Line{Where: short(trip.From.Name), Device: "lo", Way: fmt.Sprintf("%s, the pod itself", trip.To.Address)})
		return w.path.settle(Arrives)
	}
	enter := ByNode
	q := Question{To: trip.To.Address, Protocol: trip.Protocol, Port: trip.Port, Backend: trip.Backend, Reply: trip.Reply}
	if trip.From.Pod {
		enter, q.From = ByPod, trip.From.Address
	}
	q.Enter.By = enter
	at := step{trip.From.Node, q}
	for been := []step{}; !slices.Contains(been, at); {
		been = append(been, at)
		next, outcome := w.visit(at.node, at.question, ask)
		if outcome != "" {
			return w.path.settle(outcome)
		}
		at = next
	}
	w.line(Line{Where: at.node, Way: trip.To.Address.String(), Findings: []Finding{{
		Effect: Breaks, What: fmt.Sprintf("the packet comes to %s in the same way a second time: it goes round in circles", at.node),
		Next: "mend the routes that are not as planned, above",
	}}})
	return w.path.settle(Stops)
}

type walk struct {
	cluster []Place
	trip    Trip
	path    *Path
	sent    int    // bytes of the largest packet that the last node puts on the wire
	sender  string // its name
}

// step is where a packet goes next.
type step struct {
	node     string
	question Question
}

// visit follows the packet through one node. The outcome is empty if it goes on
// to another.
func (w *walk) visit(node string, q Question, ask Ask) (step, Outcome) {
	at := slices.IndexFunc(w.cluster, func(p Place) bool { return p.Name == node })
	if at < 0 {
		w.unclear(node, q, fmt.Sprintf("there is no node %s", node), "kubectl get nodes")
		return step{}, Unknown
	}
	place := &w.cluster[at]
	w.report(place)
	if place.Trouble != "" {
		w.unclear(node, q, place.Trouble, place.Next)
		return step{}, Unknown
	}
	answer, err := ask(node, q)
	if err != nil {
		next := "fairlead status"
		if u := (*Unasked)(nil); errors.As(err, &u) {
			next = u.Next
		}
		w.unclear(node, q, fmt.Sprintf("%s cannot be asked: %v", node, err), next)
		return step{}, Unknown
	}
	w.firewall(node, q, &answer.Kernel)
	v := &visit{walk: w, place: place, q: q, kernel: &answer.Kernel, plan: answer.Plan, silent: answer.Silent}
	return v.run()
}

// report notes what a node's agent has reported, once.
func (w *walk) report(place *Place) {
	for _, problem := range place.Problems {
		report := Report{place.Name, fmt.Sprintf("%s: %s", problem.Object(), problem.Message), problem.Remedy}
		if !slices.Contains(w.path.Reports, report) {
			w.path.Reports = append(w.path.Reports, report)
		}
	}
}

// firewall notes what other programs of a node may drop the packet by, once.
func (w *walk) firewall(node string, q Question, kernel *Kernel) {
	passed := Firewall{Node: node, Chains: concerned(kernel.Droppers, q, kernel), Legacy: kernel.Legacy, Error: kernel.Unlisted}
	known := slices.ContainsFunc(w.path.Firewalls, func(f Firewall) bool { return f.Node == node })
	if !known && (len(passed.Chains)+len(passed.Legacy) > 0 || passed.Error != "") {
		w.path.Firewalls = append(w.path.Firewalls, passed)
	}
}

// concerned leaves out chains of the family that neither the packet has nor the one
// around it, which a tunnel makes.
func concerned(chains []string, q Question, kernel *Kernel) []string {
	is4 := map[bool]bool{q.To.Is4(): true}
	for _, outer := range []netip.Addr{q.Enter.Source, kernel.Remote} {
		if outer.IsValid() {
			is4[outer.Is4()] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(chains), func(name string) bool {
		family, _, _ := strings.Cut(name, " ")
		return family == "ip" && !is4[true] || family == "ip6" && !is4[false]
	})
}

func (w *walk) line(line Line) *Line {
	w.path.Lines = append(w.path.Lines, line)
	return &w.path.Lines[len(w.path.Lines)-1]
}

func (w *walk) unclear(node string, q Question, what, next string) {
	w.line(Line{Where: node, Way: q.To.String(), Findings: []Finding{{Effect: Unclear, What: what, Next: next}}})
}

// holder is the node that has an address; nil if none has.
func (w *walk) holder(addr netip.Addr) *Place {
	at := slices.IndexFunc(w.cluster, func(p Place) bool { return slices.Contains(p.Addresses, addr) })
	if at < 0 {
		return nil
	}
	return &w.cluster[at]
}

// range of pods that an address is in, and whose it is; nil if it is no pod's.
func ownerOf(cluster []Place, addr netip.Addr) (*Place, netip.Prefix) {
	var owner *Place
	var longest netip.Prefix
	for i := range cluster {
		for _, prefix := range cluster[i].PodCIDRs {
			if prefix.Contains(addr) && (owner == nil || prefix.Bits() > longest.Bits()) {
				owner, longest = &cluster[i], prefix
			}
		}
	}
	return owner, longest
}

// OwnerOf is the node in whose range of pods an address is; empty if it is in
// none's.
func OwnerOf(cluster []Place, addr netip.Addr) string {
	if owner, _ := ownerOf(cluster, addr); owner != nil {
		return owner.Name
	}
	return ""
}

// visit is a packet on one node.
type visit struct {
	*walk
	place  *Place
	q      Question
	kernel *Kernel
	plan   *Plan // nil: not known
	silent string
}

func (v *visit) run() (step, Outcome) {
	if !v.enter() {
		return step{}, Stops
	}
	if !v.q.Reply && !v.serve() {
		return step{}, Stops
	}
	if to := v.translated(); to.IsValid() {
		v.q.To, v.q.Port, v.q.Backend = to.Addr(), to.Port(), netip.AddrPort{}
	}
	if !v.allowed() {
		return step{}, Stops
	}
	v.path.Source = v.source()
	if v.kernel.Local {
		line := v.line(Line{Where: v.place.Name, Way: fmt.Sprintf("%s, the node itself", v.q.To)})
		v.arrive(End{Name: "node/" + v.place.Name, Node: v.place.Name, Address: v.q.To})
		if owner, prefix := ownerOf(v.cluster, v.q.To); owner != nil && v.trip.To.Pod && v.trip.To.Address == v.q.To {
			line.Findings = append(line.Findings, Finding{
				Effect: Breaks, What: fmt.Sprintf("%s takes the pod's address %s for its own", v.place.Name, v.q.To),
				Next: fmt.Sprintf("find the interface that has it, with ip address on %s, and take it away: %s is the range of pods of %s", v.place.Name, prefix, owner.Name),
			})
			return step{}, Stops
		}
		return step{}, Arrives
	}
	if !v.route() {
		return step{}, Stops
	}
	if !v.leave() {
		return step{}, Stops
	}
	return v.onward()
}

// onward is where the packet comes out of the interface that it left by.
func (v *visit) onward() (step, Outcome) {
	out, to := v.kernel.Out, v.q.To
	if out.Peer != nil || isPodLink(out) {
		if out.Peer != nil {
			v.line(Line{Where: cmp.Or(v.named(), v.place.Name), Device: out.Peer.Name, MTU: out.Peer.MTU, Way: to.String(), Findings: v.podSide(out)})
		}
		end := End{Name: to.String(), Node: v.place.Name, Address: to, Pod: true}
		if v.plan != nil && v.plan.To != "" {
			end.Name = v.plan.To
		}
		switch served := v.arrive(end); {
		case served && v.masqueraded():
			v.path.As = End{Name: "node/" + v.place.Name, Node: v.place.Name, Address: v.source()}
		case !served && v.translated().IsValid():
			v.path.As = end
		}
		return step{}, Arrives
	}
	next := Question{From: v.source(), To: to, Protocol: v.q.Protocol, Port: v.q.Port, Backend: v.q.Backend, Reply: v.q.Reply}
	var holder *Place
	switch by := out.Tunnel(); by {
	case ByWire:
		hop := v.hop()
		next.Enter = Enter{By: ByWire, At: hop, MAC: macOf(v.kernel.Neighbor)}
		if holder = v.holder(hop); holder == nil {
			// A router that is no node: it knows nodes, and what is outside.
			next.Enter.MAC = model.MAC{}
			next.Enter.At = to
			holder = v.holder(to)
		}
	default:
		next.Enter = Enter{By: by, At: v.kernel.Remote, Source: v.kernel.Outer.Source, VNI: out.VNI, Port: v.port(), MAC: macOf(v.kernel.Neighbor)}
		holder = v.holder(v.kernel.Remote)
	}
	if v.masqueraded() {
		v.path.As = End{Name: "node/" + v.place.Name, Node: v.place.Name, Address: next.From}
	}
	if holder == nil {
		return step{}, Leaves
	}
	return step{node: holder.Name, question: next}, ""
}

// arrive notes who gets the packet, if a Service has led it there.
func (v *visit) arrive(end End) (served bool) {
	if v.path.Service == nil {
		return false
	}
	v.path.Service.End = end
	return true
}

// port is that to which the tunnel sends; 0 if it has none. That of a process is
// only in the plan.
func (v *visit) port() uint16 {
	if out := v.kernel.Out; out.Port != 0 || v.plan == nil || v.plan.Tunnel == nil || v.plan.Tunnel.Name != out.Name {
		return out.Port
	}
	return v.plan.Tunnel.Port
}

// source is what the packet leaves with.
func (v *visit) source() netip.Addr {
	switch {
	case v.masqueraded() && v.plan.As.IsValid():
		return v.plan.As
	case !v.q.From.IsValid() || v.masqueraded():
		return v.kernel.Source
	default:
		return v.q.From
	}
}

// masqueraded tells whether it leaves with an address of the node. What ends at
// the node does not leave.
func (v *visit) masqueraded() bool { return v.plan != nil && v.plan.Masquerade && !v.kernel.Local }

// hop is the next hop on the interface it leaves by.
func (v *visit) hop() netip.Addr {
	if v.kernel.Route.Via.IsValid() {
		return v.kernel.Route.Via
	}
	return v.q.To
}

// named is the pod that the packet goes to, without its namespace; empty if it
// is not known.
func (v *visit) named() string {
	switch {
	case v.plan != nil && v.plan.To != "":
		return short(v.plan.To)
	case v.trip.To.Pod && v.trip.To.Address == v.q.To:
		return short(v.trip.To.Name)
	default:
		return ""
	}
}

func macOf(n *Neighbor) model.MAC {
	if n == nil {
		return model.MAC{}
	}
	return n.MAC
}
