package trace

import (
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

func place(name, address, pods string) Place {
	return Place{Node: &model.Node{
		Name: name, Addresses: []netip.Addr{netip.MustParseAddr(address)}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix(pods)},
	}}
}

func device(name, kind string) *Device {
	return &Device{Name: name, Kind: kind, MTU: 1500, Up: true, Carrier: true}
}

// two nodes that send everything to each other.
func circle() ([]Place, Ask) {
	cluster := []Place{place("a", "192.0.2.1", "10.244.1.0/24"), place("b", "192.0.2.2", "10.244.2.0/24")}
	others := map[string]string{"a": "192.0.2.2", "b": "192.0.2.1"}
	return cluster, func(node string, _ Question) (*Answer, error) {
		return &Answer{Node: node, Plan: &Plan{}, Kernel: Kernel{
			Tables: true, In: device("eth0", "device"), Out: device("eth0", "device"),
			Route: &Route{Destination: netip.MustParsePrefix("10.244.2.0/24"), Device: "eth0", Via: netip.MustParseAddr(others[node])},
		}}, nil
	}
}

// TestWalkEnds: whatever the nodes say, a walk comes to an end and says why.
func TestWalkEnds(t *testing.T) {
	cluster, ask := circle()
	trip := Trip{
		From: End{Name: "x/p", Node: "a", Address: netip.MustParseAddr("10.244.1.5"), Pod: true},
		To:   End{Name: "x/q", Node: "b", Address: netip.MustParseAddr("10.244.2.5"), Pod: true},
	}
	for name, test := range map[string]struct {
		from    string
		ask     Ask
		outcome Outcome
		says    string
		next    string
	}{
		"in circles":     {"a", ask, Stops, "circles", "above"},
		"a node is gone": {"c", ask, Unknown, "there is no node c", "kubectl get nodes"},
		"nobody answers": {"a", func(string, Question) (*Answer, error) { return nil, errors.New("it is off") }, Unknown, "a cannot be asked: it is off", "fairlead status"},
		"who knows why": {"a", func(string, Question) (*Answer, error) {
			return nil, &Unasked{Err: errors.New("it is off"), Next: "turn it on"}
		}, Unknown, "it is off", "turn it on"},
		"an empty answer": {"a", func(string, Question) (*Answer, error) { return &Answer{}, nil }, Stops, "no interface of a leads to the pod", "logs"},
	} {
		t.Run(name, func(t *testing.T) {
			trip.From.Node = test.from
			path := Walk(cluster, trip, test.ask)
			var text strings.Builder
			if err := Text(&text, path, nil, true, Style{}); err != nil {
				t.Fatal(err)
			}
			if path.Outcome != test.outcome || !strings.Contains(text.String(), test.says) {
				t.Errorf("it %s, and is written\n%s", path.Outcome, text.String())
			}
			findings := path.Lines[len(path.Lines)-1].Findings
			if next := findings[0].Next; !strings.Contains(next, test.next) && test.next != "logs" {
				t.Errorf("what is next is %q", next)
			}
			if _, ok := path.Return(); ok {
				t.Error("there is an answer to what does not arrive")
			}
		})
	}
}

// TestTunnels: those of the cluster's network are followed, of whatever kind others
// are.
func TestTunnels(t *testing.T) {
	for _, test := range []struct {
		name, kind string
		want       By
	}{
		{"fairlead-vx4", "vxlan", ByVXLAN}, {"fairlead-vx6", "vxlan", ByVXLAN}, {"fairlead-vx4a1b", "vxlan", ByVXLAN},
		{"fairlead-ipip", "ipip", ByIPIP}, {"fairlead-ipip", "veth", ByIPIP}, {"fairlead-udp", "tun", ByUDP},
		{"flannel.1", "vxlan", ByVXLAN}, {"flannel-v6.1", "vxlan", ByVXLAN}, {"flannel.ipip", "ipip", ByIPIP},
		{"office", "vxlan", ByWire}, {"office", "ipip", ByWire}, {"tunl0", "ipip", ByWire}, {"wg0", "wireguard", ByWire}, {"eth0", "device", ByWire},
	} {
		if got := device(test.name, test.kind).Tunnel(); got != test.want {
			t.Errorf("%s of kind %s is %s, want %s", test.name, test.kind, got, test.want)
		}
	}
	if text := deviceText(device("tunl0", "ipip")); text != "tunl0 ipip mtu 1500" {
		t.Errorf("it is written %q", text)
	}
}

// TestWalkToItself: such a packet does not leave the pod.
func TestWalkToItself(t *testing.T) {
	pod := End{Name: "x/p", Node: "a", Address: netip.MustParseAddr("10.244.1.5"), Pod: true}
	path := Walk(nil, Trip{From: pod, To: pod}, func(string, Question) (*Answer, error) {
		t.Error("a node was asked")
		return nil, errors.New("not to be asked")
	})
	if path.Outcome != Arrives || len(path.Lines) != 1 || path.Lines[0].Device != "lo" {
		t.Errorf("the path is %+v", path)
	}
}

// TestReportsOfAgents: what an agent has reported is shown once, and marks the
// result.
func TestReportsOfAgents(t *testing.T) {
	cluster, ask := circle()
	cluster[0].Problems = []model.Problem{{Kind: "Node", Name: "a", Message: "a firewall drops", Remedy: "mend it"}}
	path, text := walkText(t, cluster, ask)
	if want := []Report{{"a", "Node/a: a firewall drops", "mend it"}}; !reflect.DeepEqual(path.Reports, want) {
		t.Errorf("reports are %+v", path.Reports)
	}
	for _, want := range []string{"reports Node/a: a firewall drops", "mend it", "\x1b[31m✗\x1b[0m"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}

// TestFirewallsOfOthers: what is not followed is named once for each node, and is no
// fault by itself.
func TestFirewallsOfOthers(t *testing.T) {
	cluster, ask := circle()
	_, text := walkText(t, cluster, ask)
	if strings.Contains(text, "not followed") {
		t.Errorf("without any, it says\n%s", text)
	}
	path, text := walkText(t, cluster, func(node string, q Question) (*Answer, error) {
		answer, err := ask(node, q)
		answer.Kernel.Droppers, answer.Kernel.Legacy = []string{"ip filter INPUT", "ip6 filter INPUT"}, []string{"iptables-legacy-save"}
		if node == "b" {
			answer.Kernel = Kernel{Unlisted: "not permitted"}
		}
		return answer, err
	})
	for _, want := range []string{
		"on a, chains of other programs drop some packets", "look at them on a: nft list chain ip filter INPUT",
		"on a, iptables-legacy has tables", "look at them on a: iptables-legacy-save",
		"on b, which chains of other programs drop packets is not known: not permitted", "look at them on b: nft list ruleset",
	} {
		if strings.Count(text, want) != 1 {
			t.Errorf("%q is not once in\n%s", want, text)
		}
	}
	if strings.Contains(text, "ip6 ") {
		t.Errorf("chains of IPv6 are named:\n%s", text)
	}
	if well := (&Path{Lines: []Line{{}}, Firewalls: path.Firewalls, Outcome: Arrives}); !strings.HasPrefix(result(well, "arrives", Style{}), "✓ arrives, if what is named above lets it pass") {
		t.Errorf("where nothing else is wrong: %s", result(well, "arrives", Style{}))
	}
	if !path.adds(&Path{Lines: path.Lines, Firewalls: path.Firewalls[:1]}) || path.adds(path) {
		t.Errorf("of the answer's way, those of another node are not new, or its own are: %+v", path.Firewalls)
	}
}

// walkText follows a packet from node a to a pod.
func walkText(t *testing.T, cluster []Place, ask Ask) (*Path, string) {
	path := Walk(cluster, Trip{From: End{Name: "node/a", Node: "a"}, To: End{Name: "10.244.2.5", Address: netip.MustParseAddr("10.244.2.5"), Pod: true}}, ask)
	var text strings.Builder
	if err := Text(&text, path, nil, false, Style{Colour: true}); err != nil {
		t.Fatal(err)
	}
	return path, text.String()
}

// TestAnswerTravels: what a node writes is what is read.
func TestAnswerTravels(t *testing.T) {
	mac := model.MAC{2, 0, 0, 0, 0, 1}
	addr := netip.MustParseAddr("2001:db8::1")
	want := Answer{
		Node: "a", Silent: "why",
		Plan: &Plan{MAC: mac, Remote: addr, Translated: netip.MustParseAddrPort("10.244.0.1:80"), Sysctls: map[string]string{"x": "1"}},
		Kernel: Kernel{
			In: &Device{Name: "fl", MAC: mac, Peer: device("eth0", "veth")}, Refused: Filtered, Filter: 1, Tables: true,
			Route: &Route{Destination: netip.MustParsePrefix("::/0"), Via: addr}, Outer: &Outer{Source: addr},
		},
	}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Answer
	if err := json.Unmarshal(text, &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("error %v, got %+v of %s", err, got, text)
	}
	question := Question{From: addr, To: addr, Protocol: model.UDP, Port: 53, Enter: Enter{By: ByVXLAN, MAC: mac, At: addr, VNI: 7, Port: 4789}}
	text, err = json.Marshal(question)
	var read Question
	if err != nil || json.Unmarshal(text, &read) != nil || read != question {
		t.Errorf("error %v, got %+v of %s", err, read, text)
	}
}
