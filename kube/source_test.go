package kube

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// start runs a source for as long as the test.
func start(t *testing.T, source *Source) *model.Feed {
	t.Helper()
	feed := &model.Feed{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- source.Run(ctx, feed) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return feed
}

func synced(t *testing.T, source *Source) {
	t.Helper()
	select {
	case <-source.Synced():
	case <-time.After(30 * time.Second):
		t.Fatalf("not synced; problems: %v", source.Problems())
	}
}

func TestSourceFollows(t *testing.T) {
	for _, noStreams := range []bool{false, true} {
		t.Run(map[bool]string{false: "watch list", true: "list and watch"}[noStreams], func(t *testing.T) {
			s := newStub(t)
			s.noStreams = noStreams
			s.put(nodesPath, stubNode("a", `"spec": {"podCIDRs": ["10.244.0.7/24", "fd00::/64"]}, "status": {"addresses": [
				{"type": "Hostname", "address": "a"}, {"type": "InternalIP", "address": "::ffff:172.30.0.1"}]}`))
			s.put(nodesPath, stubNode("b", `"spec": {"podCIDR": "10.244.1.0/24"}`))
			s.put(podsPath, stubPod("web", `"spec": {"nodeName": "a"}, "status": {"podIPs": [{"ip": "10.244.0.2"}]}`))
			s.put(networksPath, stubNetwork(`"mtu": 1400, "masquerade": {"ipv4": false}`))
			source := s.client(Options{}).Source()
			feed := start(t, source)
			synced(t, source)

			first := until(t, feed, "policies", func(s *model.Snapshot) bool { return s.PoliciesKnown })
			if first.Revision != 4 {
				t.Errorf("the first lists and that all are known made %d revisions, not one each", first.Revision)
			}
			a, _ := first.Nodes.Get("a")
			want := &model.Node{Name: "a", UID: "uid-of-a",
				Addresses: []netip.Addr{netip.MustParseAddr("172.30.0.1")},
				PodCIDRs:  []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24"), netip.MustParsePrefix("fd00::/64")},
			}
			if a == nil || !a.Equal(want) {
				t.Errorf("node a is %+v, want %+v", a, want)
			}
			if b, _ := first.Nodes.Get("b"); b == nil || len(b.PodCIDRs) != 1 {
				t.Errorf("node b is %+v, without the range of the old field", b)
			}
			if n := first.Network; n.MTU != 1400 || n.Masquerade.On[model.IPv4] || !n.Masquerade.On[model.IPv6] || !n.DirectRouting || n.VXLANVNI != 4096 {
				t.Errorf("the network is %+v", n)
			}

			// What no plan can see makes no revision.
			s.put(podsPath, stubPod("web", `"spec": {"nodeName": "a"}, "status": {"message": "new", "podIPs": [{"ip": "10.244.0.2"}]}`))
			s.put(podsPath, stubPod("db", `"spec": {"nodeName": "b"}`))
			key := model.PodKey{Namespace: "default", Name: "web"}
			next := until(t, feed, "pod db", func(s *model.Snapshot) bool { return s.Pods.Len() == 2 })
			if next.Revision != first.Revision+1 {
				t.Errorf("revision %d follows %d", next.Revision, first.Revision)
			}
			s.put(podsPath, stubPod("web", `"spec": {"nodeName": "a"}, "status": {"phase": "Succeeded"}`))
			until(t, feed, "pod web finishing", func(s *model.Snapshot) bool {
				pod, _ := s.Pods.Get(key)
				return pod.Finished
			})
			s.remove(podsPath + "/web")
			until(t, feed, "pod web going", func(s *model.Snapshot) bool { return s.Pods.Len() == 1 })
			s.remove(networksPath + "/default")
			until(t, feed, "defaults", func(s *model.Snapshot) bool { return s.Network.Equal(model.DefaultNetwork()) })
		})
	}
}

func TestSourceRelists(t *testing.T) {
	s := newStub(t)
	s.put(nodesPath, stubNode("a", `"spec": {"podCIDRs": ["10.244.0.0/24"]}`))
	s.put(nodesPath, stubNode("b", `"spec": {"podCIDRs": ["10.244.1.0/24"]}`))
	source := s.client(Options{}).Source()
	feed := start(t, source)
	synced(t, source)
	before := until(t, feed, "policies", func(s *model.Snapshot) bool { return s.PoliciesKnown })
	s.forget(nodesPath + "/b")
	after := until(t, feed, "node b going", func(s *model.Snapshot) bool { return s.Nodes.Len() == 1 })
	if after.Revision != before.Revision+1 {
		t.Errorf("relisting all made %d revisions; one thing changed", after.Revision-before.Revision)
	}
	was, _ := before.Nodes.Get("a")
	if is, _ := after.Nodes.Get("a"); is != was {
		t.Error("a node that did not change was made anew")
	}
}

func TestSourceWithoutCRD(t *testing.T) {
	s := newStub(t)
	s.missing[networksPath] = true
	source := s.client(Options{}).Source()
	feed := start(t, source)
	synced(t, source)
	snapshot, _ := feed.Latest()
	if snapshot.Network == nil || !snapshot.Network.Equal(model.DefaultNetwork()) {
		t.Errorf("the network is %+v", snapshot.Network)
	}
	if problems := source.Problems(); len(problems) > 0 {
		t.Errorf("problems: %v", problems)
	}
	s.mu.Lock()
	delete(s.missing, networksPath)
	s.mu.Unlock()
	s.put(networksPath, stubNetwork(`"mtu": 1400`))
	until(t, feed, "the Network", func(s *model.Snapshot) bool { return s.Network.MTU == 1400 })
}

// TestInvalidNetworkAtStart: of a Network that is partly wrong nothing is used,
// lest a node that starts is routed otherwise than those that run.
func TestInvalidNetworkAtStart(t *testing.T) {
	s := newStub(t)
	s.put(networksPath, stubNetwork(`"mtu": 12, "backend": "ipip"`))
	source := s.client(Options{}).Source()
	feed := start(t, source)
	synced(t, source)
	if now, _ := feed.Latest(); !now.Network.Equal(model.DefaultNetwork()) {
		t.Errorf("the network is %+v", now.Network)
	}
}

func TestInvalidNetworkIsNotFollowed(t *testing.T) {
	s := newStub(t)
	s.put(networksPath, stubNetwork(`"mtu": 1400`))
	source := s.client(Options{}).Source()
	feed := start(t, source)
	synced(t, source)
	before := until(t, feed, "policies", func(s *model.Snapshot) bool { return s.PoliciesKnown })
	for _, test := range []struct{ spec, field string }{
		{`"mtu": 12, "vxlan": {"vni": 7}`, "spec.mtu"},
		{`"mtu": 1350, "masquerade": {"exclude": ["198.51.100.0/24", "10.0.0.0/33"]}`, "spec.masquerade.exclude"},
		{`"mtu": 1350, "masquerade": {"from": ["nowhere"]}`, "spec.masquerade.from"},
	} {
		changed := source.Changed()
		s.put(networksPath, stubNetwork(test.spec))
		select {
		case <-changed:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: no problem was reported", test.spec)
		}
		problems := source.Problems()
		if len(problems) != 1 || !strings.HasPrefix(problems[0].Field, test.field) || problems[0].Object() != "Network/default" {
			t.Errorf("%s: problems: %v", test.spec, problems)
		}
	}
	s.put(networksPath, stubNetwork(`"mtu": 1300`))
	after := until(t, feed, "the corrected Network", func(s *model.Snapshot) bool { return s.Network.MTU == 1300 })
	if after.Revision != before.Revision+1 {
		t.Errorf("the invalid Network made a revision: %d follows %d", after.Revision, before.Revision)
	}
	if problems := source.Problems(); len(problems) > 0 {
		t.Errorf("problems after the correction: %v", problems)
	}
}

func TestSourceSaysWhatIsForbidden(t *testing.T) {
	s := newStub(t)
	client := s.client(Options{})
	s.ca = nil // what follows is another cluster's
	other := newStub(t)
	source := client.Source()
	client.servers.configured = []string{other.server.URL}
	start(t, source)
	changed := source.Changed()
	if len(source.Problems()) == 0 {
		<-changed
	}
	for _, problem := range source.Problems() {
		if problem.Reason != "Unreachable" || !strings.Contains(problem.Message, "certificate") {
			t.Errorf("problem: %v", problem)
		}
	}
}

func TestNodeValuesThatAreNotUnderstood(t *testing.T) {
	s := newStub(t)
	s.put(nodesPath, stubNode("a", `"spec": {"podCIDRs": ["10.244.0.0/24", "nonsense"]}`))
	source := s.client(Options{}).NodeSource()
	feed := start(t, source)
	synced(t, source)
	snapshot, _ := feed.Latest()
	if a, _ := snapshot.Nodes.Get("a"); a == nil || len(a.PodCIDRs) != 1 {
		t.Errorf("node a is %+v", a)
	}
	problems := source.Problems()
	if len(problems) != 1 || problems[0].Object() != "Node/a" || problems[0].Field != "spec.podCIDRs" {
		t.Errorf("problems: %v", problems)
	}
	s.remove(nodesPath + "/a")
	until(t, feed, "node a going", func(s *model.Snapshot) bool { return s.Nodes.Len() == 0 })
	if problems := source.Problems(); len(problems) > 0 {
		t.Errorf("problems of a node that is gone: %v", problems)
	}
}

// TestSourceOfPolicies: policies, namespaces and pods as policies see them come to
// be known, all of them before it is said that they are.
func TestSourceOfPolicies(t *testing.T) {
	for _, protobuf := range []bool{false, true} {
		t.Run(map[bool]string{false: "JSON", true: "protobuf"}[protobuf], func(t *testing.T) {
			s := newStub(t)
			s.protobuf = protobuf
			s.put(namespacesPath, `{"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "shop", "labels": {"team": "a"}}}`)
			s.put(podsPath, `{"kind": "Pod", "apiVersion": "v1", "metadata": {"namespace": "shop", "name": "web", "labels": {"app": "web"}},
				"spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]}}`)
			policy := func(cidr string) string {
				return `{"kind": "NetworkPolicy", "apiVersion": "networking.k8s.io/v1", "metadata": {"namespace": "shop", "name": "p"},
					"spec": {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "` + cidr + `"}}]}]}}`
			}
			s.put(policiesPath, policy("10.0.0.0/8"))
			source := s.client(Options{}).Source()
			feed := start(t, source)
			first := until(t, feed, "policies", func(s *model.Snapshot) bool { return s.PoliciesKnown })
			shop, _ := first.Namespaces.Get("shop")
			web, _ := first.Pods.Get(model.PodKey{Namespace: "shop", Name: "web"})
			key := model.PolicyKey{Namespace: "shop", Name: "p"}
			p, _ := first.Policies.Get(key)
			switch {
			case shop == nil || shop.Labels.String() != own+",team=a":
				t.Errorf("the namespace is %+v", shop)
			case web == nil || web.Labels.String() != "app=web" || len(web.Ports) != 1 || web.Ports[0].Port != 8080:
				t.Errorf("the pod is %+v", web)
			case p == nil || policyText(p) != "*; ingress [10.0.0.0/8: any]":
				t.Errorf("the policy is %+v", p)
			}
			s.put(policiesPath, policy("11.0.0.0/8"))
			until(t, feed, "the new policy", func(s *model.Snapshot) bool {
				p, _ := s.Policies.Get(key)
				return p != nil && policyText(p) == "*; ingress [11.0.0.0/8: any]"
			})
			s.put(policiesPath, policy("oops"))
			until(t, feed, "the policy with a mistake", func(s *model.Snapshot) bool {
				p, _ := s.Policies.Get(key)
				return p != nil && policyText(p) == "*; ingress [: any]"
			})
			if problems := source.Problems(); len(problems) != 1 || problems[0].Field != "spec.ingress[0].from[0].ipBlock.cidr" {
				t.Errorf("problems %v", problems)
			}
			s.remove(policiesPath + "/p")
			until(t, feed, "no policy", func(s *model.Snapshot) bool { return s.Policies.Len() == 0 })
			if problems := source.Problems(); len(problems) > 0 {
				t.Errorf("problems %v", problems)
			}
		})
	}
}

// TestSourceMayNotReadPolicies: with the role of an older release, all but
// policies is followed, it is said what to do, and it is not said that there are
// none.
func TestSourceMayNotReadPolicies(t *testing.T) {
	for _, path := range []string{policiesPath, namespacesPath, kindsPath, clusterPoliciesPath} {
		s := newStub(t)
		s.put(kindsPath, stubKind)
		s.missing = map[string]bool{}
		s.forbidden[path] = true
		s.put(nodesPath, stubNode("a", `"spec": {}`))
		source := s.client(Options{}).Source()
		feed := start(t, source)
		synced(t, source)
		said := func() string {
			for {
				changed := source.Changed()
				for _, problem := range source.Problems() {
					if problem.Reason == "Forbidden" {
						return problem.String()
					}
				}
				select {
				case <-changed:
				case <-time.After(30 * time.Second):
					t.Fatalf("%s: problems %v", path, source.Problems())
				}
			}
		}()
		if !strings.Contains(said, "apply Fairlead's manifest again") || !strings.Contains(said, path[strings.LastIndex(path, "/")+1:]) {
			t.Errorf("%s: %s", path, said)
		}
		if now, _ := feed.Latest(); now.PoliciesKnown || now.Nodes.Len() != 1 {
			t.Errorf("%s: %+v", path, now)
		}
		select {
		case <-source.PoliciesRead():
			t.Errorf("%s: policies have been read", path)
		default:
		}
		s.mu.Lock()
		s.forbidden = map[string]bool{}
		s.mu.Unlock()
		until(t, feed, path+" allowed", func(s *model.Snapshot) bool { return s.PoliciesKnown })
		<-source.PoliciesRead()
	}
}

const stubKind = `{"kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1", "metadata": {"name": "clusternetworkpolicies.policy.networking.k8s.io", "uid": "u1"},
	"spec": {"group": "policy.networking.k8s.io"}}`

// TestSourceOfClusterPolicies: a cluster without their kind is not asked for them,
// and nothing is wrong with it; they are noticed when it comes, and go with it.
func TestSourceOfClusterPolicies(t *testing.T) {
	for _, noStreams := range []bool{false, true} {
		s := newStub(t)
		s.noStreams = noStreams
		source := s.client(Options{}).Source()
		feed := start(t, source)
		until(t, feed, "policies", func(s *model.Snapshot) bool { return s.PoliciesKnown })
		if problems := source.Problems(); len(problems) > 0 {
			t.Errorf("problems %v", problems)
		}
		if asked := s.count("GET " + clusterPoliciesPath); asked > 0 {
			t.Errorf("they were asked for %d times", asked)
		}
		for range 2 {
			s.mu.Lock()
			delete(s.missing, clusterPoliciesPath)
			s.mu.Unlock()
			s.put(kindsPath, stubKind)
			policy := func(action string) string {
				return `{"kind": "ClusterNetworkPolicy", "apiVersion": "policy.networking.k8s.io/v1alpha2", "metadata": {"name": "c"},
					"spec": {"tier": "Admin", "priority": 5, "subject": {"namespaces": {}}, "ingress": [{"action": "` + action + `", "from": [{"namespaces": {}}]}]}}`
			}
			for _, action := range []string{"Deny", "Pass"} {
				s.put(clusterPoliciesPath, policy(action))
				until(t, feed, "the policy", func(s *model.Snapshot) bool {
					c, _ := s.ClusterPolicies.Get("c")
					return c != nil && clusterPolicyText(c) == "Admin 5 {*}/{*}; ingress "+action+" [{*}/{*}: any]"
				})
			}
			s.mu.Lock()
			s.missing[clusterPoliciesPath] = true
			delete(s.objects, clusterPoliciesPath+"/c") // of which nobody tells
			s.mu.Unlock()
			s.remove(kindsPath + "/" + clusterPolicyKind)
			until(t, feed, "no policy", func(s *model.Snapshot) bool { return s.ClusterPolicies.Len() == 0 })
			if problems := source.Problems(); len(problems) > 0 {
				t.Errorf("problems %v", problems)
			}
		}
	}
}

// TestClusterPoliciesOfAnotherVersion: a kind that has not the version which is
// understood has no policies.
func TestClusterPoliciesOfAnotherVersion(t *testing.T) {
	s := newStub(t)
	s.put(kindsPath, stubKind)
	source := s.client(Options{}).Source()
	feed := start(t, source)
	until(t, feed, "policies", func(s *model.Snapshot) bool { return s.PoliciesKnown })
	if problems := source.Problems(); len(problems) > 0 {
		t.Errorf("problems %v", problems)
	}
}
