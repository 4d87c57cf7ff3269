package service

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// TestWhy: why each endpoint is in the pools of a node, or not.
func TestWhy(t *testing.T) {
	tests := []struct {
		endpoints []model.Endpoint
		want      string
	}{
		{[]model.Endpoint{endpoint("10.0.0.1", "a", "zone=z1"), endpoint("10.0.0.2", "b", "zone=z2,z3"), endpoint("10.0.0.3", "a", "unready"), endpoint("10.0.0.4", "b", "terminating"), endpoint("10.0.0.5", "b", "dead")},
			`10.0.0.1:8080 true true it is ready, and meant for zone z1
10.0.0.2:8080 false false it is ready, and meant for other zones than z1 (z2, z3)
10.0.0.3:8080 false false it is not ready
10.0.0.4:8080 false false it leaves, while others are ready
10.0.0.5:8080 false false it leaves, and serves no more`},
		{[]model.Endpoint{endpoint("10.0.0.1", "a", "node=a"), endpoint("10.0.0.2", "b", "node=b"), endpoint("10.0.0.3", "a", "node=b,c")},
			`10.0.0.1:8080 true true it is ready, and meant for this node
10.0.0.2:8080 false false it is ready, and meant for other nodes (b)
10.0.0.3:8080 false true it is ready, and meant for other nodes (b, c)`},
		{[]model.Endpoint{endpoint("10.0.0.1", "b"), endpoint("10.0.0.2", "a", "terminating")},
			`10.0.0.1:8080 true false it is ready
10.0.0.2:8080 false true it leaves, while others are ready`},
		{[]model.Endpoint{endpoint("10.0.0.2", "b", "terminating")}, `10.0.0.2:8080 true false it leaves and still serves, and none is ready`},
	}
	for _, test := range tests {
		c := newCluster()
		c.serve(service())
		c.slice("1", 8080, test.endpoints...)
		p, _ := Compute(nil, &c.Snapshot, "a")
		var lines []string
		for _, r := range p.Why(Port{Service: web, Name: "http"}) {
			lines = append(lines, fmt.Sprintf("%s %t %t %s", r.Target, r.Cluster, r.Local, r.Why))
		}
		if got := strings.Join(lines, "\n"); got != test.want {
			t.Errorf("got\n%s\nwant\n%s", got, test.want)
		}
	}
	p, _ := Compute(nil, &newCluster().Snapshot, "a")
	if reasons := p.Why(Port{Service: web}); reasons != nil {
		t.Errorf("a Service that is not there has %v", reasons)
	}
}
