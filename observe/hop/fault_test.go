package hop_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/trace"
)

// TestFaults breaks one thing at a time on the way from pod a to pod c, which is
// behind the tunnel, or to pod b, which is not, and reads what is said of it.
func TestFaults(t *testing.T) {
	tests := []struct {
		name   string
		to     string // pod; "out": an address outside; "port": a host port of node2
		family model.Family
		where  string // the namespace that is broken
		how    string // the commands that break it

		impostor bool // somebody else answers
	}{
		{"the route is gone", "c", model.IPv4, "node1", "ip route del 10.244.3.0/24", false},
		{"the route of IPv6 is gone", "c", model.IPv6, "node1", "ip -6 route del fd00:10:244:3::/64", false},
		{"the direct route is gone", "b", model.IPv4, "node1", "ip route del 10.244.2.0/24", false},
		{"the way back is gone", "c", model.IPv4, "node3", "ip route del 10.244.1.0/24", false},
		{"no route at all", "c", model.IPv4, "node1", "ip route del 10.244.3.0/24; ip route del default", false},
		{"the neighbour is gone", "c", model.IPv4, "node1", "ip neigh del 10.244.3.0 dev fairlead-vx4", false},
		{"the neighbour of IPv6 is gone", "c", model.IPv6, "node1", "ip neigh flush dev fairlead-vx4 nud permanent", false},
		{"the forwarding entry is gone", "c", model.IPv4, "node1", "bridge fdb del e2:ed:68:b5:47:63 dev fairlead-vx4 dst 172.30.2.13", false},
		{"the forwarding entry leads elsewhere", "c", model.IPv4, "node1", "bridge fdb replace e2:ed:68:b5:47:63 dev fairlead-vx4 dst 172.30.1.12 self permanent", false},
		{"the forwarding entry leads to no node", "c", model.IPv4, "node1", "bridge fdb replace e2:ed:68:b5:47:63 dev fairlead-vx4 dst 172.30.2.99 self permanent", false},
		{"the tunnel is down", "c", model.IPv4, "node1", "ip link set fairlead-vx4 down", false},
		{"the other end of the tunnel is down", "c", model.IPv4, "node3", "ip link set fairlead-vx4 down", false},
		{"the other end of the tunnel is gone", "c", model.IPv4, "node3", "ip link del fairlead-vx4", false},
		{"the other end of the tunnel has another MAC", "c", model.IPv4, "node3", "ip link set fairlead-vx4 address 02:00:00:00:99:99", false},
		{"the tunnel has another MTU", "c", model.IPv4, "node1", "ip link set fairlead-vx4 mtu 1400", false},
		{"the route has another MTU", "c", model.IPv4, "node1", "ip route replace 10.244.3.0/24 via 10.244.3.0 dev fairlead-vx4 onlink src 10.244.1.0 mtu 1300 proto 175", false},
		{"the uplink has a smaller MTU", "c", model.IPv4, "node1", "ip link set eth0 mtu 1400", false},
		{"rp_filter drops it", "c", model.IPv4, "node3", "ip route replace 10.244.1.0/24 via 172.30.2.1 dev eth0 proto 175; sysctl -qw net.ipv4.conf.fairlead-vx4.rp_filter=1", false},
		{"forwarding is off", "c", model.IPv4, "node3", "sysctl -qw net.ipv4.ip_forward=0", false},
		{"forwarding of IPv6 is off", "c", model.IPv6, "node3", "sysctl -qw net.ipv6.conf.all.forwarding=0", false},
		{"the other uplink takes less", "c", model.IPv4, "node3", "ip link set eth0 mtu 1400", false},
		{"the other uplink takes less of direct routes", "b", model.IPv4, "node2", "ip link set eth0 mtu 1400", false},
		{"masquerade without nftables", "out", model.IPv4, "node1", "nft flush ruleset", false},
		{"a host port without nftables", "port", model.IPv4, "node2", "nft flush ruleset", false},
		{"pods without nftables", "c", model.IPv4, "node1", "nft flush ruleset", false},
		{"the uplink is down", "b", model.IPv4, "node1", "ip link set eth0 down", false},
		{"the uplink has no carrier", "b", model.IPv4, "router", "ip link set port1 down", false},
		{"nobody answers", "b", model.IPv4, "node1", "ip neigh replace 172.30.1.12 dev eth0 nud failed", false},
		{"another has the address", "b", model.IPv4, "node1", "ip neigh replace 172.30.1.12 lladdr 02:00:00:00:99:99 dev eth0 nud reachable", false},
		{"another route takes it round", "c", model.IPv4, "node1", "ip route add 10.244.3.0/25 via 172.30.1.12 proto static", false},
		{"another route takes it out", "c", model.IPv4, "node1", "ip route add 10.244.3.0/25 via 172.30.1.1 proto static", false},
		{"another route refuses it", "c", model.IPv4, "node1", "ip route add unreachable 10.244.3.0/25 proto static", false},
		{"a rule takes it", "c", model.IPv4, "node1", "ip rule add from 10.244.1.0/24 lookup 100; ip route add default via 172.30.1.1 table 100", false},
		{"in circles", "b", model.IPv4, "node2", "ip link del fl-b; ip route del unreachable 10.244.2.0/24; ip route add 10.244.2.0/24 via 172.30.1.11", false},
		{"the pod has another MAC", "c", model.IPv4, "a", "ip link set eth0 address 02:00:00:00:99:99", false},
		{"the pod's interface is down", "c", model.IPv4, "c", "ip link set eth0 down", false},
		{"the pod's link is gone", "c", model.IPv4, "node3", "ip link del fl-c", false},
		{"the sender's link is gone", "c", model.IPv4, "node1", "ip link del fl-a", false},
		{"the pod's link has two MTUs", "c", model.IPv4, "node3", "ip link set fl-c mtu 1300", false},
		{"the pod's route is gone", "c", model.IPv4, "node3", "ip route del 10.244.3.5", false},
		{"a chain of somebody else drops the tunnel", "c", model.IPv4, "node3", "nft 'table inet foreign { chain input { type filter hook input priority -10; udp dport 4789 drop; }; }'", false},
		{"the node takes the pod's address", "c", model.IPv4, "node1", "ip addr add 10.244.3.5/32 dev lo", true},
	}
	texts := make([]string, len(tests))
	t.Cleanup(func() {
		if !slices.Contains(texts, "") { // all of them were run
			golden(t, "faults", strings.Join(texts, ""))
		}
	})
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, model.DefaultNetwork())
			w.impostor = test.impostor
			trip := w.trip(test.to, test.family)
			w.in(test.where, test.how)
			text := w.text(trip)
			if !strings.ContainsAny(text, "✗?!") {
				t.Errorf("nothing is said of it:\n%s", text)
			}
			texts[i] = "# " + test.name + "\n" + text + "\n"
		})
	}
}

// TestUnasked: nodes that do not tell.
func TestUnasked(t *testing.T) {
	w := newWorld(t, model.DefaultNetwork())
	trip := trace.Trip{From: w.pod("a", model.IPv4), To: w.pod("c", model.IPv4)}
	w.silent["node1"] = "ask the agent: connection refused"
	silent := w.text(trip)
	delete(w.silent, "node1")
	w.places[2].Trouble, w.places[2].Next = "node3 cannot be asked: it has no agent pod", "kubectl describe daemonset"
	golden(t, "unasked", "# an agent that does not tell its plan\n"+silent+"\n# a node without agent\n"+w.text(trip))
}

// trip is from pod a.
func (w *world) trip(to string, family model.Family) trace.Trip {
	trip := trace.Trip{From: w.pod("a", family)}
	switch to {
	case "out":
		trip.To = trace.End{Name: "203.0.113.10", Address: netip.MustParseAddr("203.0.113.10")}
	case "port":
		trip.To, trip.Protocol, trip.Port = w.node("node2", family), model.TCP, 8080
	default:
		trip.To = w.pod(to, family)
	}
	return trip
}
