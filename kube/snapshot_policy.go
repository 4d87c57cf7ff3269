package kube

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/fairlead-net/fairlead/model"
)

var clusterPolicyVersion = metav1.GroupVersion(v1alpha2.GroupVersion).String()

// writePolicies writes the documents of a snapshot that are about policies, sorted.
func (d *documents) writePolicies(snapshot *model.Snapshot) {
	for _, name := range slices.Sorted(keys(snapshot.Namespaces)) {
		namespace, _ := snapshot.Namespaces.Get(name)
		d.write(object{
			"apiVersion": "v1", "kind": "Namespace",
			"metadata": object{"name": namespace.Name, "labels": maps.Collect(namespace.Labels.All())},
		})
	}
	for _, key := range slices.SortedFunc(keys(snapshot.Policies), func(a, b model.PolicyKey) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	}) {
		policy, _ := snapshot.Policies.Get(key)
		d.write(policy)
	}
	for _, name := range slices.Sorted(keys(snapshot.ClusterPolicies)) {
		policy, _ := snapshot.ClusterPolicies.Get(name)
		d.write(clusterPolicyObjectOf(policy))
	}
}

// How lists of rules and of peers are named, by direction.
var (
	ruleLists = [...]string{model.Ingress: "ingress", model.Egress: "egress"}
	peerLists = [...]string{model.Ingress: "from", model.Egress: "to"}
)

func policyObjectOf(p *model.Policy) object {
	spec := object{"podSelector": selectorObjectOf(&p.Pods)}
	types := []networkingv1.PolicyType{}
	for _, of := range policyTypes {
		d := of.Direction
		if !p.Isolates[d] {
			continue
		}
		types = append(types, of.name)
		var rules []object
		for i := range p.Rules[d] {
			rules = append(rules, policyRuleObjectOf(&p.Rules[d][i], peerLists[d]))
		}
		if rules != nil {
			spec[ruleLists[d]] = rules
		}
	}
	spec["policyTypes"] = types
	metadata := object{"namespace": p.Namespace, "name": p.Name}
	for _, d := range model.Directions {
		if slices.ContainsFunc(p.Rules[d], wordless) {
			noteUnderstood(metadata, p)
		}
	}
	return object{
		"apiVersion": networkingv1.SchemeGroupVersion.String(), "kind": "NetworkPolicy",
		"metadata": metadata, "spec": spec,
	}
}

// understoodNote is an annotation of policies in files alone. Where the API has no words
// for what a policy was understood as, such as a rule that denies everybody, its
// document is as near as it can be, and this is what it means: the policy of the
// model, as JSON. If that changes, so does the number.
const understoodNote = "fairlead.io/understood-1"

// wordless tells whether the API has no words for a rule: it fits nothing, or has a
// selector that was not understood.
func wordless(r model.PolicyRule) bool {
	return !r.Anyone && len(r.Peers) == 0 || !r.AnyPort && len(r.Ports) == 0 ||
		slices.ContainsFunc(r.Peers, func(peer model.Peer) bool { return never(peer.Namespaces) || never(peer.Pods) || never(peer.Nodes) })
}

func never(s *model.Selector) bool {
	return s != nil && slices.ContainsFunc(s.Requirements, func(q model.Requirement) bool { return q.Operator == model.Never })
}

func noteUnderstood(metadata object, policy any) {
	text, err := json.Marshal(policy)
	if err != nil {
		panic("a policy is no JSON: " + err.Error()) // of plain fields
	}
	metadata["annotations"] = object{understoodNote: string(text)}
}

// asUnderstood converts policies of files. The API server's are never asked for the
// annotation.
func asUnderstood[T any, P interface {
	*T
	metav1.Object
}, K comparable, V any](convert func(*T) converted[K, *V]) func(*T) converted[K, *V] {
	return func(object *T) converted[K, *V] {
		made := convert(object)
		text, ok := P(object).GetAnnotations()[understoodNote]
		if !ok {
			return made
		}
		value := new(V)
		if err := json.Unmarshal([]byte(text), value); err != nil {
			made.problems = append(made.problems, model.Problem{Field: "metadata.annotations." + understoodNote, Message: err.Error()})
			return made
		}
		made.value, made.problems = value, nil
		return made
	}
}

// nobody is a selector that chooses nothing: the API has no other word for it.
func nobody() object {
	return object{"matchExpressions": []object{
		{"key": "nobody", "operator": metav1.LabelSelectorOpExists}, {"key": "nobody", "operator": metav1.LabelSelectorOpDoesNotExist},
	}}
}

// policyRuleObjectOf writes a rule that fits nothing so that it does not when it is
// read: an empty list would be everything.
func policyRuleObjectOf(r *model.PolicyRule, list string) object {
	if !r.Anyone && len(r.Peers) == 0 || !r.AnyPort && len(r.Ports) == 0 {
		return object{list: []object{{"namespaceSelector": object{}, "podSelector": nobody()}}}
	}
	rule := object{}
	var peers, ports []object
	for i := range r.Peers {
		peer := &r.Peers[i]
		if peer.Block.IsValid() {
			block := object{"cidr": peer.Block}
			if len(peer.Except) > 0 {
				block["except"] = peer.Except
			}
			peers = append(peers, object{"ipBlock": block})
			continue
		}
		peers = append(peers, object{"namespaceSelector": selectorObjectOf(peer.Namespaces), "podSelector": selectorObjectOf(peer.Pods)})
	}
	for _, port := range r.Ports {
		written := object{"protocol": port.Protocol}
		switch {
		case port.Name != "":
			written["port"] = port.Name
		case port.From != 0:
			written["port"] = port.From
			if port.To != port.From {
				written["endPort"] = port.To
			}
		}
		ports = append(ports, written)
	}
	if peers != nil {
		rule[list] = peers
	}
	if ports != nil {
		rule["ports"] = ports
	}
	return rule
}

func selectorObjectOf(s *model.Selector) object {
	all := []object{}
	for _, requirement := range s.Requirements {
		if requirement.Operator == model.Never {
			return nobody()
		}
		written := object{"key": requirement.Key, "operator": requirement.Operator.String()}
		if len(requirement.Values) > 0 {
			written["values"] = requirement.Values
		}
		all = append(all, written)
	}
	if len(all) == 0 {
		return object{}
	}
	return object{"matchExpressions": all}
}

func clusterPolicyObjectOf(p *model.ClusterPolicy) object {
	spec := object{
		"tier": p.Tier.String(), "priority": p.Priority,
		"subject": object{"pods": object{"namespaceSelector": selectorObjectOf(p.Namespaces), "podSelector": selectorObjectOf(p.Pods)}},
	}
	for _, d := range model.Directions {
		var rules []object
		for i := range p.Rules[d] {
			rules = append(rules, clusterRuleObjectOf(&p.Rules[d][i], d))
		}
		if rules != nil {
			spec[ruleLists[d]] = rules
		}
	}
	metadata := object{"name": p.Name}
	for _, d := range model.Directions {
		if slices.ContainsFunc(p.Rules[d], func(r model.ClusterRule) bool { return r.Anyone || wordless(r.PolicyRule) }) {
			noteUnderstood(metadata, p)
		}
	}
	return object{
		"apiVersion": clusterPolicyVersion, "kind": "ClusterNetworkPolicy",
		"metadata": metadata, "spec": spec,
	}
}

// clusterRuleObjectOf is like policyRuleObjectOf. Everybody, which the API has no word
// for, is all pods or all addresses, and noted; see understoodNote.
func clusterRuleObjectOf(r *model.ClusterRule, d model.Direction) object {
	rule := object{"action": r.Action.String()}
	if r.Name != "" {
		rule["name"] = r.Name
	}
	var peers []object
	pods := func(namespaces, pods object) {
		peers = append(peers, object{"pods": object{"namespaceSelector": namespaces, "podSelector": pods}})
	}
	list := func(of string, one any) { // with its like before it
		if last := len(peers) - 1; last >= 0 && peers[last][of] != nil {
			peers[last][of] = append(peers[last][of].([]any), one)
			return
		}
		peers = append(peers, object{of: []any{one}})
	}
	for i := range r.Peers {
		switch peer := &r.Peers[i]; {
		case peer.Block.IsValid():
			list("networks", peer.Block)
		case peer.Domain != "":
			list("domainNames", peer.Domain)
		case peer.Nodes != nil:
			peers = append(peers, object{"nodes": selectorObjectOf(peer.Nodes)})
		default:
			pods(selectorObjectOf(peer.Namespaces), selectorObjectOf(peer.Pods))
		}
	}
	switch {
	case r.Anyone && d == model.Egress:
		list("networks", "0.0.0.0/0")
		list("networks", "::/0")
	case r.Anyone:
		pods(object{}, object{})
	case len(r.Peers) == 0 || !r.AnyPort && len(r.Ports) == 0:
		peers = nil
		pods(nobody(), object{})
	}
	rule[peerLists[d]] = peers
	if ports := clusterPortObjects(r.Ports); ports != nil {
		rule["protocols"] = ports
	}
	return rule
}

func clusterPortObjects(ports []model.PolicyPort) (all []object) {
	fields := map[model.Protocol]string{model.TCP: "tcp", model.UDP: "udp", model.SCTP: "sctp"}
	for _, port := range ports {
		var written object
		switch {
		case port.Name != "" && port.Protocol != model.TCP:
			continue // is of all protocols
		case port.Name != "":
			written = object{"destinationNamedPort": port.Name}
		case port.From == 0:
			written = object{fields[port.Protocol]: object{}}
		case port.From == port.To:
			written = object{fields[port.Protocol]: object{"destinationPort": object{"number": port.From}}}
		default:
			written = object{fields[port.Protocol]: object{"destinationPort": object{"range": object{"start": port.From, "end": port.To}}}}
		}
		all = append(all, written)
	}
	return all
}
