package service

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// TestClaims: what a Service wants, also what another one has.
func TestClaims(t *testing.T) {
	c := newCluster()
	first, second := service(), service()
	second.Name, second.ClusterIPs, second.Created = "late", []netip.Addr{addr("10.96.0.2")}, 9
	first.ExternalIPs = []netip.Addr{addr("198.51.100.1")}
	second.ExternalIPs, second.Ports[0].NodePort = first.ExternalIPs, 0
	c.serve(first)
	c.serve(second)
	p, _ := Compute(nil, &c.Snapshot, "a")
	var lines []string
	for _, claim := range p.Claims(second.ServiceKey) {
		lines = append(lines, fmt.Sprintf("%s %s of %s", claim.VIP, claim.Kind, claim.Frontend.Port.Service))
	}
	want := "TCP 10.96.0.2:80 ClusterIP of default/late\nTCP 198.51.100.1:80 ExternalIP of default/web"
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if p.Claims(model.ServiceKey{Name: "none"}) != nil {
		t.Error("a Service that is not there claims something")
	}
}

// TestWhyNot: why nobody answers.
func TestWhyNot(t *testing.T) {
	for _, test := range []struct {
		endpoints []model.Endpoint
		want      string
	}{
		{nil, "it has no endpoints"},
		{[]model.Endpoint{endpoint("10.0.0.1", "b", "unready")}, "its one endpoint is not ready"},
		{[]model.Endpoint{endpoint("10.0.0.1", "b", "unready"), endpoint("10.0.0.2", "a", "dead")}, "none of its 2 endpoints is ready"},
		{[]model.Endpoint{endpoint("10.0.0.1", "b"), endpoint("10.0.0.2", "a", "dead")}, "it has endpoints that take connections, but none on a"},
		{[]model.Endpoint{endpoint("10.0.0.1", "a")}, ""},
	} {
		c := newCluster()
		s := service()
		s.InternalLocal = true
		c.serve(s)
		c.slice("1", 8080, test.endpoints...)
		p, _ := Compute(nil, &c.Snapshot, "a")
		claim := p.Claims(web)[0]
		if got := p.WhyNot(claim.Port, claim.Frontend.Inside); !strings.HasPrefix(got, test.want) || test.want == "" && got != "" {
			t.Errorf("%v: %q, want %q", test.endpoints, got, test.want)
		}
	}
}
