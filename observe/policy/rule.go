package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
	plan "github.com/fairlead-net/fairlead/plan/policy"
)

// Rule is one of a policy, in the words of its manifest. It only grows.
type Rule struct {
	Kind      string `json:"kind"` // NetworkPolicy or ClusterNetworkPolicy
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	Tier      string `json:"tier,omitempty"`     // of a ClusterNetworkPolicy
	Priority  *int32 `json:"priority,omitempty"` // likewise
	Field     string `json:"field"`              // such as spec.ingress[0]
	RuleName  string `json:"ruleName,omitempty"` // of a ClusterNetworkPolicy, may be empty
	Action    string `json:"action"`             // Accept, Deny or Pass
	// Peers and Ports are those that fit the connection, or all if none does.
	Peers string `json:"peers"`
	Ports string `json:"ports"`
}

func (r *Rule) String() string {
	text := r.Kind + " " + model.PolicyKey{Namespace: r.Namespace, Name: r.Name}.String()
	if r.Tier != "" {
		text += fmt.Sprintf(" (%s, priority %d)", r.Tier, *r.Priority)
	}
	text += ", " + r.Field
	if r.RuleName != "" {
		text += fmt.Sprintf(" %q", r.RuleName)
	}
	return text
}

// asked is a connection that rules are put into words for.
type asked struct {
	snapshot  *model.Snapshot
	direction model.Direction
	peer      peer
	way       way
}

// peer is the other end of a pod: its address, and the pod that has it, or nil.
type peer struct {
	addr netip.Addr
	pod  *model.Pod
}

// String says what a pod is to selectors.
func (p peer) String() string {
	if p.pod.Labels == (model.Labels{}) {
		return "a pod without labels of " + p.pod.Namespace
	}
	return fmt.Sprintf("a pod with %s of %s", p.pod.Labels, p.pod.Namespace)
}

// peerOf finds the other end. The owner of an address is one of both ends mostly.
func peerOf(s *model.Snapshot, addr netip.Addr, of way) peer {
	switch {
	case addr == of.source:
		return peer{addr, of.from.pod}
	case addr == of.at.Addr():
		return peer{addr, of.to.pod}
	}
	return peer{addr, podAt(s, addr)}
}

// ruleOf finds a rule in the snapshot; nil if it is not there.
func ruleOf(s *model.Snapshot, d model.Direction, by plan.Rule) (*Rule, *model.PolicyRule) {
	field := fmt.Sprintf("spec.%s[%d]", d, by.Rule)
	if by.Rule < 0 {
		return nil, nil
	}
	if by.Tier == model.NamespaceTier {
		p, ok := s.Policies.Get(by.Policy)
		if !ok || by.Rule >= len(p.Rules[d]) {
			return nil, nil
		}
		return &Rule{Kind: "NetworkPolicy", Namespace: by.Policy.Namespace, Name: by.Policy.Name, Field: field, Action: model.Accept.String()}, &p.Rules[d][by.Rule]
	}
	p, ok := s.ClusterPolicies.Get(by.Policy.Name)
	if !ok || by.Rule >= len(p.Rules[d]) {
		return nil, nil
	}
	of, priority := &p.Rules[d][by.Rule], p.Priority
	return &Rule{
		Kind: "ClusterNetworkPolicy", Name: p.Name, Tier: p.Tier.String(), Priority: &priority, Field: field,
		RuleName: of.Name, Action: of.Action.String(),
	}, &of.PolicyRule
}

// rule puts one into words.
func (a asked) rule(by plan.Rule) *Rule {
	r, of := ruleOf(a.snapshot, a.direction, by)
	if r != nil {
		r.Peers, r.Ports = peersText(of, a.fits), portsText(of, a.fitsPort)
	}
	return r
}

// fits tells whether the other end is one that a rule names.
func (a asked) fits(p *model.Peer) bool {
	if p.Block.IsValid() {
		fits := p.Block.Contains(a.peer.addr)
		for _, except := range p.Except {
			fits = fits && !except.Contains(a.peer.addr)
		}
		return fits
	}
	pod := a.peer.pod
	if p.Domain != "" {
		resolved, ok := a.snapshot.Resolved.Get(a.peer.addr)
		return ok && pod == nil && slices.ContainsFunc(resolved.Names, func(name string) bool { return model.FitsDomain(p.Domain, name) })
	}
	if p.Nodes != nil {
		return pod == nil && slices.ContainsFunc(nodesAt(a.snapshot, a.peer.addr), func(n *model.Node) bool { return p.Nodes.Matches(n.Labels) })
	}
	return pod != nil && p.Namespaces.Matches(labelsOf(a.snapshot, pod.Namespace)) && p.Pods.Matches(pod.Labels)
}

// fitsPort tells whether the port is one that a rule names: by name, it is that of
// the pod that is called.
func (a asked) fitsPort(p *model.PolicyPort) bool {
	port := a.way.at.Port()
	if p.Name == "" {
		return p.Protocol == a.way.protocol && p.From <= port && port <= p.To
	}
	if a.way.to.pod == nil || p.Protocol != a.way.protocol {
		return false
	}
	for _, own := range a.way.to.pod.Ports {
		if own.Name == p.Name && own.Protocol == p.Protocol {
			return own.Port == port // the first one counts
		}
	}
	return false
}

// mostPeers are how many are named.
const mostPeers = 4

// some joins texts, of which there may be thousands.
func some(texts []string, by string) string {
	if len(texts) > mostPeers {
		return strings.Join(texts[:mostPeers], by) + fmt.Sprintf("%s%d more", by, len(texts)-mostPeers)
	}
	return strings.Join(texts, by)
}

// peersText names the first peer that fits, or all.
func peersText(of *model.PolicyRule, fits func(*model.Peer) bool) string {
	var texts []string
	for i := range of.Peers {
		text := peerText(&of.Peers[i])
		if fits(&of.Peers[i]) {
			return text
		}
		texts = append(texts, text)
	}
	switch {
	case of.Anyone:
		return "anyone"
	case len(texts) == 0:
		return "nobody"
	}
	return some(texts, " or ")
}

func peerText(p *model.Peer) string {
	if p.Block.IsValid() {
		text := p.Block.String()
		for i, except := range p.Except {
			text += [...]string{" except ", ", "}[min(i, 1)] + except.String()
		}
		return text
	}
	if p.Domain != "" {
		return p.Domain
	}
	if p.Nodes != nil {
		if len(p.Nodes.Requirements) == 0 {
			return "all nodes"
		}
		return "nodes " + p.Nodes.String()
	}
	pods := "all pods"
	if len(p.Pods.Requirements) > 0 {
		pods = "pods " + p.Pods.String()
	}
	switch of := p.Namespaces.Requirements; {
	case len(of) == 0:
		return pods + " of all namespaces"
	case len(of) == 1 && of[0].Key == namespaceName && of[0].Operator == model.In && len(of[0].Values) == 1:
		return pods + " of " + of[0].Values[0]
	}
	return pods + " of namespaces " + p.Namespaces.String()
}

// portsText names the first port that fits, or all.
func portsText(of *model.PolicyRule, fits func(*model.PolicyPort) bool) string {
	var texts []string
	for i := range of.Ports {
		text := portText(&of.Ports[i])
		if fits(&of.Ports[i]) {
			return text
		}
		texts = append(texts, text)
	}
	switch {
	case of.AnyPort:
		return "any port"
	case len(texts) == 0:
		return "no port"
	}
	return some(texts, ", ")
}

func portText(p *model.PolicyPort) string {
	if p.Name != "" {
		return p.Name + "/" + p.Protocol.String()
	}
	return rangeText(p.Protocol, p.From, p.To)
}

func rangeText(protocol model.Protocol, from, to uint16) string {
	switch {
	case from == 0 && to == 65535:
		return protocol.String()
	case from == to:
		return fmt.Sprintf("%d/%s", from, protocol)
	}
	return fmt.Sprintf("%d-%d/%s", from, to, protocol)
}
