package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-net/fairlead/model"
)

// state is the Services of a cluster and their endpoints, as they change.
type state struct {
	random  *rand.Rand
	objects map[string]metav1.Object // by path and key
	steps   int
}

// slots is how many Services there may be at a time.
const slots = 40

func newState(seed uint64, config int) *state {
	return &state{random: rand.New(rand.NewPCG(seed, uint64(config))), objects: map[string]metav1.Object{}}
}

// change is an object as it is from now on, or that is gone.
type change struct {
	object metav1.Object
	gone   bool
}

// all are the objects, sorted.
func (s *state) all() (objects []metav1.Object) {
	for _, key := range slices.Sorted(maps.Keys(s.objects)) {
		objects = append(objects, s.objects[key])
	}
	return objects
}

// step changes some Services, all at first, and tells which and how.
func (s *state) step() (changed []int, changes []change) {
	if s.steps++; s.steps == 1 {
		for slot := range slots {
			changed = append(changed, slot)
		}
	} else {
		changed = s.random.Perm(slots)[:1+s.random.IntN(8)]
	}
	for _, slot := range changed {
		changes = append(changes, s.alter(slot)...)
	}
	return changed, changes
}

// alter gives a slot another Service, or its Service other endpoints, or takes
// some of it away.
func (s *state) alter(slot int) (changes []change) {
	before := s.of(slot)
	service, _ := s.objects[servicesPath+serviceName(slot)].(*corev1.Service)
	var after []metav1.Object
	switch act := s.random.IntN(20); {
	case act == 0: // all of it goes
	case act == 1 && service != nil: // the endpoints go
		after = append(after, service)
	case act == 2: // the endpoints stay without a Service
		after = slices.DeleteFunc(slices.Clone(before), func(o metav1.Object) bool { return o == metav1.Object(service) && service != nil })
	case act < 9: // one endpoint comes, goes or changes
		for _, object := range before {
			after = append(after, s.nudge(object))
		}
	case act < 13 && service != nil: // other endpoints
		after = append([]metav1.Object{service}, s.endpoints(slot, service)...)
	default:
		service = s.service(slot)
		after = append([]metav1.Object{service}, s.endpoints(slot, service)...)
	}
	for _, object := range before {
		if !slices.ContainsFunc(after, func(o metav1.Object) bool { return keyOf(o) == keyOf(object) && pathOf(o) == pathOf(object) }) {
			changes = append(changes, change{object, true})
			delete(s.objects, pathOf(object)+keyOf(object))
		}
	}
	for _, object := range after {
		if !slices.Contains(before, object) {
			changes = append(changes, change{object, false})
			s.objects[pathOf(object)+keyOf(object)] = object
		}
	}
	s.random.Shuffle(len(changes), func(i, j int) { changes[i], changes[j] = changes[j], changes[i] })
	return changes
}

// of are the objects of a slot.
func (s *state) of(slot int) (objects []metav1.Object) {
	for _, object := range s.all() {
		if object.GetAnnotations()["slot"] == fmt.Sprint(slot) {
			objects = append(objects, object)
		}
	}
	return objects
}

func serviceName(slot int) string { return "differ/s" + fmt.Sprint(slot) }

func (s *state) chance(percent int) bool { return s.random.IntN(100) < percent }

func pick[T any](s *state, from ...T) T { return from[s.random.IntN(len(from))] }

func (s *state) meta(slot int, name string, labels map[string]string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: "differ", Name: name, Labels: labels, Annotations: map[string]string{"slot": fmt.Sprint(slot)},
		CreationTimestamp: metav1.NewTime(time.Unix(int64(1_700_000_000+s.steps), 0).UTC()),
	}
}

// The addresses that a slot may have.
func clusterIPs(slot, variant int) pair {
	return both(fmt.Sprintf("10.96.%d.%d", 1+variant, slot), fmt.Sprintf("fd96::%d:%d", 1+variant, slot))
}

func outerIPs(slot, variant int) pair {
	return both(fmt.Sprintf("203.0.%d.%d", 113+variant, slot), fmt.Sprintf("2001:db8:%d::%d", 113+variant, slot))
}

// ownPort is the first of three that no other slot has, at which it may share an
// address with others.
func ownPort(slot int) int32 { return int32(1000 + 4*slot) }

// shared are addresses that others may have, too: one of load balancers, the
// node's own, and those of the next slot. They may be contested then.
func (s *state) shared(slot int, spec *corev1.ServiceSpec) pair {
	if spec.Ports[0].Port < 1000 && !s.chance(10) {
		return pair{}
	}
	neighbor := (slot + 1) % slots
	return pick(s, both("203.0.116.1", "2001:db8:116::1"), nodeAt(0), outerIPs(neighbor, 0), clusterIPs(neighbor, 0), pair{}, pair{})
}

func nodePort(slot, port, variant int) int32 { return int32(30000 + 16*slot + 2*port + variant) }

// service is one of any kind, as the API server would take it.
func (s *state) service(slot int) *corev1.Service {
	object := &corev1.Service{ObjectMeta: s.meta(slot, fmt.Sprintf("s%d", slot), map[string]string{})}
	spec := &object.Spec
	spec.Type = pick(s, corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeLoadBalancer)
	if s.chance(4) {
		spec.Type, spec.ExternalName = corev1.ServiceTypeExternalName, "elsewhere.example"
		return object
	}
	if s.chance(4) {
		object.Labels["service.kubernetes.io/service-proxy-name"] = "another"
	}
	spec.IPFamilies = pick(s, []corev1.IPFamily{corev1.IPv4Protocol}, []corev1.IPFamily{corev1.IPv6Protocol},
		[]corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}, []corev1.IPFamily{corev1.IPv6Protocol, corev1.IPv4Protocol},
		[]corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol})
	own := clusterIPs(slot, s.random.IntN(2))
	for _, family := range spec.IPFamilies {
		spec.ClusterIPs = append(spec.ClusterIPs, own[familyOf(family)].String())
	}
	if s.chance(4) {
		spec.Type, spec.ClusterIPs = corev1.ServiceTypeClusterIP, []string{corev1.ClusterIPNone}
		object.Labels[corev1.IsHeadlessService] = ""
	}
	spec.ClusterIP = spec.ClusterIPs[0]
	s.addPorts(slot, spec)
	if s.chance(20) {
		spec.SessionAffinity = corev1.ServiceAffinityClientIP
		spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(int32(600))}}
	}
	if s.chance(30) {
		spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyLocal)
	}
	if spec.ClusterIP != corev1.ClusterIPNone && s.chance(25) {
		addr := outerIPs(slot, 2)
		if shared := s.shared(slot, spec); shared[0].IsValid() {
			addr = shared
		}
		spec.ExternalIPs = []string{addr[0].String(), addr[1].String()}[:1+s.random.IntN(2)]
	}
	if (spec.Type != corev1.ServiceTypeClusterIP || len(spec.ExternalIPs) > 0) && s.chance(45) {
		spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	}
	spec.PublishNotReadyAddresses = s.chance(10)
	if spec.Type == corev1.ServiceTypeLoadBalancer {
		s.addLoadBalancer(slot, object)
	}
	return object
}

func familyOf(family corev1.IPFamily) model.Family {
	if family == corev1.IPv6Protocol {
		return model.IPv6
	}
	return model.IPv4
}

// addPorts gives a Service ports, of which one may be both TCP and UDP.
func (s *state) addPorts(slot int, spec *corev1.ServiceSpec) {
	variant := s.random.IntN(2)
	first := int32(80)
	if s.chance(25) {
		first = ownPort(slot)
	}
	for i := range 1 + s.random.IntN(3) {
		port := corev1.ServicePort{Name: string(rune('a' + i)), Protocol: pick(s, corev1.ProtocolTCP, corev1.ProtocolUDP), Port: first + int32(i)}
		if i > 0 && s.chance(50) {
			last := spec.Ports[i-1]
			if i == 1 || spec.Ports[i-2].Port != last.Port {
				port.Port, port.Protocol = last.Port, corev1.ProtocolTCP
				if last.Protocol == corev1.ProtocolTCP {
					port.Protocol = corev1.ProtocolUDP
				}
			}
		}
		if spec.Type != corev1.ServiceTypeClusterIP {
			port.NodePort = nodePort(slot, i, variant)
			if i > 0 && spec.Ports[i-1].Port == port.Port {
				port.NodePort = spec.Ports[i-1].NodePort
			}
		}
		spec.Ports = append(spec.Ports, port)
	}
	if len(spec.Ports) == 1 && s.chance(50) {
		spec.Ports[0].Name = ""
	}
}

func (s *state) addLoadBalancer(slot int, object *corev1.Service) {
	spec := &object.Spec
	if s.chance(20) {
		spec.AllocateLoadBalancerNodePorts = new(false)
		for i := range spec.Ports {
			spec.Ports[i].NodePort = 0
		}
	}
	if spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		spec.HealthCheckNodePort = int32(32000 + slot)
	}
	for variant := range s.random.IntN(3) {
		addresses := outerIPs(slot, variant)
		if shared := s.shared(slot, spec); variant == 0 && shared[0].IsValid() {
			addresses = shared
		}
		for _, addr := range addresses {
			ingress := corev1.LoadBalancerIngress{IP: addr.String()}
			switch s.random.IntN(5) {
			case 0:
				ingress.IPMode = new(corev1.LoadBalancerIPModeProxy)
			case 1, 2:
				ingress.IPMode = new(corev1.LoadBalancerIPModeVIP)
			}
			if s.chance(80) {
				object.Status.LoadBalancer.Ingress = append(object.Status.LoadBalancer.Ingress, ingress)
			}
		}
	}
	if s.chance(10) {
		object.Status.LoadBalancer.Ingress = append(object.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{Hostname: "lb.example"})
	}
	if s.chance(40) {
		ranges := []string{
			"198.51.100.0/25", "198.51.100.128/25", "198.51.100.0/24", "10.244.0.0/16", "10.244.0.2/32", " 192.0.2.0/24 ", "192.0.2.1/32", "0.0.0.0/0", "203.0.113.0/24",
			"2001:db8:51::/49", "2001:db8:51:8000::/49", "fd00:10:244::/60", "fd00:10:244::2/128", "2001:db8:1::/64", "2001:db8:1::1/128", "::/0",
		}
		s.random.Shuffle(len(ranges), func(i, j int) { ranges[i], ranges[j] = ranges[j], ranges[i] })
		spec.LoadBalancerSourceRanges = ranges[:1+s.random.IntN(4)]
	}
}

// candidates are all that may be endpoints, with their nodes.
func candidates() (addresses []pair, nodeNames []string) {
	for pod := range localPods {
		addresses, nodeNames = append(addresses, podAt(0, pod)), append(nodeNames, self)
	}
	for i, addr := range peerAddresses() {
		addresses, nodeNames = append(addresses, addr), append(nodeNames, []string{"far1", "", "far1", "far1", "far1", "far2", "far2", "far2"}[i])
	}
	return append(addresses, nodeAt(0)), append(nodeNames, self)
}

// endpoints are the slices of a Service: one or two of each family, in which
// ports may be at other numbers.
func (s *state) endpoints(slot int, service *corev1.Service) (objects []metav1.Object) {
	addresses, nodeNames := candidates()
	count := pick(s, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 6)
	chosen := s.random.Perm(len(addresses))[:count]
	if s.chance(25) { // of one place alone
		here := s.chance(50)
		chosen = slices.DeleteFunc(chosen, func(i int) bool { return (nodeNames[i] == self) != here })
	}
	mood, hinted := s.random.IntN(7), s.random.IntN(4)
	for _, family := range model.Families {
		if s.chance(5) {
			continue
		}
		for part := range 1 + s.random.IntN(2) {
			labels := map[string]string{discoveryv1.LabelServiceName: service.Name}
			for key, value := range service.Labels {
				labels[key] = value
			}
			slice := &discoveryv1.EndpointSlice{
				ObjectMeta:  s.meta(slot, fmt.Sprintf("s%d-%s-%d", slot, family, part), labels),
				AddressType: addressTypes[family], Ports: s.endpointPorts(service), Endpoints: []discoveryv1.Endpoint{},
			}
			for n, i := range chosen {
				if n%2 != part && !s.chance(5) {
					continue
				}
				endpoint := discoveryv1.Endpoint{Addresses: []string{addresses[i][family].String()}, Conditions: s.conditions(mood)}
				if nodeNames[i] != "" {
					endpoint.NodeName = &nodeNames[i]
				}
				endpoint.Hints = s.hints(hinted)
				slice.Endpoints = append(slice.Endpoints, endpoint)
			}
			objects = append(objects, slice)
		}
	}
	return objects
}

// nudge changes one endpoint of a slice; the rest stays.
func (s *state) nudge(object metav1.Object) metav1.Object {
	slice, ok := object.(*discoveryv1.EndpointSlice)
	if !ok {
		return object
	}
	slice = slice.DeepCopy()
	all := slice.Endpoints
	switch at := s.random.IntN(len(all) + 1); {
	case at == len(all) || s.chance(40):
		addresses, nodeNames := candidates()
		i := s.random.IntN(len(addresses))
		added := discoveryv1.Endpoint{Addresses: []string{addresses[i][slices.Index(addressTypes[:], slice.AddressType)].String()}}
		if nodeNames[i] != "" {
			added.NodeName = &nodeNames[i]
		}
		if !slices.ContainsFunc(all, func(e discoveryv1.Endpoint) bool { return e.Addresses[0] == added.Addresses[0] }) {
			slice.Endpoints = append(all, added)
		}
	case s.chance(70):
		slice.Endpoints = slices.Delete(all, at, at+1)
	default:
		all[at].Conditions = s.conditions(6)
	}
	return slice
}

func (s *state) endpointPorts(service *corev1.Service) (ports []discoveryv1.EndpointPort) {
	for _, port := range service.Spec.Ports {
		if s.chance(5) {
			continue
		}
		ports = append(ports, discoveryv1.EndpointPort{
			Name: new(port.Name), Protocol: new(port.Protocol), Port: new(int32(pick(s, targetPorts()...))),
		})
	}
	return ports
}

// conditions follow a mood, so that there are Services without an endpoint that
// is ready, and those where all are.
func (s *state) conditions(mood int) discoveryv1.EndpointConditions {
	of := func(ready, serving, terminating bool) discoveryv1.EndpointConditions {
		return discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating}
	}
	switch {
	case mood < 4 || mood == 4 && s.chance(50):
		return pick(s, of(true, true, false), of(true, true, false), discoveryv1.EndpointConditions{})
	case mood == 5:
		return pick(s, of(false, true, true), of(false, false, true), of(false, false, false))
	}
	return pick(s,
		of(true, true, false), of(false, true, true), of(false, false, true), of(false, false, false),
		of(true, false, false), of(true, true, true), of(true, false, true), // as publishNotReadyAddresses has it
		discoveryv1.EndpointConditions{Ready: new(false)}, discoveryv1.EndpointConditions{Terminating: new(true)},
		discoveryv1.EndpointConditions{Ready: new(false), Terminating: new(true)}, of(false, true, false),
	)
}

func (s *state) hints(hinted int) *discoveryv1.EndpointHints {
	if hinted > 1 || s.chance(5) {
		return nil
	}
	hints := &discoveryv1.EndpointHints{}
	for _, zone := range pick(s, []string{"z1"}, []string{"z2"}, []string{"z1", "z2"}) {
		hints.ForZones = append(hints.ForZones, discoveryv1.ForZone{Name: zone})
	}
	if hinted == 1 {
		hints.ForNodes = []discoveryv1.ForNode{{Name: pick(s, self, "far1", "far2")}}
	}
	return hints
}

// aim chooses what is called of a slot: mostly what its Service has, else what it
// might have.
func (s *state) aim(slot int) (model.Protocol, netip.AddrPort) {
	service, _ := s.objects[servicesPath+serviceName(slot)].(*corev1.Service)
	if service != nil && len(service.Spec.Ports) > 0 && s.chance(90) {
		of := pick(s, service.Spec.Ports...)
		protocol := model.TCP
		if of.Protocol == corev1.ProtocolUDP {
			protocol = model.UDP
		}
		var own []netip.AddrPort
		for _, text := range slices.Concat(service.Spec.ClusterIPs, service.Spec.ExternalIPs, ingresses(service)) {
			if addr, err := netip.ParseAddr(text); err == nil {
				own = append(own, netip.AddrPortFrom(addr, uint16(of.Port)))
			}
		}
		for _, addr := range nodeAt(0) {
			if of.NodePort != 0 {
				own = append(own, netip.AddrPortFrom(addr, uint16(of.NodePort)))
			}
		}
		if len(own) > 0 {
			return protocol, pick(s, own...)
		}
	}
	family, port := s.random.IntN(2), uint16(pick(s, 80, 80, 81, 82, 99, ownPort(slot)))
	var all []netip.AddrPort
	for variant := range 3 {
		all = append(all, netip.AddrPortFrom(clusterIPs(slot, variant)[family], port), netip.AddrPortFrom(outerIPs(slot, variant)[family], port))
	}
	all = append(all,
		netip.AddrPortFrom(nodeAt(0)[family], uint16(nodePort(slot, s.random.IntN(3), s.random.IntN(2)))),
		netip.AddrPortFrom(secondAddress()[family], uint16(nodePort(slot, s.random.IntN(3), s.random.IntN(2)))))
	return pick(s, model.TCP, model.UDP), pick(s, all...)
}

func ingresses(service *corev1.Service) (addresses []string) {
	for _, ingress := range service.Status.LoadBalancer.Ingress {
		addresses = append(addresses, ingress.IP)
	}
	return addresses
}
