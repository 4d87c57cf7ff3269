package routing

import (
	"bytes"
	"net/http"
	"net/netip"
	"testing"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	plan "github.com/fairlead-net/fairlead/plan/gateway"
	"github.com/fairlead-net/fairlead/servers/gateway"
	"github.com/fairlead-net/fairlead/servers/gateway/http1"
)

const countedIngress = `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: shop
spec:
  ingressClassName: nginx
  rules:
  - host: shop.example.org
    http: {paths: [{path: /a, pathType: Prefix, backend: {service: {name: a, port: {number: 80}}}}, {path: /b, pathType: Exact, backend: {service: {name: b, port: {number: 80}}}}]}
`

const canaryIngress = `
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: canary
  annotations: {nginx.ingress.kubernetes.io/canary: "true", nginx.ingress.kubernetes.io/canary-by-header: X-New, nginx.ingress.kubernetes.io/enable-access-log: "false"}
spec:
  ingressClassName: nginx
  rules:
  - host: shop.example.org
    http: {paths: [{path: /a, pathType: Prefix, backend: {service: {name: new, port: {number: 80}}}}]}
`

// routerOf makes the Router of manifests.
func routerOf(t *testing.T, prev *Router, table *plan.Table, manifests string) (*Router, *plan.Table) {
	t.Helper()
	snapshot := &model.Snapshot{Revision: 1, Network: model.DefaultNetwork()}
	snapshot.Network.Ingress.NginxCompatible = true
	if _, err := kube.ReadIngresses(bytes.NewReader([]byte(manifests)), "default", snapshot); err != nil {
		t.Fatal(err)
	}
	table, _ = plan.Compute(table, snapshot)
	return New(prev, table, Sources{Endpoints: plan.EndpointsOf(snapshot), Secret: func(plan.SecretKey) map[string][]byte { return nil }}), table
}

// asked routes a request, and returns who counts it.
func asked(t *testing.T, r *Router, head string) *gateway.Request {
	t.Helper()
	var request http1.Request
	limits := http1.Usual()
	if done, err := request.Parse([]byte(head+"\r\n\r\n"), &limits); !done || err != nil {
		t.Fatal(err)
	}
	ask := &gateway.Request{Request: &request, Client: netip.MustParseAddr("192.0.2.1")}
	r.Route(ask)
	return ask
}

// TestMeters: each route has what counts it, that of a canary too, and keeps it when
// the table changes.
func TestMeters(t *testing.T) {
	const a, b = "GET /a/x HTTP/1.1\r\nHost: shop.example.org", "GET /b HTTP/1.1\r\nHost: shop.example.org"
	first, table := routerOf(t, nil, nil, countedIngress)
	ofA, ofB := asked(t, first, a).Meter, asked(t, first, b).Meter
	want := gateway.Names{Host: "shop.example.org", Path: "/a", Namespace: "default", Ingress: "shop", Service: "a", Port: "80"}
	if ofA == nil || ofA == ofB || ofA.Names != want {
		t.Fatalf("%+v and %+v count", ofA, ofB)
	}
	if other := asked(t, first, "GET /none HTTP/1.1\r\nHost: shop.example.org").Meter; other == nil || other.Names != (gateway.Names{Host: "shop.example.org"}) {
		t.Errorf("what no route takes is counted by %+v", other)
	}
	if other := asked(t, first, "GET / HTTP/1.1\r\nHost: other.example.org").Meter; other != nil {
		t.Errorf("a host that nobody knows is counted by %+v", other.Names)
	}
	second, _ := routerOf(t, first, table, countedIngress+canaryIngress)
	if asked(t, second, a).Meter != ofA || asked(t, second, b).Meter != ofB {
		t.Error("the counters began anew with another table")
	}
	canary := asked(t, second, a+"\r\nX-New: always")
	if m := canary.Meter; m == nil || m.Service != "new" || m.Ingress != "canary" || !m.Canary || m.Path != "/a" {
		t.Errorf("the canary is counted by %+v", m)
	}
	if canary.Quiet {
		t.Error("the annotation of the canary keeps the main Ingress out of the log")
	}
	count := 0
	for range second.Meters() {
		count++
	}
	if count != 4 { // the host, two routes and the canary
		t.Errorf("%d count", count)
	}
}

// TestQuiet: enable-access-log is heard.
func TestQuiet(t *testing.T) {
	quiet := bytes.Replace([]byte(countedIngress), []byte("  name: shop"), []byte("  name: shop\n  annotations: {nginx.ingress.kubernetes.io/enable-access-log: \"false\"}"), 1)
	for manifests, want := range map[string]bool{countedIngress: false, string(quiet): true} {
		r, _ := routerOf(t, nil, nil, manifests)
		if got := asked(t, r, http.MethodGet+" /a HTTP/1.1\r\nHost: shop.example.org").Quiet; got != want {
			t.Errorf("quiet is %v, want %v", got, want)
		}
	}
}
