package kube

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-net/fairlead/model"
)

// Serving is what the API server knows of Services at one moment, for people
// who ask.
type Serving struct {
	Services []ServiceObject // sorted by namespace and name
	// Snapshot has those that are served, and their endpoints.
	Snapshot *model.Snapshot
	Pods     map[netip.Addr]string // NAMESPACE/NAME of the pods behind endpoints
	Problems []model.Problem       // of the objects themselves, sorted
}

// ServiceObject is one Service, served or not.
type ServiceObject struct {
	model.ServiceKey
	Type     string // ClusterIP, NodePort, LoadBalancer or ExternalName
	Created  time.Time
	Unserved string         // why it has no addresses to serve; empty: it is Served
	Served   *model.Service // nil: it is not
	Awaits   bool           // it is to have a load balancer's address, and has none
}

// Serving reads the Services of a namespace, or the one of a name; of all
// namespaces if both are empty. Of a name that is not there it has none.
func (c *Client) Serving(ctx context.Context, of model.ServiceKey) (*Serving, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var one, slicesOfOne metav1.ListOptions
	if of.Name != "" {
		one.FieldSelector = "metadata.name=" + of.Name
		slicesOfOne.LabelSelector = discoveryv1.LabelServiceName + "=" + of.Name
	}
	services, err := c.core.Services(of.Namespace).List(ctx, one)
	if err != nil {
		return nil, fmt.Errorf("listing Services: %w", err)
	}
	found, err := c.discovery.EndpointSlices(of.Namespace).List(ctx, slicesOfOne)
	if err != nil {
		return nil, fmt.Errorf("listing EndpointSlices: %w", err)
	}
	to := &Serving{Snapshot: &model.Snapshot{Network: model.DefaultNetwork()}, Pods: map[netip.Addr]string{}}
	for i := range services.Items {
		to.add(&services.Items[i])
	}
	for i := range found.Items {
		slice := convertSlice(&found.Items[i])
		to.Problems = append(to.Problems, slice.problems...)
		if _, headless := found.Items[i].Labels[corev1.IsHeadlessService]; !slice.absent && !headless {
			to.Snapshot.Slices = to.Snapshot.Slices.With(slice.key, slice.value)
			to.name(&found.Items[i])
		}
	}
	slices.SortFunc(to.Services, func(a, b ServiceObject) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	slices.SortFunc(to.Problems, model.Problem.Compare)
	return to, nil
}

// name notes the pods of a slice.
func (s *Serving) name(slice *discoveryv1.EndpointSlice) {
	for i := range slice.Endpoints {
		endpoint := &slice.Endpoints[i]
		if endpoint.TargetRef == nil || endpoint.TargetRef.Kind != "Pod" || len(endpoint.Addresses) == 0 {
			continue
		}
		if addr, err := parseAddr(endpoint.Addresses[0]); err == nil {
			s.Pods[addr] = slice.Namespace + "/" + endpoint.TargetRef.Name
		}
	}
}

func (s *Serving) add(service *corev1.Service) {
	object := ServiceObject{
		ServiceKey: model.ServiceKey{Namespace: service.Namespace, Name: service.Name},
		Type:       string(cmp.Or(service.Spec.Type, corev1.ServiceTypeClusterIP)), Created: service.CreationTimestamp.Time,
		Unserved: unserved(service),
	}
	if object.Unserved == "" {
		served := convertService(service)
		object.Served = served.value
		object.Awaits = service.Spec.Type == corev1.ServiceTypeLoadBalancer && len(service.Status.LoadBalancer.Ingress) == 0
		s.Snapshot.Services = s.Snapshot.Services.With(object.ServiceKey, object.Served)
		s.Problems = append(s.Problems, served.problems...)
	}
	s.Services = append(s.Services, object)
}

// unserved says why a Service has nothing to serve; empty if it has. It agrees
// with notServed and convertService.
func unserved(object *corev1.Service) string {
	switch proxy, others := object.Labels[serviceProxyName]; {
	case object.Spec.Type == corev1.ServiceTypeExternalName:
		return fmt.Sprintf("it is of type ExternalName: its name is another one for %s in DNS, and it has no address", object.Spec.ExternalName)
	case object.Spec.ClusterIP == corev1.ClusterIPNone:
		return "it is headless (clusterIP: None): its name leads to its pods' own addresses in DNS, and it has none itself"
	case object.Spec.ClusterIP == "":
		return "it has no clusterIP yet"
	case others:
		return fmt.Sprintf("its label %s leaves it to another program, %q", serviceProxyName, proxy)
	}
	return ""
}

// ServiceNames are the names of the Services of a namespace, sorted.
func (c *Client) ServiceNames(ctx context.Context, namespace string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	services, err := c.core.Services(namespace).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, fmt.Errorf("listing the Services of %s: %w", namespace, err)
	}
	var names []string
	for i := range services.Items {
		names = append(names, services.Items[i].Name)
	}
	slices.Sort(names)
	return names, nil
}
