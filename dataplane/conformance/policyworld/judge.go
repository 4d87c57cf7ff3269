package policyworld

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// Connection is what a pod of this node has or wants: with whom, and to which
// port of who is called. Protocols without ports have port 0.
type Connection struct {
	Direction model.Direction
	Pod, Peer netip.Addr
	Protocol  model.Protocol
	Port      uint16
}

// Verdict is what becomes of it, and the policy that denies it.
type Verdict struct {
	Allowed bool
	Tier    model.Tier
	Policy  model.PolicyKey
	Rule    int // its index; NoRule; Unknown
}

// Values of Verdict.Rule that are no index.
const (
	NoRule  = -1 // a NetworkPolicy isolates the pod, and none has a rule that allows it
	Unknown = -2 // nobody knows the pod; Policy names it
)

// Judge decides as the API's documentation says, one policy after the other. It
// knows no plan. What is not defined, because two pods have one address, is
// not ok.
func Judge(s *model.Snapshot, c Connection) (v Verdict, ok bool) {
	at, ok := subject(s, c.Pod)
	if at == nil || !ok {
		return Verdict{Allowed: true}, ok
	}
	pod := podOf(s, at)
	if pod == nil {
		return Verdict{Policy: model.PolicyKey(at.Pod), Rule: Unknown}, true
	}
	if pod.HostNetwork {
		return Verdict{Allowed: true}, true
	}
	q := question{s: s, Connection: c, pod: pod}
	nameserver, target := NameserverAt(s, c.Peer, c.Protocol, c.Port)
	if nameserver != nil && c.Direction == model.Egress {
		q.Port = target
	}
	switch owners := podsAt(s, c.Peer); {
	case nameserver != nil && len(owners) == 0:
		q.peer = nameserver
	case nameserver != nil:
		return v, false
	case c.Pod == c.Peer:
		if isPeer(pod) {
			q.peer = pod
		}
	case len(owners) > 1:
		return v, false
	case len(owners) == 1:
		q.peer = owners[0]
	}
	return q.judge(), true
}

// subject is the attachment of this node that has an address. Of several, one
// whose pod runs has it, and one whose pod may be running goes before one whose
// pod has ended.
func subject(s *model.Snapshot, addr netip.Addr) (at *model.Attachment, ok bool) {
	rank := func(a *model.Attachment) int {
		switch of := podOf(s, a); {
		case of == nil:
			return 1
		case of.Finished:
			return 2
		}
		return 0
	}
	var all []*model.Attachment
	for _, a := range s.Attachments.All() {
		if slices.Contains(a.Addresses, addr) {
			all = append(all, a)
		}
	}
	slices.SortFunc(all, func(a, b *model.Attachment) int {
		return cmp.Or(rank(a)-rank(b), cmp.Compare(a.Pod.String(), b.Pod.String()))
	})
	if len(all) == 0 {
		return nil, true
	}
	return all[0], len(all) == 1 || all[0].Pod == all[1].Pod || rank(all[0]) != rank(all[1])
}

// podOf is the pod of an attachment; nil if it is not known, though another of
// its name may be.
func podOf(s *model.Snapshot, a *model.Attachment) *model.Pod {
	pod, ok := s.Pods.Get(a.Pod)
	if !ok || pod.Node != "" && pod.Node != Here || a.UID != pod.UID && a.UID != (model.UID{}) && pod.UID != (model.UID{}) {
		return nil
	}
	return pod
}

// podsAt are the pods that an address means, as a peer.
func podsAt(s *model.Snapshot, addr netip.Addr) (all []*model.Pod) {
	for _, pod := range s.Pods.All() {
		if isPeer(pod) && slices.Contains(Addresses(s, pod), addr) {
			all = append(all, pod)
		}
	}
	return all
}

func isPeer(pod *model.Pod) bool { return !pod.HostNetwork && !pod.Finished }

// Addresses are a pod's: those that this node gave it, or else those of its
// status.
func Addresses(s *model.Snapshot, pod *model.Pod) (all []netip.Addr) {
	for _, a := range s.Attachments.All() {
		if podOf(s, a) == pod {
			all = append(all, a.Addresses...)
		}
	}
	if len(all) > 0 {
		return all
	}
	return pod.Addresses
}

// question is a connection of a pod that is known.
type question struct {
	s *model.Snapshot
	Connection
	pod  *model.Pod
	peer *model.Pod // nil: the other end is no pod, or that of a node's network
}

func (q *question) judge() Verdict {
	if v, decided := q.tier(model.AdminTier); decided {
		return v
	}
	var isolating []*model.Policy
	for _, p := range q.s.Policies.All() {
		if p.Namespace == q.pod.Namespace && p.Isolates[q.Direction] && chooses(&p.Pods, q.pod.Labels) {
			isolating = append(isolating, p)
		}
	}
	if len(isolating) == 0 {
		if v, decided := q.tier(model.BaselineTier); decided {
			return v
		}
		return Verdict{Allowed: true}
	}
	for _, p := range isolating {
		for i := range p.Rules[q.Direction] {
			if q.Pod == q.Peer || q.fits(&p.Rules[q.Direction][i]) {
				return Verdict{Allowed: true}
			}
		}
	}
	if q.Pod == q.Peer { // a pod may always call itself
		return Verdict{Allowed: true}
	}
	first := slices.MinFunc(isolating, func(a, b *model.Policy) int { return cmp.Compare(a.Name, b.Name) })
	return Verdict{Tier: model.NamespaceTier, Policy: first.PolicyKey, Rule: NoRule}
}

// tier asks the ClusterNetworkPolicies of a tier, by priority.
func (q *question) tier(tier model.Tier) (v Verdict, decided bool) {
	var all []*model.ClusterPolicy
	for _, p := range q.s.ClusterPolicies.All() {
		if p.Tier == tier && chooses(p.Namespaces, namespaceLabels(q.s, q.pod.Namespace)) && chooses(p.Pods, q.pod.Labels) {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b *model.ClusterPolicy) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Name, b.Name))
	})
	for _, p := range all {
		for i := range p.Rules[q.Direction] {
			rule := &p.Rules[q.Direction][i]
			if !q.fits(&rule.PolicyRule) {
				continue
			}
			switch rule.Action {
			case model.Accept:
				return Verdict{Allowed: true}, true
			case model.Deny:
				return Verdict{Tier: tier, Policy: model.PolicyKey{Name: p.Name}, Rule: i}, true
			case model.Pass:
				return v, false
			}
		}
	}
	return v, false
}

func (q *question) fits(rule *model.PolicyRule) bool {
	peer, port := rule.Anyone, rule.AnyPort
	for _, p := range rule.Peers {
		peer = peer || q.fitsPeer(p)
	}
	for _, p := range rule.Ports {
		port = port || q.fitsPort(p)
	}
	return peer && port
}

func (q *question) fitsPeer(p model.Peer) bool {
	if p.Namespaces != nil {
		return q.peer != nil && chooses(p.Namespaces, namespaceLabels(q.s, q.peer.Namespace)) && chooses(p.Pods, q.peer.Labels)
	}
	if p.Domain != "" {
		return q.fitsDomain(p.Domain)
	}
	if p.Nodes != nil {
		return q.peer == nil && q.fitsNode(p.Nodes)
	}
	for _, except := range p.Except {
		if except.Contains(q.Peer) {
			return false
		}
	}
	return p.Block.Contains(q.Peer)
}

// fitsNode tells whether one of the nodes that are chosen has the address.
func (q *question) fitsNode(chosen *model.Selector) bool {
	for _, node := range q.s.Nodes.All() {
		if chooses(chosen, node.Labels) && (slices.Contains(node.Addresses, q.Peer) || slices.Contains(node.External, q.Peer)) {
			return true
		}
	}
	return false
}

func (q *question) fitsPort(p model.PolicyPort) bool {
	if p.Protocol != q.Protocol {
		return false
	}
	if p.Name == "" {
		return p.From <= q.Port && q.Port <= p.To
	}
	called := q.pod
	if q.Direction == model.Egress {
		called = q.peer
	}
	if called == nil {
		return false
	}
	for _, port := range called.Ports {
		if port.Name == p.Name && port.Protocol == p.Protocol {
			return port.Port == q.Port
		}
	}
	return false
}

func namespaceLabels(s *model.Snapshot, name string) model.Labels {
	if n, ok := s.Namespaces.Get(name); ok {
		return n.Labels
	}
	return model.LabelsOf(map[string]string{metadataName: name})
}

// metadataName is the label that the API server gives to each namespace.
const metadataName = "kubernetes.io/metadata.name"

// chooses is what the API says of label selectors.
func chooses(s *model.Selector, labels model.Labels) bool {
	has := map[string]string{}
	for key, value := range labels.All() {
		has[key] = value
	}
	for _, r := range s.Requirements {
		value, ok := has[r.Key]
		listed := slices.Contains(r.Values, value)
		met := map[model.Operator]bool{
			model.In: ok && listed, model.NotIn: !ok || !listed, model.Exists: ok, model.DoesNotExist: !ok,
		}[r.Operator]
		if !met {
			return false
		}
	}
	return true
}
