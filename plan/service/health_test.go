package service

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// healthText is all that load balancers are told on node a.
func healthText(p *Plan) string {
	lines := map[uint16]string{}
	for port, check := range p.HealthChecks.All() {
		lines[port] = fmt.Sprintf("%d %s %v", port, check.Service.Name, check.Local)
	}
	text := ""
	for _, port := range slices.Sorted(maps.Keys(lines)) {
		text += lines[port] + "\n"
	}
	return text
}

// checked is a Service with a health check.
func checked(name string, port uint16, created int64) *model.Service {
	s := service()
	s.Name, s.Created, s.ExternalLocal, s.HealthCheckNodePort = name, created, true, port
	s.ClusterIPs = []netip.Addr{addr(fmt.Sprintf("10.96.0.%d", 10+created)), addr(fmt.Sprintf("fd96::%d", 10+created))}
	s.Ports[0].NodePort = 0
	return s
}

// TestHealthCheckCounts: addresses of ready endpoints of this node count, each
// once, those that terminate do not.
func TestHealthCheckCounts(t *testing.T) {
	for _, test := range []struct {
		name      string
		endpoints []model.Endpoint
		want      string
	}{
		{"none", nil, "[0 0]"},
		{"ready ones of this node", []model.Endpoint{endpoint("10.0.0.1", "a"), endpoint("10.0.0.2", "a"), endpoint("10.0.0.3", "b"), endpoint("10.0.0.4", "")}, "[2 0]"},
		{"whatever hints say", []model.Endpoint{endpoint("10.0.0.1", "a", "zone=z2")}, "[1 0]"},
		{"ready and not ready", []model.Endpoint{endpoint("10.0.0.1", "a"), endpoint("10.0.0.2", "a", "unready")}, "[1 0]"},
		{"only one that terminates, and serves", []model.Endpoint{endpoint("10.0.0.1", "a", "terminating")}, "[0 0]"},
		{"of the other family", []model.Endpoint{endpoint("fd00::1", "a")}, "[0 1]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCluster()
			s := checked("web", 32000, 0)
			// A second port makes no second endpoint.
			s.Ports = append(s.Ports, model.ServicePort{Name: "dns", Protocol: model.UDP, Port: 53})
			c.serve(s)
			c.slice("1", 8080, test.endpoints...)
			p, problems := Compute(nil, &c.Snapshot, "a")
			if got := healthText(p); got != "32000 web "+test.want+"\n" || len(problems) > 0 {
				t.Errorf("got %q, want %s; problems %v", got, test.want, problems)
			}
		})
	}
}

// TestHealthCheckContest: the older of two Services has the port, until it goes.
func TestHealthCheckContest(t *testing.T) {
	c := newCluster()
	c.serve(checked("newer", 32000, 2))
	p, _ := Compute(nil, &c.Snapshot, "a")
	c.serve(checked("older", 32000, 1))
	c.serve(checked("other", 32001, 3))
	p, problems := Compute(p, &c.Snapshot, "a")
	if got := healthText(p); got != "32000 older [0 0]\n32001 other [0 0]\n" {
		t.Errorf("got %q", got)
	}
	if len(problems) != 1 || problems[0].Name != "newer" || problems[0].Field != "spec.healthCheckNodePort" {
		t.Errorf("problems %v", problems)
	}
	c.serve(checked("older", 32002, 1))
	p, problems = Compute(p, &c.Snapshot, "a")
	if got := healthText(p); got != "32000 newer [0 0]\n32001 other [0 0]\n32002 older [0 0]\n" || len(problems) > 0 {
		t.Errorf("then %q, problems %v", got, problems)
	}
	for _, name := range []string{"newer", "older", "other"} {
		c.Services = c.Services.Without(model.ServiceKey{Namespace: "default", Name: name})
	}
	if p, _ = Compute(p, &c.Snapshot, "a"); healthText(p) != "" || p.checks.Len()+p.checkContests.Len() > 0 {
		t.Errorf("of nothing: %q", healthText(p))
	}
}

// TestHealthAddresses: of a family that the node has not, nobody asks; where node
// ports are restricted, so are these.
func TestHealthAddresses(t *testing.T) {
	at := func(p *Plan) string {
		var all []netip.Addr
		for addr := range p.HealthAddresses.All() {
			all = append(all, addr)
		}
		slices.SortFunc(all, netip.Addr.Compare)
		return fmt.Sprint(all)
	}
	c := newCluster()
	p, _ := Compute(nil, &c.Snapshot, "a")
	if got := at(p); got != "[0.0.0.0 ::]" {
		t.Errorf("of both families: %s", got)
	}
	c.Network = model.DefaultNetwork()
	c.Network.Services.NodePortAddresses = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	next, _ := Compute(p, &c.Snapshot, "a")
	if got := at(next); got != "[192.0.2.1 ::]" {
		t.Errorf("restricted: %s", got)
	}
	if again, _ := Compute(next, &c.Snapshot, "a"); again.HealthAddresses != next.HealthAddresses {
		t.Error("the same addresses were made anew")
	}
	c.Network = nil
	c.Nodes = c.Nodes.With("a", &model.Node{Name: "a", Addresses: []netip.Addr{addr("192.0.2.1")}})
	fresh, _ := Compute(nil, &c.Snapshot, "a")
	if got := at(fresh); got != "[0.0.0.0]" {
		t.Errorf("of one family: %s", got)
	}
}
