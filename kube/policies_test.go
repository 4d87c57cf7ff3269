package kube

import (
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// TestPolicies: all that policies depend on is read, with or without the kind of
// ClusterNetworkPolicies; what may not be read is an error, not an absence.
func TestPolicies(t *testing.T) {
	api := newStub(t)
	api.put(nodesPath, `{"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1"}, "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}}`)
	api.put(namespacesPath, `{"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "shop", "labels": {"team": "a"}}}`)
	api.put(podsPath, `{"kind": "Pod", "apiVersion": "v1", "metadata": {"namespace": "shop", "name": "db"}, "spec": {"nodeName": "n1"}, "status": {"podIP": "10.244.0.1"}}`)
	api.put(servicesPath, `{"kind": "Service", "apiVersion": "v1", "metadata": {"namespace": "shop", "name": "db"}, "spec": {"clusterIP": "10.96.0.1"}}`)
	api.put(slicesPath, `{"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4", "metadata": {"namespace": "shop", "name": "db-1", "labels": {"kubernetes.io/service-name": "db"}}}`)
	api.put(policiesPath, `{"kind": "NetworkPolicy", "apiVersion": "networking.k8s.io/v1", "metadata": {"namespace": "shop", "name": "db"},
		"spec": {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "nonsense"}}]}]}}`)
	client := api.client(Options{})
	snapshot, problems, err := client.Policies(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(problems) != 1 || problems[0].Name != "db" {
		t.Errorf("problems %v", problems)
	}
	if snapshot.Nodes.Len() != 1 || snapshot.Namespaces.Len() != 1 || snapshot.Pods.Len() != 1 || snapshot.Services.Len() != 1 ||
		snapshot.Slices.Len() != 1 || snapshot.Policies.Len() != 1 || snapshot.ClusterPolicies.Len() != 0 || !snapshot.PoliciesKnown {
		t.Errorf("it is %+v", snapshot)
	}
	api.mu.Lock()
	delete(api.missing, clusterPoliciesPath)
	api.mu.Unlock()
	api.put(clusterPoliciesPath, `{"kind": "ClusterNetworkPolicy", "apiVersion": "policy.networking.k8s.io/v1alpha2", "metadata": {"name": "a"},
		"spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}}}`)
	if snapshot, _, err = client.Policies(t.Context()); err != nil || snapshot.ClusterPolicies.Len() != 1 {
		t.Errorf("error %v, %d ClusterNetworkPolicies", err, snapshot.ClusterPolicies.Len())
	}
	api.mu.Lock()
	api.forbidden[policiesPath] = true
	api.mu.Unlock()
	if _, _, err = client.Policies(t.Context()); err == nil || !strings.Contains(err.Error(), "NetworkPolicies") {
		t.Errorf("policies that may not be read are none: %v", err)
	}
}

// TestReadPolicies: files as kubectl takes them, and what is refused.
func TestReadPolicies(t *testing.T) {
	const head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"
	set := &PolicySet{}
	err := ReadPolicies(strings.NewReader("# only a comment\n---\n"+head+"metadata: {name: a}\nspec: {podSelector: {}}\n---\n"+
		`{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"namespace": "own", "name": "b"},
		"spec": {"podSelector": {}, "egress": [{"to": [{"ipBlock": {"cidr": "300.0.0.0/8"}}]}]}}]}`), "given", set)
	if err != nil || set.Len() != 2 || len(set.Problems) != 1 {
		t.Fatalf("error %v, %+v", err, set)
	}
	for i, want := range []model.PolicyKey{{Namespace: "given", Name: "a"}, {Namespace: "own", Name: "b"}} {
		if set.Policies[i].PolicyKey != want {
			t.Errorf("it is %s, want %s", set.Policies[i], want)
		}
	}
	for text, want := range map[string]string{
		"kind: Pod\napiVersion: v1\nmetadata: {name: p}":       "document 1: Pod p of v1 is no policy",
		head + "metadata: {namespace: x}":                      "metadata.name is missing",
		head + "metadata: {name: a}\nspec: {podSelectors: {}}": `unknown field "podSelectors"`,
		"spec: {}": "kind and apiVersion are missing",
		"{kind: List, apiVersion: v1, items: [{kind: Pod, apiVersion: v1, metadata: {name: p}}]}": "item 1: Pod p of v1 is no policy",
	} {
		if err := ReadPolicies(strings.NewReader(text), "x", &PolicySet{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
	}
}
