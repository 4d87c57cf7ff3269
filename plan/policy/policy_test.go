package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// cluster is a snapshot that tests put together.
type cluster struct {
	model.Snapshot
	t *testing.T
}

// newCluster has pods of two namespaces: web, of team a, on this node, and db,
// of team b, elsewhere.
func newCluster(t *testing.T) *cluster {
	c := &cluster{t: t}
	c.PoliciesKnown = true
	c.namespace("web", "team=a")
	c.namespace("db", "team=b")
	c.local("web/front", "app=front,tier=x", "10.0.1.1", "fd00:1::1")
	c.local("web/back", "app=back", "10.0.1.2", "fd00:1::2")
	c.remote("web/far", "app=front", "10.0.2.1", "fd00:2::1")
	c.remote("db/sql", "app=sql", "10.0.2.2", "fd00:2::2")
	c.remote("db/job", "app=job", "10.0.2.3", "fd00:2::3")
	return c
}

func labels(text string) model.Labels {
	all := map[string]string{}
	for _, label := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' }) {
		key, value, _ := strings.Cut(label, "=")
		all[key] = value
	}
	return model.LabelsOf(all)
}

func (c *cluster) namespace(name, text string) {
	n := &model.Namespace{Name: name, Labels: labels(text + "," + namespaceName + "=" + name)}
	c.Namespaces = c.Namespaces.With(name, n)
}

func podKey(name string) model.PodKey {
	namespace, pod, _ := strings.Cut(name, "/")
	return model.PodKey{Namespace: namespace, Name: pod}
}

// remote adds a pod that the API server knows of.
func (c *cluster) remote(name, text string, addresses ...string) *model.Pod {
	pod := &model.Pod{PodKey: podKey(name), Labels: labels(text), Node: "b", Ports: []model.ContainerPort{{Name: "http", Protocol: model.TCP, Port: 8080}}}
	for _, addr := range addresses {
		pod.Addresses = append(pod.Addresses, netip.MustParseAddr(addr))
	}
	c.Pods = c.Pods.With(pod.PodKey, pod)
	return pod
}

// attach connects a pod to this node.
func (c *cluster) attach(name string, addresses ...string) *model.Attachment {
	a := &model.Attachment{AttachmentKey: model.AttachmentKey{ContainerID: name, Interface: "eth0"}, Pod: podKey(name)}
	for _, addr := range addresses {
		a.Addresses = append(a.Addresses, netip.MustParseAddr(addr))
	}
	c.Attachments = c.Attachments.With(a.AttachmentKey, a)
	return a
}

// local adds a pod of this node, whose addresses the API server does not know
// yet.
func (c *cluster) local(name, text string, addresses ...string) *model.Pod {
	c.attach(name, addresses...)
	pod := c.remote(name, text)
	pod.Node = "a"
	return pod
}

// selectorOf takes key=value, !key and key!=value; empty: all.
func selectorOf(text string) *model.Selector {
	s := &model.Selector{}
	for _, r := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' }) {
		key, value, _ := strings.Cut(r, "=")
		switch {
		case strings.HasPrefix(r, "!"):
			s.Requirements = append(s.Requirements, model.Requirement{Key: r[1:], Operator: model.DoesNotExist})
		case strings.HasSuffix(key, "!"):
			s.Requirements = append(s.Requirements, model.Requirement{Key: key[:len(key)-1], Operator: model.NotIn, Values: []string{value}})
		default:
			s.Requirements = append(s.Requirements, model.Requirement{Key: key, Operator: model.In, Values: []string{value}})
		}
	}
	return s
}

// pods chooses some of namespaces.
func pods(namespaces, of string) model.Peer {
	return model.Peer{Namespaces: selectorOf(namespaces), Pods: selectorOf(of)}
}

// own chooses pods of one namespace.
func own(namespace, of string) model.Peer { return pods(namespaceName+"="+namespace, of) }

func addresses(block string, except ...string) model.Peer {
	p := model.Peer{Block: netip.MustParsePrefix(block)}
	for _, e := range except {
		p.Except = append(p.Except, netip.MustParsePrefix(e))
	}
	return p
}

// allow is a rule; without peers, of anyone.
func allow(ports []model.PolicyPort, peers ...model.Peer) model.PolicyRule {
	return model.PolicyRule{Anyone: len(peers) == 0, Peers: peers, AnyPort: len(ports) == 0, Ports: ports}
}

func tcp(ports ...uint16) (all []model.PolicyPort) {
	for _, port := range ports {
		all = append(all, model.PolicyPort{Protocol: model.TCP, From: port, To: port})
	}
	return all
}

func named(protocol model.Protocol, name string) []model.PolicyPort {
	return []model.PolicyPort{{Protocol: protocol, Name: name}}
}

// isolate adds a NetworkPolicy of one direction.
func (c *cluster) isolate(name, of string, d model.Direction, rules ...model.PolicyRule) *model.Policy {
	p := &model.Policy{PolicyKey: model.PolicyKey(podKey(name)), Pods: *selectorOf(of)}
	p.Isolates[d] = true
	p.Rules[d] = rules
	c.Policies = c.Policies.With(p.PolicyKey, p)
	return p
}

// judge adds a ClusterNetworkPolicy of all pods.
func (c *cluster) judge(name string, tier model.Tier, priority int32, d model.Direction, rules ...model.ClusterRule) *model.ClusterPolicy {
	p := &model.ClusterPolicy{Name: name, Tier: tier, Priority: priority, Namespaces: &model.Selector{}, Pods: &model.Selector{}}
	p.Rules[d] = rules
	c.ClusterPolicies = c.ClusterPolicies.With(name, p)
	return p
}

func act(action model.Action, rule model.PolicyRule) model.ClusterRule {
	return model.ClusterRule{Action: action, PolicyRule: rule}
}

// compute plans, and plans again from what was planned before.
func (c *cluster) compute(prev *Plan) *Plan {
	c.t.Helper()
	p, _ := Compute(prev, &c.Snapshot, "a")
	return p
}

// expect checks what a plan says, in lines such as
//
//	10.0.1.1 ingress from 10.0.2.1 TCP 80: accept
func expect(t *testing.T, p *Plan, lines ...string) {
	t.Helper()
	for _, line := range lines {
		question, want, _ := strings.Cut(line, ": ")
		var at, peer, protocol string
		var direction, preposition string
		var port uint16
		if n, err := fmt.Sscan(question, &at, &direction, &preposition, &peer, &protocol); n != 5 {
			t.Fatalf("%q: %v", line, err)
		}
		if fields := strings.Fields(question); len(fields) > 5 {
			if _, err := fmt.Sscan(fields[5], &port); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
		}
		number, err := model.ParseProtocol(protocol)
		if err != nil {
			number = 1 // ICMP
		}
		subject := Subject{model.Direction(slices.Index([]string{"ingress", "egress"}, direction)), netip.MustParseAddr(at)}
		if got := p.Decide(subject, netip.MustParseAddr(peer), number, port).String(); got != want {
			t.Errorf("%s\n got %s\nwant %s", question, got, want)
		}
	}
}
