package kube

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairlead-net/fairlead/model"
)

// See sparseNodes.
func sparsePolicies() (*sparse[*networkingv1.NetworkPolicy, model.PolicyKey, *model.Policy], error) {
	return newSparse(networkingv1.SchemeGroupVersion, &networkingv1.NetworkPolicy{}, sharingPolicies(), "spec")
}

// convertPolicy leaves out of a policy what it does not understand, with a
// Problem, so that nothing is allowed which was not meant to be. The rest of the
// policy stands, and it isolates the pods that it selects. API servers check most
// of it; what comes by a newer one than this was made for, they do not.
func convertPolicy(object *networkingv1.NetworkPolicy) converted[model.PolicyKey, *model.Policy] {
	key := model.PolicyKey{Namespace: intern(object.Namespace), Name: object.Name}
	policy := &model.Policy{PolicyKey: key}
	r := policyReader{kind: "NetworkPolicy", resource: "networkpolicies", meta: &object.ObjectMeta}
	spec := &object.Spec
	policy.Isolates = r.isolates(spec)
	understood := r.subject("spec.podSelector", &spec.PodSelector, &policy.Pods)
	for _, d := range model.Directions {
		if !policy.Isolates[d] {
			continue
		}
		if d == model.Ingress {
			policy.Rules[d] = slices.Grow(policy.Rules[d], len(spec.Ingress))
			for i := range spec.Ingress {
				policy.Rules[d] = append(policy.Rules[d], r.rule(fmt.Sprintf("spec.ingress[%d]", i), "from", spec.Ingress[i].From, spec.Ingress[i].Ports))
			}
			continue
		}
		policy.Rules[d] = slices.Grow(policy.Rules[d], len(spec.Egress))
		for i := range spec.Egress {
			policy.Rules[d] = append(policy.Rules[d], r.rule(fmt.Sprintf("spec.egress[%d]", i), "to", spec.Egress[i].To, spec.Egress[i].Ports))
		}
	}
	r.countBlocks(policy)
	if !understood {
		policy.Rules = [len(model.Directions)][]model.PolicyRule{}
	}
	return converted[model.PolicyKey, *model.Policy]{key: key, value: policy, problems: r.problems}
}

// policyReader is a conversion of a policy in progress.
type policyReader struct {
	kind, resource string
	meta           *metav1.ObjectMeta
	problems       []model.Problem
}

// wrong says what is left out of a policy, and why.
func (r *policyReader) wrong(field string, err error) {
	where := r.resource + " " + r.meta.Name
	if r.meta.Namespace != "" {
		where = "-n " + r.meta.Namespace + " " + where
	}
	r.problems = append(r.problems, model.Problem{
		Kind: r.kind, Namespace: r.meta.Namespace, Name: r.meta.Name, Field: field, Reason: "InvalidPolicy",
		Message: err.Error(), Remedy: "correct it with kubectl edit " + where,
	})
}

// isolates are the directions of policyTypes. Without any, those of old clients:
// ingress, and egress if there are rules of it.
func (r *policyReader) isolates(spec *networkingv1.NetworkPolicySpec) (of [len(model.Directions)]bool) {
	for i, name := range spec.PolicyTypes {
		switch name {
		case networkingv1.PolicyTypeIngress:
			of[model.Ingress] = true
		case networkingv1.PolicyTypeEgress:
			of[model.Egress] = true
		default:
			r.wrong(fmt.Sprintf("spec.policyTypes[%d]", i), fmt.Errorf("%q is ignored: it is neither Ingress nor Egress", name))
		}
	}
	if of == [len(model.Directions)]bool{} {
		of[model.Ingress], of[model.Egress] = true, len(spec.Egress) > 0
	}
	return of
}

func (r *policyReader) rule(field, list string, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) model.PolicyRule {
	rule := model.PolicyRule{Anyone: len(peers) == 0, AnyPort: len(ports) == 0}
	for i := range peers {
		field := fmt.Sprintf("%s.%s[%d]", field, list, i)
		if peer, ok := r.peer(field, &peers[i]); ok {
			rule.Peers = append(rule.Peers, peer)
		}
	}
	for i := range ports {
		port, err := policyPort(&ports[i])
		if err != nil {
			r.wrong(fmt.Sprintf("%s.ports[%d]", field, i), fmt.Errorf("it allows nothing: %w", err))
			continue
		}
		rule.Ports = append(rule.Ports, port)
	}
	return rule
}

func (r *policyReader) peer(field string, peer *networkingv1.NetworkPolicyPeer) (to model.Peer, ok bool) {
	switch choosesPods := peer.PodSelector != nil || peer.NamespaceSelector != nil; {
	case choosesPods && peer.IPBlock != nil:
		r.wrong(field, errors.New("it allows nothing: it has an ipBlock beside a selector, and only one of them can be meant"))
		return to, false
	case peer.IPBlock != nil:
		return r.block(field+".ipBlock", peer.IPBlock)
	case !choosesPods:
		r.wrong(field, errors.New("it allows nothing: it has none of podSelector, namespaceSelector and ipBlock, and what else it may have is not understood"))
		return to, false
	}
	to.Namespaces, to.Pods = inNamespace(r.meta.Namespace), &model.Selector{}
	if peer.NamespaceSelector != nil {
		namespaces := r.selector(field+".namespaceSelector", nothingChosen, peer.NamespaceSelector)
		to.Namespaces = &namespaces
	}
	if peer.PodSelector != nil {
		pods := r.selector(field+".podSelector", nothingChosen, peer.PodSelector)
		to.Pods = &pods
	}
	return to, true
}

// inNamespace chooses one namespace.
func inNamespace(name string) *model.Selector {
	return &model.Selector{Requirements: []model.Requirement{{Key: corev1.LabelMetadataName, Operator: model.In, Values: []string{name}}}}
}

// block fails as a whole if one of its exceptions is not understood: what was
// excepted would be allowed.
func (r *policyReader) block(field string, block *networkingv1.IPBlock) (to model.Peer, ok bool) {
	var err error
	if to.Block, err = policyPrefix(block.CIDR); err != nil {
		r.wrong(field+".cidr", fmt.Errorf("it allows nothing: %w", err))
		return to, false
	}
	for i, text := range block.Except {
		field := fmt.Sprintf("%s.except[%d]", field, i)
		except, err := policyPrefix(text)
		switch {
		case err != nil:
			r.wrong(field, fmt.Errorf("the whole block allows nothing: %w", err))
			return to, false
		case !to.Block.Overlaps(except):
			r.wrong(field, fmt.Errorf("%s is ignored: it is outside of %s", except, to.Block))
			continue
		case except.Bits() <= to.Block.Bits():
			r.wrong(field, fmt.Errorf("the block allows nothing: %s excepts all of %s", except, to.Block))
			return to, false
		}
		to.Except = append(to.Except, except)
	}
	return to, true
}

// manyBlocks is how many ranges of addresses one policy has without a remark.
const manyBlocks = 1000

// manyBlocksReason is that of a remark on a policy of which all is understood.
const manyBlocksReason = "ManyBlocks"

// countBlocks remarks on a policy with thousands of ranges. All of them are in
// force.
func (r *policyReader) countBlocks(policy *model.Policy) {
	blocks, most, field := 0, 0, ""
	for _, d := range model.Directions {
		for i := range policy.Rules[d] {
			of := 0
			for _, peer := range policy.Rules[d][i].Peers {
				if peer.Block.IsValid() {
					of += 1 + len(peer.Except)
				}
			}
			if blocks += of; of > most {
				most, field = of, fmt.Sprintf("spec.%s[%d].%s", ruleLists[d], i, peerLists[d])
			}
		}
	}
	if blocks <= manyBlocks {
		return
	}
	r.problems = append(r.problems, model.Problem{
		Kind: r.kind, Namespace: r.meta.Namespace, Name: r.meta.Name, Field: field, Reason: manyBlocksReason,
		Message: fmt.Sprintf("the policy has %d ranges of addresses, %d of them here; all are in force, and cost connections no more than a few would, but whatever changes in the policy, each node with pods of it reads and plans all of them anew", blocks, most),
		Remedy:  "join ranges that lie side by side, and keep what changes often in a policy of its own",
	})
}

// policyPrefix reads a range of addresses. One of IPv4 that is written as IPv6 is
// of IPv4, as its packets are.
func policyPrefix(text string) (netip.Prefix, error) {
	prefix, err := parsePrefix(text)
	if err == nil && prefix.Addr().Is4In6() && prefix.Bits() >= 96 {
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
	}
	return prefix, err
}

func policyPort(port *networkingv1.NetworkPolicyPort) (to model.PolicyPort, err error) {
	var protocol corev1.Protocol
	if port.Protocol != nil {
		protocol = *port.Protocol
	}
	if to.Protocol, err = protocolOf(protocol); err != nil {
		return to, err
	}
	switch {
	case port.Port == nil && port.EndPort != nil:
		return to, fmt.Errorf("endPort %d has no port where the range begins", *port.EndPort)
	case port.Port == nil:
		to.To = 65535
		return to, nil
	case port.Port.Type == intstr.String && port.EndPort != nil:
		return to, fmt.Errorf("endPort %d follows the name %q; a range begins with a number", *port.EndPort, port.Port.StrVal)
	case port.Port.Type == intstr.String && port.Port.StrVal == "":
		return to, errors.New("its port has neither a number nor a name")
	case port.Port.Type == intstr.String:
		to.Name = intern(port.Port.StrVal)
		return to, nil
	}
	from, end := port.Port.IntVal, port.Port.IntVal
	if port.EndPort != nil {
		end = *port.EndPort
	}
	to.From, to.To, err = portRange(from, end)
	return to, err
}

// portRange checks the two ends of a range.
func portRange(from, to int32) (uint16, uint16, error) {
	for _, number := range []int32{from, to} {
		if number < 1 || number > 65535 {
			return 0, 0, fmt.Errorf("port %d is not between 1 and 65535", number)
		}
	}
	if from > to {
		return 0, 0, fmt.Errorf("the range of ports ends at %d, before it begins at %d", to, from)
	}
	return uint16(from), uint16(to), nil
}

// subject converts the selector of the pods that a policy is for, and tells whether
// all of it was understood. If not, it chooses pods that may not be meant: they
// are isolated as well, and the policy must allow nobody anything.
func (r *policyReader) subject(field string, selector *metav1.LabelSelector, to *model.Selector) bool {
	*to = r.selector(field, "the policy is for more pods than may be meant, and allows none of them anything", selector)
	known := slices.DeleteFunc(slices.Clone(to.Requirements), func(q model.Requirement) bool { return q.Operator == model.Never })
	understood := len(known) == len(to.Requirements)
	to.Requirements = known
	return understood
}

// nothingChosen is what comes of the selector of a peer that is not understood.
const nothingChosen = "it chooses nothing"

// selector converts one that was given. A requirement that is not understood holds
// for no object.
func (r *policyReader) selector(field, otherwise string, selector *metav1.LabelSelector) (to model.Selector) {
	for key, value := range selector.MatchLabels {
		to.Requirements = append(to.Requirements, model.Requirement{Key: intern(key), Operator: model.In, Values: []string{intern(value)}})
	}
	for i := range selector.MatchExpressions {
		requirement, err := requirementOf(&selector.MatchExpressions[i])
		if err != nil {
			r.wrong(fmt.Sprintf("%s.matchExpressions[%d]", field, i), fmt.Errorf("%s: %w", otherwise, err))
		}
		to.Requirements = append(to.Requirements, requirement)
	}
	slices.SortFunc(to.Requirements, func(a, b model.Requirement) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Operator, b.Operator), slices.Compare(a.Values, b.Values))
	})
	return to
}

func requirementOf(from *metav1.LabelSelectorRequirement) (to model.Requirement, err error) {
	to = model.Requirement{Key: intern(from.Key), Operator: model.Never}
	switch operator := from.Operator; operator {
	case metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn:
		if len(from.Values) == 0 {
			return to, fmt.Errorf("%s has no values", operator)
		}
		to.Operator = model.In
		if operator == metav1.LabelSelectorOpNotIn {
			to.Operator = model.NotIn
		}
		for _, value := range from.Values {
			to.Values = append(to.Values, intern(value))
		}
		slices.Sort(to.Values)
		to.Values = slices.Compact(to.Values)
	case metav1.LabelSelectorOpExists:
		to.Operator = model.Exists
	case metav1.LabelSelectorOpDoesNotExist:
		to.Operator = model.DoesNotExist
	default:
		known := []string{string(metav1.LabelSelectorOpIn), string(metav1.LabelSelectorOpNotIn),
			string(metav1.LabelSelectorOpExists), string(metav1.LabelSelectorOpDoesNotExist)}
		return to, fmt.Errorf("the operator %q is none of %s", operator, strings.Join(known, ", "))
	}
	return to, nil
}
