package kube

import (
	"hash/maphash"
	"math/rand"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/apitesting/fuzzer"
	metafuzzer "k8s.io/apimachinery/pkg/apis/meta/fuzzer"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-net/fairlead/model"
)

// randomPolicies are some of all kinds, and one that says nothing.
func randomPolicies() []*networkingv1.NetworkPolicy {
	random := rand.New(rand.NewSource(1))
	fill := fuzzer.FuzzerFor(metafuzzer.Funcs, random, scheme.Codecs)
	all := []*networkingv1.NetworkPolicy{{}}
	for range 400 {
		object := &networkingv1.NetworkPolicy{}
		fill.Fill(object)
		seasonPolicy(object, pick{random})
		all = append(all, object)
	}
	return all
}

const sharingPolicy = `
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from: [{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [b, c]}]}, podSelector: {matchLabels: {app: web}}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.2.0.0/16]}}]
    ports: [{port: http}, {port: 1, endPort: 9}, {protocol: UDP, port: 53}, {}]
  egress:
  - {}
  - to: [{podSelector: {}}]
`

// sharingPolicyOf is one of a namespace, in which some words are others.
func sharingPolicyOf(t *testing.T, namespace string, words ...string) *networkingv1.NetworkPolicy {
	t.Helper()
	object := &networkingv1.NetworkPolicy{}
	text := strings.NewReplacer(words...).Replace(sharingPolicy)
	if err := yaml.Unmarshal([]byte("metadata: {name: p, namespace: "+namespace+"}"+text), object); err != nil {
		t.Fatal(err)
	}
	return object
}

// TestSharedPolicies: policies hold what they have in common once, and say what they
// say without that.
func TestSharedPolicies(t *testing.T) {
	convert := newPolicyParts().convert
	first, second := convert(sharingPolicyOf(t, "a")).value, convert(sharingPolicyOf(t, "b")).value
	of := func(p *model.Policy) *model.PolicyRule { return &p.Rules[model.Ingress][0] }
	switch {
	case &first.Pods.Requirements[0] != &second.Pods.Requirements[0]:
		t.Error("the same subject is two")
	case &first.Pods.Requirements[0] != &of(first).Peers[0].Pods.Requirements[0]:
		t.Error("a subject and the same pods as peers are two")
	case &of(first).Peers[0] != &of(second).Peers[0]:
		t.Error("the same peers are two")
	case &of(first).Ports[0] != &of(second).Ports[0]:
		t.Error("the same ports are two")
	}
	if own, others := first.Rules[model.Egress][1].Peers[0], second.Rules[model.Egress][1].Peers[0]; own.Namespaces == others.Namespaces || own.Pods != others.Pods {
		t.Error("peers of the policies' own namespaces are the same, or all pods of them are not")
	}
}

// TestSharingPolicies: a policy says what it says without that, also where hashes of
// different parts are the same.
func TestSharingPolicies(t *testing.T) {
	colliding := newPolicyParts()
	colliding.selectors.write = func(*maphash.Hash, *model.Selector) {}
	colliding.peers.write = func(*maphash.Hash, []model.Peer) {}
	colliding.ports.write = func(*maphash.Hash, []model.PolicyPort) {}
	all := append(randomPolicies(), sharingPolicyOf(t, "a"), sharingPolicyOf(t, "a", ", 10.2.0.0/16", ""))
	for _, parts := range []*policyParts{newPolicyParts(), colliding} {
		for i, object := range all {
			want := convertPolicy(object).value
			if got := parts.convert(object).value; !got.Equal(want) {
				t.Fatalf("policy %d became another's: %s, not %s", i, policyText(got), policyText(want))
			}
		}
	}
}

// TestEqualSelectors: what differs in anything is not equal.
func TestEqualSelectors(t *testing.T) {
	of := func(all ...model.Requirement) *model.Selector { return &model.Selector{Requirements: all} }
	one := model.Requirement{Key: "a", Operator: model.In, Values: []string{"b", "c"}}
	key, operator, values := one, one, one
	key.Key, operator.Operator, values.Values = "b", model.NotIn, []string{"b"}
	all := []*model.Selector{of(), of(one), of(key), of(operator), of(values), of(one, key)}
	for i := range all {
		for j := range all {
			if equalSelectors(all[i], all[j]) != (i == j) {
				t.Errorf("%s and %s", all[i], all[j])
			}
		}
	}
}
