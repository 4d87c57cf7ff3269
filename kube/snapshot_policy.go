package kube

import (
	"cmp"
	"maps"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/fairlead-net/fairlead/model"
)

var clusterPolicyVersion = metav1.GroupVersion(v1alpha2.GroupVersion).String()

// policyObjects are the documents of a snapshot that are about policies, sorted.
func policyObjects(snapshot *model.Snapshot) (documents []any) {
	for _, name := range slices.Sorted(keys(snapshot.Namespaces)) {
		namespace, _ := snapshot.Namespaces.Get(name)
		documents = append(documents, object{
			"apiVersion": "v1", "kind": "Namespace",
			"metadata": object{"name": namespace.Name, "labels": maps.Collect(namespace.Labels.All())},
		})
	}
	for _, key := range slices.SortedFunc(keys(snapshot.Policies), func(a, b model.PolicyKey) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	}) {
		policy, _ := snapshot.Policies.Get(key)
		documents = append(documents, policyObjectOf(policy))
	}
	for _, name := range slices.Sorted(keys(snapshot.ClusterPolicies)) {
		policy, _ := snapshot.ClusterPolicies.Get(name)
		documents = append(documents, clusterPolicyObjectOf(policy))
	}
	return documents
}

// How lists of rules and of peers are named, by direction.
var (
	ruleLists = [...]string{model.Ingress: "ingress", model.Egress: "egress"}
	peerLists = [...]string{model.Ingress: "from", model.Egress: "to"}
)

func policyObjectOf(p *model.Policy) object {
	spec := object{"podSelector": selectorObjectOf(&p.Pods)}
	types := []networkingv1.PolicyType{}
	for d, name := range map[model.Direction]networkingv1.PolicyType{
		model.Ingress: networkingv1.PolicyTypeIngress, model.Egress: networkingv1.PolicyTypeEgress,
	} {
		if !p.Isolates[d] {
			continue
		}
		types = append(types, name)
		var rules []object
		for i := range p.Rules[d] {
			rules = append(rules, policyRuleObjectOf(&p.Rules[d][i], peerLists[d]))
		}
		if rules != nil {
			spec[ruleLists[d]] = rules
		}
	}
	slices.Sort(types)
	spec["policyTypes"] = types
	return object{
		"apiVersion": networkingv1.SchemeGroupVersion.String(), "kind": "NetworkPolicy",
		"metadata": object{"namespace": p.Namespace, "name": p.Name}, "spec": spec,
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
	return object{
		"apiVersion": clusterPolicyVersion, "kind": "ClusterNetworkPolicy",
		"metadata": object{"name": p.Name}, "spec": spec,
	}
}

// clusterRuleObjectOf is like policyRuleObjectOf. Everybody, which the API has only
// for what it does not understand, is all pods and all addresses.
func clusterRuleObjectOf(r *model.ClusterRule, d model.Direction) object {
	rule := object{"action": r.Action.String()}
	if r.Name != "" {
		rule["name"] = r.Name
	}
	var peers []object
	pods := func(namespaces, pods object) {
		peers = append(peers, object{"pods": object{"namespaceSelector": namespaces, "podSelector": pods}})
	}
	var networks []any
	var domains []string
	for i := range r.Peers {
		switch peer := &r.Peers[i]; {
		case peer.Block.IsValid():
			networks = append(networks, peer.Block)
		case peer.Domain != "":
			domains = append(domains, peer.Domain)
		default:
			pods(selectorObjectOf(peer.Namespaces), selectorObjectOf(peer.Pods))
		}
	}
	switch {
	case r.Anyone && d == model.Egress:
		networks = []any{"0.0.0.0/0", "::/0"}
	case r.Anyone:
		pods(object{}, object{})
	case len(r.Peers) == 0 || !r.AnyPort && len(r.Ports) == 0:
		networks, domains, peers = nil, nil, nil
		pods(nobody(), object{})
	}
	if networks != nil {
		peers = append(peers, object{"networks": networks})
	}
	if domains != nil {
		peers = append(peers, object{"domainNames": domains})
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
