package kube

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/model"
)

// Ingresses reads what becomes of requests from outside at one moment: Ingresses,
// their classes, Services, endpoints, and the Network. The Problems are of what was not
// understood wholly, sorted.
func (c *Client) Ingresses(ctx context.Context) (*model.Snapshot, []model.Problem, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	to := &model.Snapshot{Revision: 1, Network: c.networkOr(ctx, model.DefaultNetwork())}
	var found, ignored []model.Problem
	var services model.Map[model.ServiceKey, named]
	err := errors.Join(
		listAll(ctx, "Ingresses", pageOf(c.networking.Ingresses("").List, func(l *networkingv1.IngressList) []networkingv1.Ingress { return l.Items }), convertIngress, &to.Ingresses, &found),
		listAll(ctx, "IngressClasses", pageOf(c.networking.IngressClasses().List, func(l *networkingv1.IngressClassList) []networkingv1.IngressClass { return l.Items }), convertIngressClass, &to.IngressClasses, &found),
		listAll(ctx, "Services", pageOf(c.core.Services("").List, func(l *corev1.ServiceList) []corev1.Service { return l.Items }), convertNamed, &services, &ignored),
		listAll(ctx, "EndpointSlices", pageOf(c.discovery.EndpointSlices("").List, func(l *discoveryv1.EndpointSliceList) []discoveryv1.EndpointSlice { return l.Items }), convertSlice, &to.Slices, &ignored),
	)
	if err != nil {
		return nil, nil, err
	}
	for key, n := range services.All() {
		if n.service != nil {
			to.Services = to.Services.With(key, n.service)
		} else {
			to.Names = to.Names.With(key, n.name)
		}
	}
	slices.SortFunc(found, model.Problem.Compare)
	return to, found, nil
}

// networkOr is the Network of the cluster, or, if it has none or the user must not
// know, another.
func (c *Client) networkOr(ctx context.Context, other *model.Network) *model.Network {
	object := &v1alpha1.Network{}
	if err := c.fairlead.Get().Resource("networks").Name(v1alpha1.NetworkName).Do(ctx).Into(object); err != nil {
		return other
	}
	return convertNetwork(object).value
}

// ReadIngresses adds the Ingresses, IngressClasses and Services of documents of
// YAML or JSON, lists included, and the EndpointSlices. One without a namespace is
// of the one that is given, as with kubectl. Other kinds are left out: people keep
// all of an application in one file. Errors name the document, counted from 1.
func ReadIngresses(r io.Reader, namespace string, to *model.Snapshot) (problems []model.Problem, err error) {
	documents := utilyaml.NewYAMLReader(bufio.NewReader(r))
	for number := 1; ; number++ {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return problems, nil
		}
		if err == nil {
			err = readIngress(document, namespace, to, &problems)
		}
		if err != nil {
			return problems, fmt.Errorf("document %d: %w", number, err)
		}
	}
}

func readIngress(document []byte, namespace string, to *model.Snapshot, problems *[]model.Problem) error {
	var h head
	if err := yaml.Unmarshal(document, &h); err != nil {
		return err
	}
	var err error
	var found []model.Problem
	switch {
	case h.Items != nil:
		for i, item := range h.Items {
			document, err := yaml.Marshal(item)
			if err == nil {
				err = readIngress(document, namespace, to, problems)
			}
			if err != nil {
				return fmt.Errorf("item %d: %w", i+1, err)
			}
		}
		return nil
	case h.Kind == "Ingress" && h.APIVersion == networkingv1.SchemeGroupVersion.String():
		err = addIn(document, namespace, &to.Ingresses, convertIngress, &found)
	case h.Kind == "Ingress":
		err = fmt.Errorf("of %s, which Kubernetes has not served since 1.22: make it one of %s", h.APIVersion, networkingv1.SchemeGroupVersion)
	case h.Kind == "IngressClass" && h.APIVersion == networkingv1.SchemeGroupVersion.String():
		err = add(document, &to.IngressClasses, convertIngressClass, &found)
	case h.Kind == "EndpointSlice" && h.APIVersion == discoveryv1.SchemeGroupVersion.String():
		err = addIn(document, namespace, &to.Slices, convertSlice, &found)
	case h.Kind == "Service" && h.APIVersion == "v1":
		err = addServed(document, namespace, to)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", h.String(), err)
	}
	*problems = append(*problems, found...)
	return nil
}

// addIn is add, of objects with a namespace.
func addIn[T any, P interface {
	*T
	SetNamespace(string)
	GetNamespace() string
}, K, V comparable](document []byte, namespace string, to *model.Map[K, V], convert func(*T) converted[K, V], found *[]model.Problem) error {
	object := new(T)
	if err := yaml.UnmarshalStrict(document, object); err != nil {
		return err
	}
	if P(object).GetNamespace() == "" {
		P(object).SetNamespace(namespace)
	}
	made := convert(object)
	*found = append(*found, made.problems...)
	if !made.absent {
		*to = to.With(made.key, made.value)
	}
	return nil
}

// addServed adds a Service of a file, where it has no address yet.
func addServed(document []byte, namespace string, to *model.Snapshot) error {
	object := &corev1.Service{}
	if err := yaml.Unmarshal(document, object); err != nil {
		return err
	}
	if object.Namespace == "" {
		object.Namespace = namespace
	}
	key := model.ServiceKey{Namespace: object.Namespace, Name: object.Name}
	if object.Spec.ClusterIP == corev1.ClusterIPNone || object.Spec.Type == corev1.ServiceTypeExternalName {
		to.Names = to.Names.With(key, &model.Name{ServiceKey: key, External: object.Spec.ExternalName, Ports: servicePorts(&object.Spec, func(string, error) {})})
		return nil
	}
	service := &model.Service{ServiceKey: key, Ports: servicePorts(&object.Spec, func(string, error) {})}
	to.Services = to.Services.With(key, service)
	return nil
}
