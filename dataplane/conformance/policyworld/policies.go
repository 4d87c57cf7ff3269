package policyworld

import (
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

func (w *World) selector() *model.Selector {
	s := &model.Selector{}
	for w.IntN(2) == 0 && len(s.Requirements) < 3 {
		r := model.Requirement{Key: pick(w, keys), Operator: model.Operator(w.IntN(4))}
		if w.rarely() {
			r.Operator = model.Never
		}
		if r.Operator <= model.NotIn {
			for range 1 + w.IntN(2) {
				r.Values = append(r.Values, pick(w, values))
			}
			slices.Sort(r.Values)
			r.Values = slices.Compact(r.Values)
		}
		s.Requirements = append(s.Requirements, r)
	}
	return s
}

// namespaces chooses some, the policy's own as often as others.
func (w *World) namespaces(own string) *model.Selector {
	if own == "" || w.IntN(2) == 0 {
		return w.selector()
	}
	return &model.Selector{Requirements: []model.Requirement{{Key: metadataName, Values: []string{own}}}}
}

func (w *World) peer(namespace string) model.Peer {
	if w.IntN(2) == 0 {
		return model.Peer{Namespaces: w.namespaces(namespace), Pods: w.selector()}
	}
	if namespace == "" && w.sometimes() {
		if w.sometimes() {
			return model.Peer{Nodes: w.selector()}
		}
		return model.Peer{Domain: pick(w, domainPatterns)}
	}
	p := model.Peer{Block: pick(w, blocks)}
	for range w.IntN(4) {
		if e := pick(w, exceptions); e.Bits() >= p.Block.Bits() && p.Block.Contains(e.Addr()) {
			p.Except = append(p.Except, e)
		}
	}
	return p
}

func (w *World) port() model.PolicyPort {
	p := model.PolicyPort{Protocol: pick(w, protocols)}
	switch w.IntN(4) {
	case 0:
		p.Name = pick(w, portNames)
	case 1:
		p.To = 65535
	case 2:
		p.From = pick(w, ports)
		p.To = p.From
	default:
		p.From, p.To = pick(w, ports), pick(w, ports)
		p.From, p.To = min(p.From, p.To), max(p.From, p.To)
	}
	return p
}

// rule is any, also such that fits nothing.
func (w *World) rule(namespace string) (r model.PolicyRule) {
	if r.Anyone = w.sometimes(); !r.Anyone {
		for range w.IntN(4) {
			r.Peers = append(r.Peers, w.peer(namespace))
		}
	}
	if r.AnyPort = w.sometimes(); !r.AnyPort {
		for range w.IntN(4) {
			r.Ports = append(r.Ports, w.port())
		}
	}
	return r
}

func (w *World) addPolicy() {
	p := &model.Policy{PolicyKey: model.PolicyKey{Namespace: pick(w, names), Name: w.name()}, Pods: *w.selector()}
	for _, d := range model.Directions {
		if p.Isolates[d] = w.IntN(2) == 0; p.Isolates[d] {
			for range w.IntN(4) {
				p.Rules[d] = append(p.Rules[d], w.rule(p.Namespace))
			}
		}
	}
	w.Policies = w.Policies.With(p.PolicyKey, p)
}

func (w *World) addClusterPolicy() {
	p := &model.ClusterPolicy{
		Name: w.name(), Tier: pick(w, []model.Tier{model.AdminTier, model.BaselineTier}), Priority: int32(w.IntN(3)),
		Namespaces: w.selector(), Pods: w.selector(),
	}
	for _, d := range model.Directions {
		for range w.IntN(4) {
			p.Rules[d] = append(p.Rules[d], model.ClusterRule{Action: model.Action(w.IntN(3)), PolicyRule: w.rule("")})
		}
	}
	w.ClusterPolicies = w.ClusterPolicies.With(p.Name, p)
}

// Edit changes something, as a cluster would.
func (w *World) Edit() {
	switch w.IntN(16) {
	case 15:
		w.changeNode()
	case 0:
		w.addPod()
	case 1:
		w.Pods = w.Pods.Without(anyKey(w, w.Pods))
	case 2, 3, 4:
		w.changePod()
	case 5:
		w.Attachments = w.Attachments.Without(anyKey(w, w.Attachments))
	case 6:
		if pod, ok := w.Pods.Get(anyKey(w, w.Pods)); ok && !pod.HostNetwork {
			number := w.IntN(podNumbers)
			w.attach(pod, []netip.Addr{podAddress(0, number, model.IPv4), podAddress(0, number, model.IPv6)})
		}
	case 7:
		w.addNamespace(pick(w, names))
	case 8:
		w.addPolicy()
	case 9:
		w.Policies = w.Policies.Without(anyKey(w, w.Policies))
	case 10:
		w.addClusterPolicy()
	case 12:
		w.changeNameserver()
	case 13, 14:
		w.resolve()
	case 11:
		w.ClusterPolicies = w.ClusterPolicies.Without(anyKey(w, w.ClusterPolicies))
	}
}

// Relabel gives a namespace other labels, or makes one.
func (w *World) Relabel() { w.addNamespace(pick(w, names)) }

func (w *World) changePod() {
	old, ok := w.Pods.Get(anyKey(w, w.Pods))
	if !ok {
		return
	}
	pod := *old
	switch w.IntN(5) {
	case 0:
		pod.Finished = !pod.Finished
	case 3: // another one of its name
		pod.UID, pod.Node = model.UIDOf(w.name()), pick(w, []string{Here, "n2"})
	case 1:
		pod.Addresses = []netip.Addr{podAddress(1, w.IntN(podNumbers), model.IPv4)}
	case 2:
		pod.Ports = []model.ContainerPort{{Name: pick(w, portNames), Protocol: pick(w, protocols), Port: pick(w, ports[1:])}}
	default:
		pod.Labels = w.labels()
	}
	w.Pods = w.Pods.With(pod.PodKey, &pod)
}

// changeNode gives a node other labels, or addresses, which another one may have.
func (w *World) changeNode() {
	old, ok := w.Nodes.Get(anyKey(w, w.Nodes))
	if !ok {
		return
	}
	node := *old
	if node.Labels = w.labels(); w.sometimes() {
		node.External = []netip.Addr{pick(w, strangers)}
	}
	w.Nodes = w.Nodes.With(node.Name, &node)
}

// anyKey is one of a map, the same for the same seed; zero if there is none.
func anyKey[K, V comparable](w *World, m model.Map[K, V]) (key K) {
	all := sortedKeys(m)
	if len(all) == 0 {
		return key
	}
	return pick(w, all)
}
