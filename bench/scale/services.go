package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairlead-net/fairlead/bench/apiserver"
)

func (t task) String() string {
	text := fmt.Sprintf("%d nodes, %d pods", t.Nodes, t.Pods)
	if t.Services > 0 {
		text += fmt.Sprintf(", %d Services of %d endpoints", t.Services, t.Endpoints)
	}
	if t.Policies > 0 {
		text += fmt.Sprintf(", %d policies", t.Policies)
	}
	return text
}

// perSlice is how many endpoints Kubernetes puts into an EndpointSlice.
const perSlice = 100

// putService adds Service i and its endpoints.
func (c *cluster) putService(i int) error {
	err := c.server.Put(apiserver.Services, serviceObject(i))
	for slice := 0; slice*perSlice < c.Endpoints; slice++ {
		err = errors.Join(err, c.server.Put(apiserver.Slices, c.sliceObject(i, slice)))
	}
	return err
}

func serviceName(i int) (namespace, name string) {
	return fmt.Sprintf("namespace-%d", i%500), fmt.Sprintf("service-%d", i)
}

func serviceObject(i int) *corev1.Service {
	namespace, name := serviceName(i)
	addr := netip.AddrFrom4([4]byte{10, 8 + byte(i>>16), byte(i >> 8), byte(i)}).String()
	return &corev1.Service{
		TypeMeta: metav1.TypeMeta{Kind: "Service", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, CreationTimestamp: metav1.NewTime(time.Unix(1_750_000_000, 0)),
			Labels:        map[string]string{"app.kubernetes.io/name": name, "app.kubernetes.io/instance": "production"},
			ManagedFields: managed("kube-controller-manager"),
		},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: addr, ClusterIPs: []string{addr},
			Selector: map[string]string{"app.kubernetes.io/name": name},
			Ports:    []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, TargetPort: intstr.FromInt32(8080)}},
		},
	}
}

// sliceObject is one of the EndpointSlices of Service i: its endpoints are pods
// of all nodes.
func (c *cluster) sliceObject(i, slice int) *discoveryv1.EndpointSlice {
	namespace, name := serviceName(i)
	yes, port, protocol, portName := true, int32(8080), corev1.ProtocolTCP, "http"
	object := &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{Kind: "EndpointSlice", APIVersion: "discovery.k8s.io/v1"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: fmt.Sprintf("%s-%d", name, slice), GenerateName: name + "-",
			Labels: map[string]string{
				discoveryv1.LabelServiceName: name, discoveryv1.LabelManagedBy: "endpointslice-controller.k8s.io",
				"app.kubernetes.io/name": name, "app.kubernetes.io/instance": "production",
			},
			ManagedFields: managed("kube-controller-manager"),
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &portName, Protocol: &protocol, Port: &port}},
	}
	for n := slice * perSlice; n < min((slice+1)*perSlice, c.Endpoints); n++ {
		pod := i*c.Endpoints + n
		node := 1 + pod%(c.Nodes-1)
		at := podRanges(node)[0].Addr().As4()
		at[3] = byte(2 + pod/(c.Nodes-1)%250)
		nodeName, zone := nodeName(node), "eu-central-1a"
		object.Endpoints = append(object.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{netip.AddrFrom4(at).String()}, NodeName: &nodeName, Zone: &zone,
			Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes},
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: namespace, Name: fmt.Sprintf("%s-5d8f6c7b9-%05d", name, n), UID: "0b9a3c1e-7f64-4c8e-9d0c-000000000000"},
		})
	}
	return object
}

// endpointChanges are how many endpoints take the place of others.
const endpointChanges = 200

// changeEndpoints measures one endpoint that takes the place of another: until
// the kernel tells of a new generation of nftables.
func (c *cluster) changeEndpoints(context.Context) error {
	if c.Services == 0 {
		return nil
	}
	kernel, err := watchFilter()
	if err != nil {
		return err
	}
	defer kernel.close()
	for n := range endpointChanges {
		slice := c.sliceObject(n*7%c.Services, 0)
		slice.Endpoints[0].Addresses[0] = netip.AddrFrom4([4]byte{10, 250, byte(n), 1}).String()
		began := time.Now()
		if err := c.server.Put(apiserver.Slices, slice); err != nil {
			return err
		}
		at, err := kernel.generation(time.Minute)
		if err != nil {
			return err
		}
		c.result.Endpoints = append(c.result.Endpoints, at.Sub(began))
		time.Sleep(alone / 4)
	}
	return nil
}
