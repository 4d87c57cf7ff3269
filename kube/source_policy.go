package kube

import (
	"context"

	corev1 "k8s.io/api/core/v1"
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

// clusterPolicies are of a kind that few clusters have. It is looked for again as
// any watch that failed: it is noticed within two minutes when it comes, and what
// was known of it stays in force when it goes.
func (s *Source) clusterPolicies(feed *model.Feed, known func()) func(context.Context) {
	return watch(&reflection[string, *model.ClusterPolicy]{
		client: s.client.clusterPolicies, resource: "clusternetworkpolicies", object: &v1alpha2.ClusterNetworkPolicy{},
		missing: known,
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
