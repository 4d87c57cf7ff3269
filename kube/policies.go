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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/network-policy-api/apis/v1alpha2"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/model"
)

// Policies reads what policies depend on at one moment, and Services with their
// endpoints: all but what only nodes know. The Problems are of policies that were
// not understood wholly, sorted.
func (c *Client) Policies(ctx context.Context) (*model.Snapshot, []model.Problem, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	to := &model.Snapshot{Revision: 1, Network: model.DefaultNetwork(), PoliciesKnown: true}
	var found, ignored []model.Problem
	var networks v1alpha1.NetworkList
	err := c.fairlead.Get().Resource("networks").Do(ctx).Into(&networks)
	if err != nil && !IsNotFound(err) {
		return nil, nil, fmt.Errorf("reading the Network: %w", err)
	}
	for i := range networks.Items {
		to.Network = convertNetwork(&networks.Items[i]).value // the one that there may be
	}
	err = errors.Join(
		listAll(ctx, "nodes", pageOf(c.core.Nodes().List, func(l *corev1.NodeList) []corev1.Node { return l.Items }), convertNode, &to.Nodes, &ignored),
		listAll(ctx, "namespaces", pageOf(c.core.Namespaces().List, func(l *corev1.NamespaceList) []corev1.Namespace { return l.Items }), convertNamespace, &to.Namespaces, &ignored),
		listAll(ctx, "pods", pageOf(c.core.Pods("").List, func(l *corev1.PodList) []corev1.Pod { return l.Items }), convertPod, &to.Pods, &ignored),
		listAll(ctx, "Services", pageOf(c.core.Services("").List, func(l *corev1.ServiceList) []corev1.Service { return l.Items }), convertService, &to.Services, &ignored),
		listAll(ctx, "EndpointSlices", pageOf(c.discovery.EndpointSlices("").List, func(l *discoveryv1.EndpointSliceList) []discoveryv1.EndpointSlice { return l.Items }), convertSlice, &to.Slices, &ignored),
		listAll(ctx, "NetworkPolicies", pageOf(c.networking.NetworkPolicies("").List, func(l *networkingv1.NetworkPolicyList) []networkingv1.NetworkPolicy { return l.Items }), convertPolicy, &to.Policies, &found),
		listAll(ctx, "ClusterNetworkPolicies", pageOf(c.listClusterPolicies, func(l *v1alpha2.ClusterNetworkPolicyList) []v1alpha2.ClusterNetworkPolicy { return l.Items }), convertClusterPolicy, &to.ClusterPolicies, &found),
	)
	if err != nil {
		return nil, nil, err
	}
	slices.SortFunc(found, model.Problem.Compare)
	return to, found, nil
}

// listClusterPolicies has none where the cluster does not know the kind.
func (c *Client) listClusterPolicies(ctx context.Context, options metav1.ListOptions) (*v1alpha2.ClusterNetworkPolicyList, error) {
	list := &v1alpha2.ClusterNetworkPolicyList{}
	err := c.clusterPolicies.Get().Resource(clusterPoliciesResource).
		Param("limit", fmt.Sprint(options.Limit)).Param("continue", options.Continue).Do(ctx).Into(list)
	if IsNotFound(err) {
		return list, nil
	}
	return list, err
}

// page asks for some of the objects, and says how to ask for the next; empty:
// these were the last.
type page[T any] = func(ctx context.Context, options metav1.ListOptions) ([]T, string, error)

// pageOf makes one of a list of a typed client.
func pageOf[L interface {
	runtime.Object
	metav1.ListInterface
}, T any](list func(context.Context, metav1.ListOptions) (L, error), items func(L) []T) page[T] {
	return func(ctx context.Context, options metav1.ListOptions) ([]T, string, error) {
		got, err := list(ctx, options)
		if err != nil {
			return nil, "", err
		}
		return items(got), got.GetContinue(), nil
	}
}

// pageSize is how many objects are read at once: whole ones are large.
const pageSize = 500

func listAll[T any, K, V comparable](ctx context.Context, what string, list page[T], convert func(*T) converted[K, V], to *model.Map[K, V], problems *[]model.Problem) error {
	options := metav1.ListOptions{Limit: pageSize}
	for {
		items, next, err := list(ctx, options)
		if err != nil {
			return fmt.Errorf("listing %s: %w", what, err)
		}
		for i := range items {
			made := convert(&items[i])
			*problems = append(*problems, made.problems...)
			if !made.absent {
				*to = to.With(made.key, made.value)
			}
		}
		if options.Continue = next; next == "" {
			return nil
		}
	}
}

// PolicySet are policies of files.
type PolicySet struct {
	Policies        []*model.Policy
	ClusterPolicies []*model.ClusterPolicy
	Problems        []model.Problem // of what was not understood wholly
}

// Len is how many there are.
func (s *PolicySet) Len() int { return len(s.Policies) + len(s.ClusterPolicies) }

// ReadPolicies adds those of documents of YAML or JSON, lists included. A
// NetworkPolicy without a namespace is of the one that is given, as with kubectl.
// Other kinds are errors, which name the document, counted from 1.
func ReadPolicies(r io.Reader, namespace string, to *PolicySet) error {
	documents := utilyaml.NewYAMLReader(bufio.NewReader(r))
	for number := 1; ; number++ {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = to.add(document, namespace)
		}
		if err != nil {
			return fmt.Errorf("document %d: %w", number, err)
		}
	}
}

func (s *PolicySet) add(document []byte, namespace string) error {
	var h head
	if err := yaml.Unmarshal(document, &h); err != nil {
		return err
	}
	switch {
	case h.Kind == "" && h.APIVersion == "" && len(h.Items) == 0:
		if content := map[string]any{}; yaml.Unmarshal(document, &content) != nil || len(content) > 0 {
			return errors.New("kind and apiVersion are missing")
		}
		return nil // only comments, or nothing
	case h.Items != nil:
		for i, item := range h.Items {
			document, err := yaml.Marshal(item)
			if err == nil {
				err = s.add(document, namespace)
			}
			if err != nil {
				return fmt.Errorf("item %d: %w", i+1, err)
			}
		}
		return nil
	case h.Metadata.Name == "":
		return fmt.Errorf("%s: metadata.name is missing", h.String())
	case h.Kind == "NetworkPolicy" && h.APIVersion == networkingv1.SchemeGroupVersion.String():
		object := &networkingv1.NetworkPolicy{}
		if err := yaml.UnmarshalStrict(document, object); err != nil {
			return fmt.Errorf("%s: %w", h.String(), err)
		}
		if object.Namespace == "" {
			object.Namespace = namespace
		}
		made := convertPolicy(object)
		s.Policies, s.Problems = append(s.Policies, made.value), append(s.Problems, made.problems...)
	case h.Kind == "ClusterNetworkPolicy" && h.APIVersion == clusterPolicyVersion:
		object := &v1alpha2.ClusterNetworkPolicy{}
		if err := yaml.UnmarshalStrict(document, object); err != nil {
			return fmt.Errorf("%s: %w", h.String(), err)
		}
		made := convertClusterPolicy(object)
		s.ClusterPolicies, s.Problems = append(s.ClusterPolicies, made.value), append(s.Problems, made.problems...)
	default:
		return fmt.Errorf("%s of %s is no policy; NetworkPolicies of %s and ClusterNetworkPolicies of %s are",
			h.String(), h.APIVersion, networkingv1.SchemeGroupVersion, clusterPolicyVersion)
	}
	return nil
}
