package main

import (
	"encoding/json"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairlead-net/fairlead/model"
)

const namespaces = 100

// cluster is what both servers serve.
type cluster struct {
	settings
	snapshot *model.Snapshot
	lists    map[string][]byte // by path, as the API server answers
	upstream netip.AddrPort
}

func (c *cluster) isHeadless(i int) bool { return i%100 < c.headless }

func key(i int) (namespace, name string) {
	return fmt.Sprintf("namespace-%d", i%namespaces), fmt.Sprintf("service-%d", i)
}

func clusterIP(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}) }

func podIP(i, endpoint int) netip.Addr {
	n := i*16 + endpoint
	return netip.AddrFrom4([4]byte{10, byte(128 + n>>16), byte(n >> 8), byte(n)})
}

func newCluster(s settings) *cluster {
	c := &cluster{settings: s, snapshot: &model.Snapshot{Network: model.DefaultNetwork(), NamesKnown: true}, lists: map[string][]byte{}}
	var services corev1.ServiceList
	var slices discoveryv1.EndpointSliceList
	var spaces corev1.NamespaceList
	for i := range namespaces {
		namespace, _ := key(i)
		spaces.Items = append(spaces.Items, corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace, ResourceVersion: "1"}})
	}
	named := map[model.ServiceKey]*model.Name{}
	served := map[model.ServiceKey]*model.Service{}
	hosts := map[model.SliceKey]*model.Hosts{}
	for i := range s.services {
		namespace, name := key(i)
		at := model.ServiceKey{Namespace: namespace, Name: name}
		ports := []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 80}}
		service, slice := c.objects(i)
		services.Items = append(services.Items, service)
		slices.Items = append(slices.Items, slice)
		if !c.isHeadless(i) {
			served[at] = &model.Service{ServiceKey: at, ClusterIPs: []netip.Addr{clusterIP(i)}, Ports: ports}
			continue
		}
		named[at] = &model.Name{ServiceKey: at, Ports: ports}
		of := &model.Hosts{
			SliceKey: model.SliceKey{Namespace: namespace, Name: slice.Name}, Service: name,
			Ports: []model.EndpointPort{{Name: "http", Protocol: model.TCP, Port: 8080}},
		}
		for n := range s.endpoints {
			of.Hosts = append(of.Hosts, model.Host{Address: podIP(i, n), Hostname: fmt.Sprintf("pod-%d", n)})
		}
		hosts[of.SliceKey] = of
	}
	c.snapshot.Services, c.snapshot.Names, c.snapshot.Hosts = model.MapOf(served), model.MapOf(named), model.MapOf(hosts)
	meta := metav1.ListMeta{ResourceVersion: "1"}
	services.TypeMeta, services.ListMeta = metav1.TypeMeta{Kind: "ServiceList", APIVersion: "v1"}, meta
	slices.TypeMeta, slices.ListMeta = metav1.TypeMeta{Kind: "EndpointSliceList", APIVersion: "discovery.k8s.io/v1"}, meta
	spaces.TypeMeta, spaces.ListMeta = metav1.TypeMeta{Kind: "NamespaceList", APIVersion: "v1"}, meta
	for path, list := range map[string]any{
		"/api/v1/services": &services, "/api/v1/namespaces": &spaces, "/apis/discovery.k8s.io/v1/endpointslices": &slices,
	} {
		text, err := json.Marshal(list)
		if err != nil {
			panic(err) // our own objects
		}
		c.lists[path] = text
	}
	return c
}

// objects are a Service and its endpoints, as the API server has them.
func (c *cluster) objects(i int) (corev1.Service, discoveryv1.EndpointSlice) {
	namespace, name := key(i)
	service := corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, ResourceVersion: "1", UID: "u"},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: clusterIP(i).String(), ClusterIPs: []string{clusterIP(i).String()},
			Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, TargetPort: intstr.FromInt32(8080)}},
		},
	}
	if c.isHeadless(i) {
		service.Spec.ClusterIP, service.Spec.ClusterIPs = corev1.ClusterIPNone, []string{corev1.ClusterIPNone}
	}
	port, portName, protocol, ready := int32(8080), "http", corev1.ProtocolTCP, true
	slice := discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name + "-abcde", ResourceVersion: "1", UID: "u",
			Labels: map[string]string{discoveryv1.LabelServiceName: name},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &portName, Protocol: &protocol, Port: &port}},
	}
	for n := range c.endpoints {
		hostname := fmt.Sprintf("pod-%d", n)
		endpoint := discoveryv1.Endpoint{
			Addresses: []string{podIP(i, n).String()}, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: namespace, Name: fmt.Sprintf("%s-%d", name, n)},
		}
		if c.isHeadless(i) {
			endpoint.Hostname = &hostname
		}
		slice.Endpoints = append(slice.Endpoints, endpoint)
	}
	return service, slice
}
