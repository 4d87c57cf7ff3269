package policyworld

import (
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
)

// nameservice is the Service of DNS of all worlds.
var nameservice = model.ServiceKey{Namespace: "red", Name: "names"}

// addNameserver adds the Service of DNS, or another one in its place.
func (w *World) addNameserver() {
	s := &model.Service{
		ServiceKey: nameservice, ClusterIPs: addresses("10.96.0.10", "fd96::a"),
		Ports: []model.ServicePort{{Name: "dns", Protocol: model.UDP, Port: 53}, {Name: "dns-tcp", Protocol: model.TCP, Port: 53}},
	}
	if w.rarely() {
		s.ClusterIPs = addresses("10.0.2.100") // among pods
	}
	serves := &model.Selected{Labels: w.labels()}
	for _, port := range s.Ports {
		target := model.ContainerPort{Protocol: port.Protocol, Port: pick(w, []uint16{53, 53, 80, 8081})}
		if w.sometimes() {
			target.Name, target.Port = pick(w, portNames), 0
		}
		serves.Ports = append(serves.Ports, target)
	}
	if serves.Labels != (model.Labels{}) {
		s.Serves = serves
	}
	w.Services = w.Services.With(s.ServiceKey, s)
}

// changeNameserver changes it, or where its ports lead.
func (w *World) changeNameserver() {
	switch w.IntN(4) {
	case 0:
		w.Services = w.Services.Without(nameservice)
	case 1:
		w.addNameserver()
	case 2:
		w.Slices = w.Slices.Without(anyKey(w, w.Slices))
	default:
		slice := &model.EndpointSlice{SliceKey: model.SliceKey{Namespace: nameservice.Namespace, Name: w.name()}, Service: pick(w, []string{nameservice.Name, "other"})}
		for _, port := range []model.EndpointPort{{Name: "dns", Protocol: model.UDP}, {Name: "dns-tcp", Protocol: model.TCP}} {
			port.Port = pick(w, ports[1:])
			slice.Ports = append(slice.Ports, port)
		}
		w.Slices = w.Slices.With(slice.SliceKey, slice)
	}
}

// NameserverAt is the pod that the Service of DNS stands for at an address, and
// the port of it that a port of the Service means; nil if it is not there.
func NameserverAt(s *model.Snapshot, addr netip.Addr, protocol model.Protocol, port uint16) (pod *model.Pod, target uint16) {
	service, ok := s.Services.Get(nameservice)
	if !ok || service.Serves == nil || service.ClusterIP(model.FamilyOf(addr)) != addr {
		return nil, port
	}
	pod = &model.Pod{PodKey: model.PodKey{Namespace: nameservice.Namespace, Name: "names"}, Labels: service.Serves.Labels}
	target = port
	for i, of := range service.Ports {
		at := service.Serves.Ports[i]
		if at.Port == 0 {
			at.Port = endpointPort(s, of)
		}
		pod.Ports = append(pod.Ports, model.ContainerPort{Name: of.Name, Protocol: of.Protocol, Port: at.Port})
		if at.Name != "" {
			pod.Ports = append(pod.Ports, at)
		}
		if of.Protocol == protocol && of.Port == port {
			target = at.Port
		}
	}
	return pod, target
}

// endpointPort is the least of those that endpoints say; without any, the
// Service's own.
func endpointPort(s *model.Snapshot, of model.ServicePort) (least uint16) {
	for _, slice := range s.Slices.All() {
		for _, port := range slice.Ports {
			if slice.Namespace == nameservice.Namespace && slice.Service == nameservice.Name && port.Name == of.Name && port.Protocol == of.Protocol && (least == 0 || port.Port < least) {
				least = port.Port
			}
		}
	}
	if least == 0 {
		return of.Port
	}
	return least
}
