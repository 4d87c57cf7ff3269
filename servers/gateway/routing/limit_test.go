package routing

import (
	"net/netip"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/model"
	plan "github.com/fairlead-net/fairlead/plan/gateway"
	"github.com/fairlead-net/fairlead/servers/gateway"
)

func TestLimit(t *testing.T) {
	l := newLimit(limitKey{every: 100 * time.Millisecond, burst: 5})
	one, other, now := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), time.Unix(1000, 0)
	allowed := func(client netip.Addr, times int) (n int) {
		for range times {
			if l.allows(client, now) {
				n++
			}
		}
		return n
	}
	if n := allowed(one, 20); n != 6 {
		t.Errorf("at once %d requests are allowed, want 6: one, and a burst of 5", n)
	}
	if n := allowed(other, 1); n != 1 {
		t.Error("another client has none")
	}
	if now = now.Add(250 * time.Millisecond); allowed(one, 20) != 2 {
		t.Error("after a quarter of a second, 2 of 10 a second are not allowed")
	}
	if now = now.Add(time.Hour); allowed(one, 20) != 6 {
		t.Error("after an hour, the burst is not there again")
	}
}

// TestLimitMemory: however many clients there are, few are remembered.
func TestLimitMemory(t *testing.T) {
	l := newLimit(limitKey{every: time.Hour, burst: 1})
	client, now := netip.MustParseAddr("10.0.0.0"), time.Unix(1000, 0)
	for range 300_000 {
		client = client.Next()
		l.allows(client, now)
	}
	for i := range l.shards {
		if n := len(l.shards[i].next); n > mostClients {
			t.Fatalf("a shard remembers %d clients", n)
		}
	}
}

// TestLimitStays: a table that is changed gives nobody a new share, and shares
// backends.
func TestLimitStays(t *testing.T) {
	route := func(path string) *plan.Route {
		return &plan.Route{
			Match: plan.Match{Type: plan.MatchPrefix, Path: path}, From: model.IngressKey{Name: "a"},
			Policy: &plan.Policy{Limits: plan.Limits{PerMinute: 1, Burst: 1}},
		}
	}
	router := func(prev *Router, routes ...*plan.Route) *Router {
		table := &plan.Table{}
		table.Hosts = table.Hosts.With("a", &plan.Host{Name: "a", Routes: routes})
		return New(prev, table, Sources{Endpoints: plan.EndpointsOf(&model.Snapshot{})})
	}
	client, old := netip.MustParseAddr("192.0.2.1"), route("/")
	first := router(nil, old)
	for range 3 {
		first.routes[old].within(&gateway.Request{Client: client})
	}
	changed := route("/new")
	second := router(first, changed)
	if second.routes[changed].within(&gateway.Request{Client: client}) {
		t.Error("a client that has used up its share has a new one")
	}
	if first.routes[old].backend != second.routes[changed].backend {
		t.Error("the backend is another one")
	}
}
