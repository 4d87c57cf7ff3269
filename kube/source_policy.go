package kube

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/fairlead-net/fairlead/model"
)

func (s *Source) namespaces(feed *model.Feed, known func()) func(context.Context) {
	return watch(&reflection[string, *model.Namespace]{
		client: s.client.core.RESTClient(), resource: "namespaces", object: &corev1.Namespace{},
		store: &store[string, *model.Namespace]{
			convert: convertFrom(convertNamespace),
			key:     func(namespace *model.Namespace) string { return namespace.Name },
			equal:   (*model.Namespace).Equal,
			edit: func(edit func(model.Map[string, *model.Namespace]) model.Map[string, *model.Namespace]) {
				feed.Edit(func(snapshot *model.Snapshot) { snapshot.Namespaces = edit(snapshot.Namespaces) })
			},
			synced: known, problems: s.problems, kind: "Namespace",
		},
		turns: s.turns(feed),
	})
}

func (s *Source) policies(feed *model.Feed, known func()) func(context.Context) {
	return watch(&reflection[model.PolicyKey, *model.Policy]{
		client: s.client.policies, list: s.client.policies.list, resource: "networkpolicies", object: &arrival[model.PolicyKey, *model.Policy]{},
		store: &store[model.PolicyKey, *model.Policy]{
			convert: convertFrom(convertPolicy),
			key:     func(policy *model.Policy) model.PolicyKey { return policy.PolicyKey },
			equal:   (*model.Policy).Equal,
			edit: func(edit func(model.Map[model.PolicyKey, *model.Policy]) model.Map[model.PolicyKey, *model.Policy]) {
				feed.Edit(func(snapshot *model.Snapshot) { snapshot.Policies = edit(snapshot.Policies) })
			},
			synced: known, problems: s.problems, kind: "NetworkPolicy",
		},
		turns: s.turns(feed),
	})
}

// clusterPolicyKind is the name of the CustomResourceDefinition of
// ClusterNetworkPolicies.
const clusterPolicyKind = "clusternetworkpolicies." + v1alpha2.GroupName

// clusterPolicies are of a kind that few clusters have. Whether this one does is
// watched, so that it costs nothing while it does not, and is noticed when it
// comes.
func (s *Source) clusterPolicies(feed *model.Feed, known func()) func(context.Context) {
	kinds := make(chan string, 1) // of one element: the UID of the kind, empty if there is none
	var all model.Map[string, string]
	follow := watch(&reflection[string, string]{
		client: s.client.kinds, resource: "customresourcedefinitions", name: clusterPolicyKind, object: &metav1.PartialObjectMetadata{},
		store: &store[string, string]{
			convert: convertFrom(func(kind *metav1.PartialObjectMetadata) converted[string, string] {
				return converted[string, string]{key: kind.Name, value: string(kind.UID)}
			}),
			equal: func(a, b string) bool { return a == b },
			edit: func(edit func(model.Map[string, string]) model.Map[string, string]) {
				all = edit(all)
				select {
				case <-kinds:
				default:
				}
				uid, _ := all.Get(clusterPolicyKind)
				kinds <- uid
			},
			synced: func() {}, problems: s.problems, kind: "CustomResourceDefinition",
		},
		turns: s.turns(feed),
	})
	return func(ctx context.Context) {
		var running sync.WaitGroup
		defer running.Wait()
		running.Go(func() { follow(ctx) })
		s.clusterPoliciesOf(ctx, feed, kinds, known)
	}
}

// clusterPoliciesOf watches them while there is their kind. They go with it: what
// there was of them, the API server has deleted.
func (s *Source) clusterPoliciesOf(ctx context.Context, feed *model.Feed, kinds <-chan string, known func()) {
	watched, stop := "", func() {}
	defer func() { stop() }()
	for {
		select {
		case <-ctx.Done():
			return
		case kind := <-kinds:
			if kind != watched {
				stop()
				stop = func() {}
			}
			switch {
			case kind == "":
				feed.Edit(func(snapshot *model.Snapshot) { snapshot.ClusterPolicies = model.Map[string, *model.ClusterPolicy]{} })
				s.problems.set("Watch", "ClusterNetworkPolicy", nil)
				s.problems.replace("ClusterNetworkPolicy", nil)
				known()
			case kind != watched:
				watching, cancel := context.WithCancel(ctx)
				run, ended := s.watchClusterPolicies(feed, known), make(chan struct{})
				go func() { defer close(ended); run(watching) }()
				stop = func() { cancel(); <-ended }
			}
			watched = kind
		}
	}
}

const clusterPoliciesResource = "clusternetworkpolicies"

func (s *Source) watchClusterPolicies(feed *model.Feed, known func()) func(context.Context) {
	return watch(&reflection[string, *model.ClusterPolicy]{
		client: s.client.clusterPolicies, resource: clusterPoliciesResource, object: &v1alpha2.ClusterNetworkPolicy{},
		missing: known, // a kind that is of another version, or not served yet
		store: &store[string, *model.ClusterPolicy]{
			convert: convertFrom(convertClusterPolicy),
			key:     func(policy *model.ClusterPolicy) string { return policy.Name },
			equal:   (*model.ClusterPolicy).Equal,
			edit: func(edit func(model.Map[string, *model.ClusterPolicy]) model.Map[string, *model.ClusterPolicy]) {
				feed.Edit(func(snapshot *model.Snapshot) { snapshot.ClusterPolicies = edit(snapshot.ClusterPolicies) })
			},
			synced: known, problems: s.problems, kind: "ClusterNetworkPolicy",
		},
		turns: s.turns(feed),
	})
}
