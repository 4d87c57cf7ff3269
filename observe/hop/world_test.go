package hop_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane"
	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/dataplane/netlink"
	"github.com/fairlead-net/fairlead/dataplane/nftables"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/hop"
	"github.com/fairlead-net/fairlead/observe/trace"
	"github.com/fairlead-net/fairlead/plan"
)

// world is three nodes with a pod each, made by the data plane of the agent:
// node1 and node2 are on one network, node3 behind a router.
type world struct {
	t         *testing.T
	snapshots map[string]*model.Snapshot
	spaces    map[string]*netnstest.Namespace // of the nodes, the router and the pods
	places    []trace.Place
	silent    map[string]string // nodes whose agent does not tell its plan
	impostor  bool              // who answers need not be who was meant, or nobody says who does
}

var segments = map[string]int{"node1": 1, "node2": 1, "node3": 2}

// mtu of the nodes' uplinks, in bytes.
const mtu = 1500

func newWorld(t *testing.T, network *model.Network) *world {
	w := &world{t: t, snapshots: map[string]*model.Snapshot{}, spaces: map[string]*netnstest.Namespace{}, silent: map[string]string{}}
	for _, name := range []string{"router", "node1", "node2", "node3", "a", "b", "c"} {
		w.spaces[name] = netnstest.New(t)
	}
	w.in("router", `
		ip link add seg1 type bridge
		ip link set seg1 up
		ip addr add 172.30.1.1/24 dev seg1
		ip addr add fd00:172:30:1::1/64 dev seg1 nodad
		ip addr add 203.0.113.10/32 dev lo
		ip addr add 2001:db8:203:113::10/128 dev lo nodad
		sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1`)
	nodes := map[string]*model.Node{}
	for number, name := range []string{"node1", "node2", "node3"} {
		nodes[name] = w.addNode(name, number+1)
	}
	for number, name := range []string{"node1", "node2", "node3"} {
		w.snapshots[name] = &model.Snapshot{
			Revision: 1, Network: network, Nodes: model.MapOf(nodes), PoliciesKnown: true,
			Links: model.MapOf(map[string]*model.Link{"eth0": {
				Name: "eth0", MTU: mtu,
				Addresses: []netip.Prefix{netip.PrefixFrom(nodes[name].Addresses[0], 24), netip.PrefixFrom(nodes[name].Addresses[1], 64)},
			}}),
		}
		w.addPod(name, string(rune('a'+number)), number+1)
		w.apply(name)
	}
	return w
}

// in runs commands in a namespace.
func (w *world) in(name, script string) {
	w.t.Helper()
	w.spaces[name].Do(func() {
		if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
			w.t.Errorf("in %s: %v\n%s\n%s", name, err, script, out)
		}
	})
}

// enterable is a path by which ip finds the namespace.
func (w *world) enterable(name string) string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(w.spaces[name].Handle))
}

func (w *world) addNode(name string, number int) *model.Node {
	segment := segments[name]
	last := 10 + number
	port := "port" + fmt.Sprint(number)
	w.in("router", fmt.Sprintf(`
		ip link add %[1]s address 02:00:00:00:01:0%[2]d type veth peer name eth0 address 02:00:00:00:00:0%[2]d netns %[3]s
		ip link set %[1]s up`, port, number, w.enterable(name)))
	if segment == 1 {
		w.in("router", "ip link set "+port+" master seg1")
	} else {
		w.in("router", fmt.Sprintf("ip addr add 172.30.%d.1/24 dev %s; ip addr add fd00:172:30:%d::1/64 dev %s nodad", segment, port, segment, port))
	}
	w.in(name, fmt.Sprintf(`
		ip link set eth0 up
		ip addr add 172.30.%[1]d.%[2]d/24 dev eth0
		ip addr add fd00:172:30:%[1]d::%[2]d/64 dev eth0 nodad
		ip route add default via 172.30.%[1]d.1
		ip -6 route add default via fd00:172:30:%[1]d::1`, segment, last))
	node := &model.Node{
		Name: name, UID: name,
		Addresses: []netip.Addr{
			netip.MustParseAddr(fmt.Sprintf("172.30.%d.%d", segment, last)),
			netip.MustParseAddr(fmt.Sprintf("fd00:172:30:%d::%d", segment, last)),
		},
		PodCIDRs: []netip.Prefix{
			netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", number)),
			netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%d::/64", number)),
		},
	}
	w.places = append(w.places, trace.Place{Node: node, Agent: "fairlead-agent-" + name})
	return node
}

// addPod connects a pod as the agent does.
func (w *world) addPod(node, pod string, number int) {
	device, mac := "fl-"+pod, fmt.Sprintf("02:00:00:00:02:0%d", number)
	v4, v6 := fmt.Sprintf("10.244.%d.5", number), fmt.Sprintf("fd00:10:244:%d::5", number)
	w.in(node, fmt.Sprintf(`
		ip link add %[1]s group 175 mtu %[6]d type veth peer name eth0 address %[2]s mtu %[6]d netns %[3]s
		ip link set %[1]s alias "fairlead c-%[1]s eth0 %[4]s,%[5]s default/%[1]s" up
		sysctl -qw net.ipv4.conf.%[1]s.rp_filter=1
		ip addr add 169.254.1.1/32 dev %[1]s
		ip addr add fe80::1/64 dev %[1]s nodad
		ip neigh add %[4]s lladdr %[2]s dev %[1]s nud permanent
		ip neigh add %[5]s lladdr %[2]s dev %[1]s nud permanent`, device, mac, w.enterable(pod), v4, v6, mtu))
	w.in(pod, fmt.Sprintf(`
		ip link set eth0 up
		ip addr add %s/32 dev eth0
		ip addr add %s/128 dev eth0 nodad
		ip route add 169.254.1.1 dev eth0 scope link
		ip route add default via 169.254.1.1 dev eth0
		ip -6 route add default via fe80::1 dev eth0`, v4, v6))
	attachment := &model.Attachment{
		AttachmentKey: model.AttachmentKey{ContainerID: "c-" + pod, Interface: "eth0"},
		Pod:           model.PodKey{Namespace: "default", Name: pod}, Device: device,
		Addresses: []netip.Addr{netip.MustParseAddr(v4), netip.MustParseAddr(v6)},
		HostPorts: []model.HostPort{{Protocol: model.TCP, Port: 8080, PodPort: 80}},
	}
	if err := attachment.MAC.UnmarshalText([]byte(mac)); err != nil {
		w.t.Fatal(err)
	}
	s := w.snapshots[node]
	s.Attachments = s.Attachments.With(attachment.AttachmentKey, attachment)
	s.Pods = s.Pods.With(attachment.Pod, &model.Pod{PodKey: attachment.Pod, Node: node, Addresses: attachment.Addresses})
}

func (w *world) apply(node string) {
	w.spaces[node].Do(func() {
		plane, err := netlink.New()
		if err != nil {
			w.t.Error(err)
			return
		}
		defer plane.Close()
		planned := plan.Compute(nil, w.snapshots[node], node)
		for _, plane := range []dataplane.Dataplane{plane, nftables.New()} {
			if problems, err := plane.Apply(context.Background(), planned); err != nil || len(problems) > 0 {
				w.t.Errorf("apply on %s: %v, %v", node, err, problems)
			}
		}
	})
}

// ask is what the agent's container answers.
func (w *world) ask(node string, q trace.Question) (answer *trace.Answer, err error) {
	if w.spaces[node] == nil {
		return nil, errors.New("no such node")
	}
	snapshot := w.snapshots[node]
	if w.silent[node] != "" {
		snapshot = nil
	}
	w.spaces[node].Do(func() { answer, err = hop.Answer(node, snapshot, q) })
	if answer != nil {
		answer.Silent = w.silent[node]
	}
	return answer, err
}

// pod is an end, in a family.
func (w *world) pod(name string, family model.Family) trace.End {
	number := int(name[0]-'a') + 1
	addr := fmt.Sprintf("10.244.%d.5", number)
	if family == model.IPv6 {
		addr = fmt.Sprintf("fd00:10:244:%d::5", number)
	}
	return trace.End{Name: "default/" + name, Node: fmt.Sprintf("node%d", number), Address: netip.MustParseAddr(addr), Pod: true}
}

// node is an end.
func (w *world) node(name string, family model.Family) trace.End {
	at := slices.IndexFunc(w.places, func(p trace.Place) bool { return p.Name == name })
	return trace.End{Name: "node/" + name, Node: name, Address: w.places[at].Address(family)}
}

// answered tells whether a connection to a port where nobody listens is refused
// within a time: the packet has arrived, and its answer.
func (w *world) answered(trip trace.Trip, within time.Duration) (refused bool) {
	from := trip.From.Node
	if trip.From.Pod {
		from = strings.TrimPrefix(trip.From.Name, "default/")
	}
	const discard = 9 // RFC 863
	w.spaces[from].Do(func() {
		connection, err := net.DialTimeout("tcp", netip.AddrPortFrom(trip.To.Address, discard).String(), within)
		if err == nil {
			connection.Close()
			w.t.Errorf("somebody listens at %s", trip.To.Address)
		}
		refused = errors.Is(err, unix.ECONNREFUSED)
	})
	return refused
}

// text follows a packet and its answer. Then it sends one, and compares what
// becomes of it with what was said.
func (w *world) text(trip trace.Trip) string {
	w.t.Helper()
	if !trip.From.Pod {
		trip.From.Address = netip.Addr{}
	}
	path := trace.Walk(w.places, trip, w.ask)
	var back *trace.Path
	if trip, ok := path.Return(); ok {
		back = trace.Walk(w.places, trip, w.ask)
	}
	arrives := (path.Outcome == trace.Arrives || path.Outcome == trace.Leaves) && (back == nil || back.Outcome == trace.Arrives)
	within := 300 * time.Millisecond
	if len(path.Firewalls) > 0 { // nobody says whether these let it pass
		w.impostor = true
	}
	if arrives {
		within = 10 * time.Second // it does not take that long, unless the machine is busy
	}
	if path.Outcome != trace.Unknown && trip.Port == 0 && !w.impostor && w.answered(trip, within) != arrives {
		w.t.Errorf("%s to %s: a packet is answered: %t; it was said: %t", trip.From.Name, trip.To.Name, !arrives, arrives)
	}
	var text strings.Builder
	if err := trace.Text(&text, path, back, false, trace.Style{}); err != nil {
		w.t.Fatal(err)
	}
	return text.String()
}
