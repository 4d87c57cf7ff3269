package kube

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/fairlead-net/fairlead/model"
)

// convertClusterPolicy fails closed as the API wants it: a rule of which a peer or a
// protocol is not understood fits nothing if it accepts, and else denies
// everything. Where it is not understood for whom a policy is, or when it is asked,
// it accepts nothing and denies what it denies or passes.
func convertClusterPolicy(object *v1alpha2.ClusterNetworkPolicy) converted[string, *model.ClusterPolicy] {
	policy := &model.ClusterPolicy{Name: intern(object.Name), Priority: object.Spec.Priority}
	r := clusterReader{policyReader: policyReader{kind: "ClusterNetworkPolicy", resource: "clusternetworkpolicies", meta: &object.ObjectMeta}}
	spec := &object.Spec
	r.understood = r.tier(spec.Tier, policy)
	r.understood = r.subjectOf(&spec.Subject, policy) && r.understood
	for i := range spec.Ingress {
		from := &spec.Ingress[i]
		rule := clusterRule{field: fmt.Sprintf("spec.ingress[%d]", i), whole: true, to: model.ClusterRule{Name: intern(from.Name)}}
		for j := range from.From {
			r.source(&rule, fmt.Sprintf("%s.from[%d]", rule.field, j), &from.From[j])
		}
		policy.Rules[model.Ingress] = append(policy.Rules[model.Ingress], r.finish(&rule, from.Action, from.Protocols))
	}
	for i := range spec.Egress {
		from := &spec.Egress[i]
		rule := clusterRule{field: fmt.Sprintf("spec.egress[%d]", i), action: from.Action, whole: true, to: model.ClusterRule{Name: intern(from.Name)}}
		for j := range from.To {
			r.destination(&rule, fmt.Sprintf("%s.to[%d]", rule.field, j), &from.To[j])
		}
		policy.Rules[model.Egress] = append(policy.Rules[model.Egress], r.finish(&rule, from.Action, from.Protocols))
	}
	return converted[string, *model.ClusterPolicy]{key: policy.Name, value: policy, problems: r.problems}
}

// clusterReader is a conversion in progress.
type clusterReader struct {
	policyReader
	understood bool // for whom the policy is, and when it is asked
}

func (r *clusterReader) tier(tier v1alpha2.Tier, to *model.ClusterPolicy) bool {
	switch tier {
	case v1alpha2.AdminTier:
		to.Tier = model.AdminTier
	case v1alpha2.BaselineTier:
		to.Tier = model.BaselineTier
	default:
		// First of all, where others can least allow what it denies.
		r.wrong("spec.tier", fmt.Errorf("%q is neither Admin nor Baseline: the policy is taken for one of Admin that accepts nothing", tier))
		return false
	}
	return true
}

func (r *clusterReader) subjectOf(subject *v1alpha2.ClusterNetworkPolicySubject, to *model.ClusterPolicy) bool {
	to.Namespaces, to.Pods = &model.Selector{}, &model.Selector{}
	switch {
	case subject.Namespaces != nil && subject.Pods == nil:
		return r.subject("spec.subject.namespaces", subject.Namespaces, to.Namespaces)
	case subject.Pods != nil && subject.Namespaces == nil:
		namespaces := r.subject("spec.subject.pods.namespaceSelector", &subject.Pods.NamespaceSelector, to.Namespaces)
		return r.subject("spec.subject.pods.podSelector", &subject.Pods.PodSelector, to.Pods) && namespaces
	}
	r.wrong("spec.subject", errors.New("the policy is for all pods and accepts nothing: it has not just one of namespaces and pods, and what else it may have is not understood"))
	return false
}

// clusterRule is a rule that is being read.
type clusterRule struct {
	field  string
	action v1alpha2.ClusterNetworkPolicyRuleAction
	whole  bool // all of it was understood so far
	to     model.ClusterRule
}

// unclear says that a part of a rule is not understood.
func (r *clusterReader) unclear(rule *clusterRule, field string, err error) {
	rule.whole = false
	r.wrong(field, fmt.Errorf("the rule accepts nothing, or else denies everything: %w", err))
}

func (r *clusterReader) source(rule *clusterRule, field string, peer *v1alpha2.ClusterNetworkPolicyIngressPeer) {
	if (peer.Namespaces == nil) == (peer.Pods == nil) {
		r.unclear(rule, field, errors.New("it has not just one of namespaces and pods, and what else it may have is not understood"))
		return
	}
	r.pods(rule, field, peer.Namespaces, peer.Pods)
}

func (r *clusterReader) destination(rule *clusterRule, field string, peer *v1alpha2.ClusterNetworkPolicyEgressPeer) {
	given := 0
	for _, has := range []bool{peer.Namespaces != nil, peer.Pods != nil, len(peer.Networks) > 0, peer.Nodes != nil, len(peer.DomainNames) > 0} {
		if has {
			given++
		}
	}
	switch {
	case given != 1:
		r.unclear(rule, field, errors.New("it has not just one of namespaces, pods, networks, nodes and domainNames, and what else it may have is not understood"))
	case peer.Nodes != nil:
		nodes := &model.Selector{}
		r.choose(rule, field+".nodes", peer.Nodes, nodes)
		rule.to.Peers = append(rule.to.Peers, model.Peer{Nodes: nodes})
	case len(peer.DomainNames) > 0:
		r.domains(rule, field+".domainNames", peer.DomainNames)
	case len(peer.Networks) > 0:
		for i, text := range peer.Networks {
			prefix, err := policyPrefix(string(text))
			if err != nil {
				r.unclear(rule, fmt.Sprintf("%s.networks[%d]", field, i), err)
				continue
			}
			rule.to.Peers = append(rule.to.Peers, model.Peer{Block: prefix})
		}
	default:
		r.pods(rule, field, peer.Namespaces, peer.Pods)
	}
}

// domains adds peers that are names. What they mean is known by and by, so they
// can only accept: a rule that denies would let pass what nobody has asked for yet.
func (r *clusterReader) domains(rule *clusterRule, field string, names []v1alpha2.DomainName) {
	if rule.action != v1alpha2.ClusterNetworkPolicyRuleActionAccept {
		r.unclear(rule, field, fmt.Errorf("domain names can only be accepted, and the action is %q; accept those that are allowed, and deny the networks 0.0.0.0/0 and ::/0 behind that", rule.action))
		return
	}
	for i, text := range names {
		domain, err := parseDomain(string(text))
		if err != nil {
			r.unclear(rule, fmt.Sprintf("%s[%d]", field, i), err)
			continue
		}
		rule.to.Peers = append(rule.to.Peers, model.Peer{Domain: domain})
	}
}

// parseDomain reads a name, or *. and a name: in lower case, without the dot at the
// end.
func parseDomain(text string) (string, error) {
	domain := strings.ToLower(strings.TrimSuffix(text, "."))
	name := strings.TrimPrefix(domain, "*.")
	if len(name) > 253 {
		return "", fmt.Errorf("%q is longer than 253 characters", text)
	}
	labels := strings.Split(name, ".")
	for _, label := range labels {
		if len(labels) < 2 || label == "" || len(label) > 63 || strings.ContainsFunc(label, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
		}) {
			return "", fmt.Errorf("%q is no domain name of two parts or more, such as www.example.com, nor *. and one", text)
		}
	}
	return intern(domain), nil
}

// pods adds a peer that is all pods of some namespaces, or some of them.
func (r *clusterReader) pods(rule *clusterRule, field string, namespaces *metav1.LabelSelector, pods *v1alpha2.NamespacedPod) {
	peer := model.Peer{Namespaces: &model.Selector{}, Pods: &model.Selector{}}
	if namespaces != nil {
		r.choose(rule, field+".namespaces", namespaces, peer.Namespaces)
	} else {
		r.choose(rule, field+".pods.namespaceSelector", &pods.NamespaceSelector, peer.Namespaces)
		r.choose(rule, field+".pods.podSelector", &pods.PodSelector, peer.Pods)
	}
	rule.to.Peers = append(rule.to.Peers, peer)
}

// choose reads a selector of a peer.
func (r *clusterReader) choose(rule *clusterRule, field string, selector *metav1.LabelSelector, to *model.Selector) {
	*to = r.selector(field, "the rule accepts nothing, or else denies everything", selector)
	if slices.ContainsFunc(to.Requirements, func(q model.Requirement) bool { return q.Operator == model.Never }) {
		rule.whole = false
	}
}

// finish adds ports and the action.
func (r *clusterReader) finish(rule *clusterRule, action v1alpha2.ClusterNetworkPolicyRuleAction, protocols []v1alpha2.ClusterNetworkPolicyProtocol) model.ClusterRule {
	to := &rule.to
	if len(to.Peers) == 0 && rule.whole {
		r.unclear(rule, rule.field, errors.New("it has no peer"))
	}
	to.AnyPort = len(protocols) == 0
	for i := range protocols {
		ports, err := clusterPorts(&protocols[i])
		if err != nil {
			r.unclear(rule, fmt.Sprintf("%s.protocols[%d]", rule.field, i), err)
		}
		to.Ports = append(to.Ports, ports...)
	}
	switch action {
	case v1alpha2.ClusterNetworkPolicyRuleActionAccept:
		to.Action = model.Accept
	case v1alpha2.ClusterNetworkPolicyRuleActionDeny:
		to.Action = model.Deny
	case v1alpha2.ClusterNetworkPolicyRuleActionPass:
		to.Action = model.Pass
	default:
		to.Action = model.Deny
		r.wrong(rule.field+".action", fmt.Errorf("%q is none of Accept, Deny and Pass: the rule denies", action))
	}
	switch {
	case to.Action == model.Accept && !(rule.whole && r.understood):
		return model.ClusterRule{Name: to.Name, Action: model.Accept} // fits nothing
	case !rule.whole:
		return model.ClusterRule{Name: to.Name, Action: model.Deny, PolicyRule: model.PolicyRule{Anyone: true, AnyPort: true}}
	case !r.understood:
		to.Action = model.Deny
	}
	return *to
}

// clusterPorts are more than one of a name, which ports of each protocol may have.
func clusterPorts(from *v1alpha2.ClusterNetworkPolicyProtocol) (to []model.PolicyPort, err error) {
	given := 0
	add := func(protocol model.Protocol, port *v1alpha2.Port) {
		given++
		read := model.PolicyPort{Protocol: protocol, To: 65535}
		if port != nil {
			begin, end := port.Number, port.Number
			if port.Range != nil {
				begin, end = port.Range.Start, port.Range.End
			}
			if port.Range != nil && port.Number != 0 {
				err = errors.New("it has both a number and a range")
				return
			}
			if read.From, read.To, err = portRange(begin, end); err != nil {
				return
			}
		}
		to = append(to, read)
	}
	if from.TCP != nil {
		add(model.TCP, from.TCP.DestinationPort)
	}
	if from.UDP != nil {
		add(model.UDP, from.UDP.DestinationPort)
	}
	if from.SCTP != nil {
		add(model.SCTP, from.SCTP.DestinationPort)
	}
	if name := from.DestinationNamedPort; name != "" {
		given++
		for _, protocol := range []model.Protocol{model.TCP, model.UDP, model.SCTP} {
			to = append(to, model.PolicyPort{Protocol: protocol, Name: intern(name)})
		}
	}
	switch {
	case err != nil:
		return nil, err
	case given != 1:
		return nil, errors.New("it has not just one of tcp, udp, sctp and destinationNamedPort, and what else it may have is not understood")
	}
	return to, nil
}
