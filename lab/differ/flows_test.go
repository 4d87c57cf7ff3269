package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-net/fairlead/model"
)

// The tests of this file are about packets whose fate is known: those that the
// unit tests of kube-proxy follow, told anew. Each is tried in both families, and
// judged by the oracle, by Fairlead's data plane, and by kube-proxy itself.

// scene is a Service with endpoints, and what becomes of calls to it.
type scene struct {
	name      string
	change    func(*corev1.Service) // of one with every kind of address
	endpoints string                // names, with a colon and a state if they are not ready
	flows     []flow
}

// flow is who calls what, and the endpoints that he may reach and whom they see,
// or how he fails.
type flow struct{ from, to, want string }

// scenery is a scene of a slot.
type scenery struct {
	scene
	slot int
}

// places are the names of endpoints in scenes.
func places() map[string]pair {
	return map[string]pair{
		"pod0": podAt(0, 0), "pod2": podAt(0, 2), "pod3": podAt(0, 3), "node": nodeAt(0), "far0": podAt(1, 0), "far1": podAt(2, 1), "away": stranger(2),
	}
}

// states are the conditions of endpoints in scenes: ready, serving, terminating.
func states() map[string][3]bool {
	return map[string][3]bool{"": {true, true, false}, "unready": {}, "leaving": {false, true, true}, "gone": {false, false, true}}
}

// objects are the Service and its slices. Ports are at 9000 and up, in order.
func (s scenery) objects() (objects []metav1.Object) {
	meta := metav1.ObjectMeta{Namespace: "differ", Name: fmt.Sprintf("s%d", s.slot), Annotations: map[string]string{"slot": fmt.Sprint(s.slot)}}
	own, outer, more, external := clusterIPs(s.slot, 0), outerIPs(s.slot, 0), outerIPs(s.slot, 1), outerIPs(s.slot, 2)
	service := &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeLoadBalancer, ClusterIP: own[0].String(), ClusterIPs: []string{own[0].String(), own[1].String()},
		IPFamilies:  []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol},
		ExternalIPs: []string{external[0].String(), external[1].String()},
		Ports:       []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, NodePort: nodePort(s.slot, 0, 0)}},
	}}
	for _, addr := range []netip.Addr{outer[0], outer[1], more[0], more[1]} {
		service.Status.LoadBalancer.Ingress = append(service.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: addr.String()})
	}
	if s.change != nil {
		s.change(service)
	}
	objects = append(objects, service)
	for _, family := range model.Families {
		slice := &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "differ", Name: fmt.Sprintf("s%d-%s", s.slot, family), Labels: map[string]string{discoveryv1.LabelServiceName: service.Name},
			},
			AddressType: addressTypes[family], Endpoints: []discoveryv1.Endpoint{},
		}
		for i, port := range service.Spec.Ports {
			slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: new(port.Name), Protocol: new(port.Protocol), Port: new(int32(targetPorts()[i%4]))})
		}
		for _, text := range strings.Fields(s.endpoints) {
			name, state, _ := strings.Cut(text, ":")
			is := states()[state]
			endpoint := discoveryv1.Endpoint{
				Addresses:  []string{places()[name][family].String()},
				Conditions: discoveryv1.EndpointConditions{Ready: new(is[0]), Serving: new(is[1]), Terminating: new(is[2])},
			}
			if node, ok := map[string]string{"far0": "far1", "far1": "far2", "away": ""}[name]; !ok {
				endpoint.NodeName = new(self)
			} else if node != "" {
				endpoint.NodeName = new(node)
			}
			slice.Endpoints = append(slice.Endpoints, endpoint)
		}
		objects = append(objects, slice)
	}
	return objects
}

// target is what a flow calls: an address, and a port that is not 80 over TCP.
func (s scenery) target(to string, family model.Family) (model.Protocol, netip.AddrPort) {
	kind, port, _ := strings.Cut(to, " port ")
	protocol, number := model.TCP, uint16(80)
	if port != "" {
		var name string
		if _, err := fmt.Sscanf(port, "%d/%s", &number, &name); err != nil {
			panic(to)
		}
		protocol, _ = model.ParseProtocol(name)
	}
	node := uint16(nodePort(s.slot, 0, 0))
	switch kind {
	case "ClusterIP":
		return protocol, netip.AddrPortFrom(clusterIPs(s.slot, 0)[family], number)
	case "no Service":
		return protocol, netip.AddrPortFrom(clusterIPs(s.slot, 1)[family], number)
	case "external IP":
		return protocol, netip.AddrPortFrom(outerIPs(s.slot, 2)[family], number)
	case "balancer":
		return protocol, netip.AddrPortFrom(outerIPs(s.slot, 0)[family], number)
	case "balancer 2":
		return protocol, netip.AddrPortFrom(outerIPs(s.slot, 1)[family], number)
	case "node port":
		return protocol, netip.AddrPortFrom(nodeAt(0)[family], node)
	case "second node port":
		return protocol, netip.AddrPortFrom(secondAddress()[family], node)
	}
	panic(to)
}

// wanted are the answers of a flow.
func wanted(f flow, from pair, family model.Family) (all []answer) {
	switch f.want {
	case "refused":
		return []answer{{refused: true}}
	case "silence":
		return []answer{{}}
	}
	endpoints, see, _ := strings.Cut(f.want, " see ")
	for _, text := range strings.Fields(endpoints) {
		name, port, other := strings.Cut(text, ":")
		number := targetPorts()[0]
		if other {
			if _, err := fmt.Sscan(port, &number); err != nil {
				panic(f.want)
			}
		}
		seen := from[family]
		if see == "the node" {
			seen = nodeAt(0)[family]
		}
		all = append(all, answer{server: netip.AddrPortFrom(places()[name][family], number), seen: seen})
	}
	return all
}

func sorted(answers []answer) []string {
	var texts []string
	for _, a := range answers {
		texts = append(texts, a.String())
	}
	slices.Sort(texts)
	return texts
}

// play puts up scenes, each in a slot of its own, and follows their packets.
func (b *bench) play(t *testing.T, before []metav1.Object, scenes []scene) (objects []metav1.Object) {
	t.Helper()
	var changes []change
	for slot, s := range scenes {
		for _, object := range (scenery{s, slot}).objects() {
			objects, changes = append(objects, object), append(changes, change{object: object})
		}
	}
	for _, object := range before {
		if !slices.ContainsFunc(objects, func(o metav1.Object) bool { return keyOf(o) == keyOf(object) && pathOf(o) == pathOf(object) }) {
			changes = append(changes, change{object, true})
		}
	}
	if err := b.carry(t.Context(), changes, objects); err != nil {
		t.Fatal(err)
	}
	var questions []question
	names := map[call]string{}
	for slot, s := range scenes {
		for _, f := range s.flows {
			from := slices.IndexFunc(b.clients, func(c client) bool { return c.name == f.from })
			for _, family := range model.Families {
				protocol, to := scenery{s, slot}.target(f.to, family)
				c := call{&b.clients[from], protocol, to}
				q := b.plane.question(c)
				names[c] = fmt.Sprintf("%s: %s to %s", s.name, f.from, f.to)
				if want := wanted(f, c.client.source, family); !slices.Equal(sorted(want), sorted(q.want)) {
					t.Errorf("%s over %s: the oracle has %v; it should have %v", names[c], family, sorted(q.want), sorted(want))
				}
				if protocol != model.SCTP { // of which not every kernel has sockets: by the oracle alone
					questions = append(questions, q)
				}
			}
		}
	}
	findings, err := b.compare(questions)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		t.Errorf("%s: %s", names[f.call], f)
	}
	t.Log(&b.tally)
	return objects
}

func local(s *corev1.Service) {
	s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
}

func inner(s *corev1.Service) {
	s.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyLocal)
}

func ranges(s *corev1.Service) {
	s.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24", " 198.51.100.0/25", "2001:db8:1::/64 ", "2001:db8:51::/49"}
}

func TestFlows(t *testing.T) {
	b := startBench(t, config{})
	objects := b.play(t, nil, scenes())
	b.play(t, objects, []scene{
		{"its endpoints are gone", local, "", refusedAll()},
		{"it serves again", nil, "pod2 far0", []flow{{"pod 1", "ClusterIP", "pod2 far0 see the client"}, {"a stranger", "balancer", "pod2 far0 see the node"}}},
	})
}

// refusedAll: nobody takes connections, whichever way.
func refusedAll() (flows []flow) {
	for _, from := range []string{"pod 1", "the node", "a stranger"} {
		for _, to := range []string{"ClusterIP", "external IP", "balancer", "node port"} {
			flows = append(flows, flow{from, to, "refused"})
		}
	}
	return flows
}
