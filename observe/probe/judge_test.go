package probe

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// cluster is what the nodes of a cluster in which all is well report; a fault
// changes what comes back.
func cluster(fault func(from string, r *Result)) (asked []Asked) {
	nodes := []string{"node1", "node2", "node3"}
	for _, from := range nodes {
		report := &Report{Node: from, Endpoint: []netip.Addr{netip.MustParseAddr("10.244.0.254")}, Ways: map[string]Way{}}
		for i, to := range nodes {
			if from != to {
				report.Ways[to] = Way{Name: "vxlan", Protocol: "UDP", Port: 4789}
			}
			for _, path := range Paths {
				if from == to && path.FromPod() == path.ToPod() {
					continue
				}
				addr := fmt.Sprintf("192.0.2.%d", i+1)
				if path.ToPod() {
					addr = fmt.Sprintf("10.244.%d.254", i+1)
				}
				for _, kind := range []Kind{ICMP, UDP, TCP, MTU} {
					r := Result{Peer: to, Path: path, Family: "IPv4", Kind: kind, To: netip.MustParseAddr(addr), OK: true, Sent: 1, RTT: 0.0003}
					if kind == MTU {
						r.RTT, r.Planned, r.Found = 0, 1500, 1500
						if path.ToPod() {
							r.Planned, r.Found = 1450, 1450
						}
						if from == to {
							continue
						}
					}
					if fault != nil {
						fault(from, &r)
					}
					report.Results = append(report.Results, r)
				}
			}
		}
		asked = append(asked, Asked{Node: from, Peers: nodes, Report: report})
	}
	return asked
}

func (r *Result) lose() {
	r.OK, r.Lost, r.RTT, r.Found = false, r.Sent, 0, 0
}

// between tells whether a packet goes between two nodes, either way.
func between(a, b, from, to string) bool { return from == a && to == b || from == b && to == a }

// TestJudge compares what is said of faults with golden files: go test -update
// writes them.
func TestJudge(t *testing.T) {
	for name, asked := range map[string][]Asked{
		"well": cluster(nil),
		"partition": cluster(func(from string, r *Result) {
			if between("node1", "node3", from, r.Peer) {
				r.lose()
			}
		}),
		"tunnel-port-dropped": cluster(func(from string, r *Result) {
			if between("node2", "node3", from, r.Peer) && r.Path.ToPod() {
				r.lose()
			}
		}),
		"firewalls": func() []Asked {
			asked := cluster(func(from string, r *Result) {
				if between("node2", "node3", from, r.Peer) && r.Path.ToPod() {
					r.lose()
				}
			})
			asked[0].Report.Firewalls = []string{"ip filter INPUT"} // of no account
			asked[1].Report.Firewalls = []string{"a a a", "b b b", "c c c", "d d d", "e e e", "f f f", "g g g"}
			asked[2].Report.Firewalls = []string{"inet mine input", "ip filter INPUT"}
			return asked
		}(),
		"iptables-legacy": func() []Asked {
			asked := cluster(func(from string, r *Result) { // on node2
				if from != r.Peer && (from == "node2" && r.Path.FromPod() || r.Peer == "node2" && r.Path.ToPod()) {
					r.lose()
				}
			})
			asked[1].Report.Legacy = []string{"iptables-legacy -S FORWARD", "ip6tables-legacy -S FORWARD"}
			return asked
		}(),
		"forward-drop": cluster(func(from string, r *Result) { // on node2
			if from != r.Peer && (from == "node2" && r.Path.FromPod() || r.Peer == "node2" && r.Path.ToPod()) {
				r.lose()
			}
		}),
		"small-link": cluster(func(from string, r *Result) {
			if r.Kind == MTU && (from == "node3" || r.Peer == "node3") {
				planned := r.Planned
				r.lose()
				r.Found = planned - 100
			}
		}),
		"told-mtu": cluster(func(from string, r *Result) {
			if r.Kind == MTU && r.Path == HostToHost && from == "node1" {
				r.Found, r.Told, r.From = 1400, true, netip.MustParseAddr("192.0.2.254")
			}
		}),
		"probe-port-closed": cluster(func(from string, r *Result) {
			if r.Peer == "node2" && !r.Path.ToPod() && from != "node2" && (r.Kind == UDP || r.Kind == TCP) {
				r.lose()
			}
		}),
		"no-family": func() []Asked { // in common, of node2 and node3
			asked := cluster(nil)
			for _, a := range asked[1:] {
				a.Report.Results = slices.DeleteFunc(a.Report.Results, func(r Result) bool {
					return between("node2", "node3", a.Node, r.Peer)
				})
			}
			return asked
		}(),
		"hosts-closed": cluster(func(from string, r *Result) {
			if r.Path == HostToHost {
				r.lose()
			}
		}),
		"own-pods": cluster(func(_ string, r *Result) {
			if r.Peer == "node3" && r.Path.ToPod() {
				r.lose()
			}
		}),
		"unasked": func() []Asked {
			asked := cluster(func(_ string, r *Result) {
				if r.Peer == "node3" && (r.Path.ToPod() || r.Kind == UDP || r.Kind == TCP) {
					r.lose()
				}
			})
			asked[2].Report, asked[2].Error, asked[2].Next = nil, "it has no agent pod", "look for it"
			return asked
		}(),
		"no-endpoint": func() []Asked {
			asked := cluster(func(_ string, r *Result) {
				if r.Peer == "node3" && r.Path.ToPod() {
					r.lose()
				}
			})
			asked[2].Report.NoEndpoint = "pod default/old has its address until it ends"
			return asked
		}(),
		"unreachable": cluster(func(from string, r *Result) {
			if from == "node1" && r.Peer == "node2" && r.Path.ToPod() {
				r.lose()
				r.Error, r.From = "network unreachable: there is no route", netip.Addr{}
			}
		}),
		"loss": cluster(func(from string, r *Result) {
			if from == "node1" && r.Peer == "node2" && r.Kind == ICMP {
				r.Sent, r.Lost = 2, 1
			}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			pairs, findings := Judge(asked)
			var text strings.Builder
			for _, pair := range pairs {
				if pair.State != OK {
					fmt.Fprintf(&text, "%s > %s %s\n", pair.From, pair.To, pair.State)
				}
			}
			for _, f := range findings {
				fmt.Fprintf(&text, "\n%s: %s %v\n  what: %s\n  why:  %s\n  next: %s\n", f.State, f.Title(), f.Families, f.What, f.Why, f.Next)
			}
			path := filepath.Join("testdata", "judge", name+".txt")
			if *update {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if text.String() != string(want) {
				t.Errorf("it says\n%s\nnot\n%s", text.String(), want)
			}
		})
	}
}

// TestJudgeForbidden: what holds of all nodes alike is told once.
func TestJudgeForbidden(t *testing.T) {
	var asked []Asked
	for i := range 1000 {
		name := fmt.Sprintf("node%d", i)
		asked = append(asked, Asked{Node: name, Peers: []string{name}, Error: "you may not", Next: "be allowed to"})
	}
	_, findings := Judge(asked)
	if len(findings) != 1 || len(findings[0].Ways) != 1000 {
		t.Errorf("%d findings", len(findings))
	}
}
