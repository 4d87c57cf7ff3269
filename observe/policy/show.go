package policy

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
	plan "github.com/fairlead-net/fairlead/plan/policy"
)

// Shown is what policies say of one pod. It only grows.
type Shown struct {
	Pod    End    `json:"pod"`
	Labels string `json:"labels,omitempty"` // as kubectl shows them
	// Exempt is why no policy is for it; empty: policies may be.
	Exempt  string   `json:"exempt,omitempty"`
	Ingress *Effects `json:"ingress,omitempty"`
	Egress  *Effects `json:"egress,omitempty"`
}

// Effects are the rules of a pod in one direction.
type Effects struct {
	// IsolatedBy are the NetworkPolicies without whose leave nothing is allowed;
	// none: what no rule denies is allowed.
	IsolatedBy []string `json:"isolatedBy,omitempty"`
	// Rules are in the order in which they are asked; those of NetworkPolicies
	// together.
	Rules []Effect `json:"rules"`
}

// Effect is a rule of a pod.
type Effect struct {
	Rule
	Pods  int `json:"pods"`            // how many of the cluster's its peers choose now
	Nodes int `json:"nodes,omitempty"` // the same
}

// Show says which rules a pod has.
func Show(snapshot *model.Snapshot, name, namespace string) (*Shown, error) {
	end, err := finder{snapshot, namespace}.find(name)
	if err != nil {
		return nil, err
	}
	shown := &Shown{Pod: end, Exempt: exempt(end)}
	if end.pod == nil {
		if !end.HostNetwork {
			return nil, &Untold{fmt.Sprintf("%s is no pod", name), "kubectl get pods -A"}
		}
		return shown, nil
	}
	shown.Labels = end.pod.Labels.String()
	w, err := newWorld(snapshot, []*model.Pod{end.pod})
	if err != nil {
		return nil, err
	}
	shown.Ingress, shown.Egress = w.effects(end.pod, model.Ingress), w.effects(end.pod, model.Egress)
	return shown, nil
}

func (w *world) effects(pod *model.Pod, d model.Direction) *Effects {
	effective, isolated := w.plan.Effective(plan.Subject{Direction: d, Address: pod.Addresses[0]})
	e := &Effects{Rules: []Effect{}}
	if isolated != nil {
		e.IsolatedBy = isolating(w.snapshot, pod, d)
	}
	for _, rule := range effective {
		r, of := ruleOf(w.snapshot, d, rule.By)
		if r == nil {
			continue
		}
		r.Peers = peersText(of, func(*model.Peer) bool { return false })
		r.Ports = portsText(of, func(*model.PolicyPort) bool { return false })
		e.Rules = append(e.Rules, Effect{*r, w.count(of), w.countNodes(of)})
	}
	return e
}

// count is how many pods are among the peers of a rule.
func (w *world) count(of *model.PolicyRule) (n int) {
	for _, pod := range w.snapshot.Pods.All() {
		if !connected(pod) {
			continue
		}
		chosen := of.Anyone
		for _, addr := range pod.Addresses {
			fit := asked{snapshot: w.snapshot, peer: peer{addr, pod}}
			for i := 0; i < len(of.Peers) && !chosen; i++ {
				chosen = fit.fits(&of.Peers[i])
			}
		}
		if chosen {
			n++
		}
	}
	return n
}

// countNodes is how many nodes are.
func (w *world) countNodes(of *model.PolicyRule) (n int) {
	for _, node := range w.snapshot.Nodes.All() {
		if slices.ContainsFunc(of.Peers, func(p model.Peer) bool { return p.Nodes != nil && p.Nodes.Matches(node.Labels) }) {
			n++
		}
	}
	return n
}

// Text writes it for people.
func (s *Shown) Text(to io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "pod %s", s.Pod.Name)
	if s.Pod.Node != "" {
		fmt.Fprintf(&b, " on %s", s.Pod.Node)
	}
	for i, addr := range s.Pod.Addresses {
		fmt.Fprintf(&b, "%s%s", [...]string{", ", " and "}[min(i, 1)], addr)
	}
	b.WriteString("\n")
	if s.Labels != "" {
		fmt.Fprintf(&b, "  labels %s\n", s.Labels)
	}
	if s.Exempt != "" {
		fmt.Fprintf(&b, "  no policy is asked: %s\n", s.Exempt)
	}
	s.Ingress.write(&b, "ingress", "from")
	s.Egress.write(&b, "egress", "to")
	_, err := io.WriteString(to, b.String())
	return err
}

func (e *Effects) write(b *strings.Builder, title, word string) {
	if e == nil {
		return
	}
	state := "not isolated: what no rule denies is allowed"
	switch n := len(e.IsolatedBy); {
	case n == 1:
		state = "isolated by NetworkPolicy " + e.IsolatedBy[0] + ": what no rule allows is denied"
	case n > 1:
		state = "isolated by NetworkPolicies " + strings.Join(e.IsolatedBy, ", ") + ": what no rule allows is denied"
	}
	fmt.Fprintf(b, "\n%s: %s\n", title, state)
	for _, r := range e.Rules {
		now := counted(r.Pods, "pod")
		if r.Nodes > 0 {
			now += " and " + counted(r.Nodes, "node")
		}
		fmt.Fprintf(b, "  %s\n    %s %s %s (%s now), at %s\n", &r.Rule, r.Action, word, r.Peers, now, r.Ports)
	}
}
