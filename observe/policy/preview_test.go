package policy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/observe/policy"
)

// TestPreview: what edits of testdata/shop.yaml would do.
func TestPreview(t *testing.T) {
	const head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"
	var b strings.Builder
	for _, test := range []struct {
		name, text string
		delete     bool
	}{
		{"two policies, of which one is there", head + `
metadata: {name: front-to-db}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: front}}}]
    ports: [{port: 5432}]
---
` + head + `
metadata: {name: front}
spec:
  podSelector: {matchLabels: {app: front}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from: [{podSelector: {}}, {ipBlock: {cidr: 203.0.113.0/24}}]
    ports: [{port: http}]
  egress:
  - to: [{podSelector: {matchLabels: {app: db}}}]
    ports: [{port: sql}]
`, false},
		{"a namespace is isolated", head + "metadata: {namespace: monitoring, name: none}\nspec: {podSelector: {}, policyTypes: [Ingress, Egress]}\n", false},
		{"nothing changes", head + "metadata: {name: deny-all}\nspec: {podSelector: {}, policyTypes: [Ingress]}\n", false},
		{"addresses, of some pods and of one family", head + `
metadata: {namespace: monitoring, name: block}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress: [{to: [{ipBlock: {cidr: 10.244.1.0/24}}, {ipBlock: {cidr: "::/0"}}]}]
`, false},
		{"a policy goes", head + "metadata: {name: deny-all}\nspec: {podSelector: {}}\n", true},
		{"one that is not there", head + "metadata: {name: none}\nspec: {podSelector: {}}\n", true},
		{"the administrators' goes", "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: operators}\nspec: {tier: Admin, priority: 1, subject: {namespaces: {}}}\n", true},
	} {
		fmt.Fprintf(&b, "# %s\n", test.name)
		set := &kube.PolicySet{}
		if err := kube.ReadPolicies(strings.NewReader(test.text), "shop", set); err != nil {
			t.Fatal(err)
		}
		preview, err := policy.PreviewOf(shop(t), policy.Edit{Policies: set.Policies, ClusterPolicies: set.ClusterPolicies, Delete: test.delete})
		if err != nil {
			fmt.Fprintf(&b, "untold: %v\n\n", err)
			continue
		}
		if err := preview.Text(&b, policy.Style{}); err != nil {
			t.Fatal(err)
		}
		b.WriteString("\n")
	}
	golden(t, "preview.txt", b.String())
}
