package policy_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/observe/policy"
)

const named = `
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {namespace: shop, name: front, uid: a}
spec: {nodeName: node1}
status: {phase: Running, podIPs: [{ip: 10.244.0.5}, {ip: "fd00::5"}]}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: names}
spec:
  tier: Admin
  priority: 1
  subject: {namespaces: {}}
  egress:
  - {action: Accept, to: [{domainNames: ["*.example.org", www.example.com]}], protocols: [{tcp: {destinationPort: {number: 443}}}]}
  - {action: Deny, to: [{networks: [0.0.0.0/0, "::/0"]}]}
`

// TestDomainNames: names are judged at the addresses that somebody found, by the rules
// that name them; and who reaches them, the matrix says.
func TestDomainNames(t *testing.T) {
	snapshot, err := kube.ReadSnapshot(strings.NewReader(named))
	if err != nil {
		t.Fatal(err)
	}
	found := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	for to, want := range map[string]string{
		"domain/a.example.org":    policy.Allowed,
		"domain/A.B.Example.org.": policy.Allowed,
		"domain/www.example.com":  policy.Allowed,
		"domain/example.org":      policy.Denied,
		"192.0.2.1":               policy.Denied,
	} {
		q := policy.Query{From: "front", To: to, Namespace: "shop", Addresses: found}
		if q.Port, err = policy.ParsePort("443/tcp"); err != nil {
			t.Fatal(err)
		}
		e, err := policy.Explain(snapshot, q)
		if err != nil {
			t.Errorf("%s: %v", to, err)
			continue
		}
		if e.Verdict != want || len(e.Notes) != 1 {
			t.Errorf("%s: %s, notes %q", to, e.Verdict, e.Notes)
		}
		if by := e.Connections[0].Egress.By; want == policy.Allowed && (len(e.Connections) != 2 || !strings.HasSuffix("."+policy.DomainOf(to), strings.TrimPrefix(by.Peers, "*"))) {
			t.Errorf("%s is allowed by %+v", to, by)
		}
	}
	if _, err := policy.Explain(snapshot, policy.Query{From: "front", To: "domain/a.example.org", Namespace: "shop"}); err == nil {
		t.Error("a name without addresses is judged")
	}
	matrix, err := policy.MatrixOf(snapshot, policy.MatrixQuery{Namespace: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	reached := map[string]bool{}
	for _, r := range matrix.Reach {
		if r.From == "shop/front" && len(r.Ports) == 1 && r.Ports[0].From == 443 {
			reached[r.To] = true
		}
	}
	if !reached["*.example.org"] || !reached["www.example.com"] || len(reached) != 2 {
		t.Errorf("it reaches %v", matrix.Reach)
	}
}
