package hostport

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

func attachment(name string, ports ...model.HostPort) *model.Attachment {
	return &model.Attachment{
		AttachmentKey: model.AttachmentKey{ContainerID: name, Interface: "eth0"},
		Pod:           model.PodKey{Namespace: "default", Name: name}, Device: "fl" + name,
		Addresses: []netip.Addr{netip.MustParseAddr("10.0.0." + name), netip.MustParseAddr("fd00::" + name)},
		HostPorts: ports,
	}
}

func snapshotOf(attachments ...*model.Attachment) *model.Snapshot {
	own := []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}
	snapshot := &model.Snapshot{
		Network: model.DefaultNetwork(),
		Nodes: model.MapOf(map[string]*model.Node{"self": {
			Name: "self", Addresses: []netip.Addr{own[0].Addr(), netip.MustParseAddr("2001:db8::1")},
		}}),
		Links: model.MapOf(map[string]*model.Link{"eth0": {Name: "eth0", Addresses: own}}),
	}
	for _, a := range attachments {
		snapshot.Attachments = snapshot.Attachments.With(a.AttachmentKey, a)
	}
	return snapshot
}

func ports(p *Plan) (lines []string) {
	for port, to := range p.Ports.All() {
		lines = append(lines, fmt.Sprintf("%s to %s", port, to))
	}
	slices.Sort(lines)
	return lines
}

func reasons(problems []model.Problem) (all []string) {
	for _, problem := range problems {
		all = append(all, problem.Name+" "+problem.Reason)
	}
	return all
}

func TestCompute(t *testing.T) {
	addr := netip.MustParseAddr
	only4 := attachment("3", model.HostPort{Protocol: model.TCP, HostIP: addr("::"), Port: 80, PodPort: 8080})
	only4.Addresses = only4.Addresses[:1]
	tests := map[string]struct {
		attachments    []*model.Attachment
		want, problems []string
	}{
		"everywhere": {
			attachments: []*model.Attachment{attachment("1", model.HostPort{Protocol: model.UDP, Port: 53, PodPort: 5353})},
			want:        []string{"UDP 0.0.0.0:53 to 10.0.0.1:5353", "UDP [::]:53 to [fd00::1]:5353"},
		},
		"of one family, and at one address": {
			attachments: []*model.Attachment{attachment("1",
				model.HostPort{Protocol: model.TCP, HostIP: addr("::"), Port: 80, PodPort: 8080},
				model.HostPort{Protocol: model.SCTP, HostIP: addr("192.0.2.1"), Port: 80, PodPort: 8080})},
			want: []string{"SCTP 192.0.2.1:80 to 10.0.0.1:8080", "TCP [::]:80 to [fd00::1]:8080"},
		},
		"wanted twice": {
			attachments: []*model.Attachment{
				attachment("2", model.HostPort{Protocol: model.TCP, Port: 80, PodPort: 8080}),
				attachment("1", model.HostPort{Protocol: model.TCP, Port: 80, PodPort: 8081}),
			},
			want:     []string{"TCP 0.0.0.0:80 to 10.0.0.1:8081", "TCP [::]:80 to [fd00::1]:8081"},
			problems: []string{"2 HostPortTaken"},
		},
		"of a tunnel": {
			attachments: []*model.Attachment{attachment("1",
				model.HostPort{Protocol: model.UDP, Port: 4789, PodPort: 1},
				model.HostPort{Protocol: model.TCP, HostIP: addr("192.0.2.1"), Port: 4789, PodPort: 1})},
			want:     []string{"TCP 192.0.2.1:4789 to 10.0.0.1:1"},
			problems: []string{"1 HostPortReserved"},
		},
		"of another family than the pod": {attachments: []*model.Attachment{only4}, problems: []string{"3 HostPortFamily"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			plan, problems := Compute(nil, snapshotOf(test.attachments...), "self")
			if got := ports(plan); !slices.Equal(got, test.want) {
				t.Errorf("ports %q, want %q", got, test.want)
			}
			if got := reasons(problems); !slices.Equal(got, test.problems) {
				t.Errorf("problems %q, want %q", got, test.problems)
			}
			// The node's address of IPv6 is on no interface.
			if want := [...]netip.Addr{addr("192.0.2.1"), {}}; plan.Own != want {
				t.Errorf("own addresses %v, want %v", plan.Own, want)
			}
		})
	}
}

// TestSysctls: only the links of pods that have host ports of IPv4 are opened to
// packets of the loopback interface.
func TestSysctls(t *testing.T) {
	plan, _ := Compute(nil, snapshotOf(attachment("1"),
		attachment("2", model.HostPort{Protocol: model.TCP, Port: 80, PodPort: 8080}),
		attachment("3", model.HostPort{Protocol: model.TCP, HostIP: netip.MustParseAddr("::"), Port: 81, PodPort: 8080})), "self")
	if value, _ := plan.Sysctls.Get("net/ipv4/conf/fl2/route_localnet"); value != "1" || plan.Sysctls.Len() != 1 {
		t.Errorf("%d sysctls, that of fl2 is %q", plan.Sysctls.Len(), value)
	}
}

// TestAnyOrder: whatever came before, a plan equals one made from nothing.
func TestAnyOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	snapshot := snapshotOf()
	var plan *Plan
	for range 300 {
		next := *snapshot
		pod := attachment(fmt.Sprint(1 + random.IntN(4)))
		for range random.IntN(3) {
			pod.HostPorts = append(pod.HostPorts, model.HostPort{Protocol: model.TCP, Port: uint16(80 + random.IntN(3)), PodPort: 8080})
		}
		next.Attachments = next.Attachments.With(pod.AttachmentKey, pod)
		if random.IntN(3) == 0 {
			next.Attachments = next.Attachments.Without(pod.AttachmentKey)
		}
		snapshot = &next
		var problems []model.Problem
		plan, problems = Compute(plan, snapshot, "self")
		fresh, freshProblems := Compute(nil, snapshot, "self")
		if !slices.Equal(ports(plan), ports(fresh)) || !slices.Equal(problems, freshProblems) {
			t.Fatalf("%q, %v; from nothing %q, %v", ports(plan), problems, ports(fresh), freshProblems)
		}
		for change := range model.Diff(plan.Hairpins, fresh.Hairpins) {
			t.Fatalf("hairpins differ: %+v", change)
		}
	}
}

// TestServices: ports of a Service are the node's where it has an endpoint, and lead to
// the one that takes new connections.
func TestServices(t *testing.T) {
	one, two := attachment("1"), attachment("2")
	snapshot := snapshotOf(one, two)
	key := model.ServiceKey{Namespace: "kube-system", Name: "gateway"}
	service := &model.Service{ServiceKey: key, HostPorts: true, Ports: []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 80}}}
	snapshot.Services = snapshot.Services.With(key, service)
	endpoints := func(all ...model.Endpoint) {
		slice := &model.EndpointSlice{
			SliceKey: model.SliceKey(key), Service: key.Name, Family: model.IPv4, Endpoints: all,
			Ports: []model.EndpointPort{{Name: "http", Protocol: model.TCP, Port: 8080}},
		}
		next := *snapshot
		next.Slices = next.Slices.With(slice.SliceKey, slice)
		snapshot = &next
	}
	first := model.Endpoint{Address: one.Addresses[0], Node: "self", Ready: true, Serving: true}
	second := model.Endpoint{Address: two.Addresses[0], Node: "self", Serving: false}
	there := model.Endpoint{Address: netip.MustParseAddr("10.0.1.1"), Node: "other", Ready: true, Serving: true}
	foreign := model.Endpoint{Address: netip.MustParseAddr("192.0.2.9"), Node: "self", Ready: true, Serving: true}
	var plan *Plan
	wants := func(what string, want ...string) {
		t.Helper()
		var problems []model.Problem
		plan, problems = Compute(plan, snapshot, "self")
		fresh, others := Compute(nil, snapshot, "self")
		if !slices.Equal(ports(plan), want) || !slices.Equal(ports(fresh), want) || !slices.Equal(problems, others) {
			t.Errorf("%s: %q, from nothing %q, want %q; %v, %v", what, ports(plan), ports(fresh), want, problems, others)
		}
	}
	wants("nobody")
	endpoints(there, foreign)
	wants("not here, or none of our pods")
	endpoints(there, first)
	wants("one", "TCP 0.0.0.0:80 to 10.0.0.1:8080")
	if _, ok := plan.Sysctls.Get("net/ipv4/conf/fl1/route_localnet"); !ok {
		t.Error("127.0.0.1 leads nowhere")
	}
	endpoints(first, second)
	wants("its successor is not ready", "TCP 0.0.0.0:80 to 10.0.0.1:8080")
	second.Ready, second.Serving = true, true
	first.Ready, first.Terminating = false, true
	endpoints(first, second)
	wants("it ends", "TCP 0.0.0.0:80 to 10.0.0.2:8080")
	endpoints(first)
	wants("it ends, and there is no other", "TCP 0.0.0.0:80 to 10.0.0.1:8080")
	first.Serving = false
	endpoints(first)
	wants("it has ended")
	endpoints(second)
	next := *snapshot
	snapshot = &next
	snapshot.Attachments = snapshot.Attachments.Without(two.AttachmentKey)
	wants("its pod is not connected yet")
	snapshot = &next
	next.Attachments = next.Attachments.With(two.AttachmentKey, two)
	wants("it is", "TCP 0.0.0.0:80 to 10.0.0.2:8080")
	pod := attachment("3", model.HostPort{Protocol: model.TCP, Port: 80, PodPort: 1})
	next.Attachments = next.Attachments.With(pod.AttachmentKey, pod)
	wants("a pod wants it", "TCP 0.0.0.0:80 to 10.0.0.2:8080")
	if _, problems := Compute(plan, snapshot, "self"); len(problems) != 1 || problems[0].Object() != "Pod/default/3" || problems[0].Reason != "HostPortTaken" ||
		!strings.Contains(problems[0].Message, "Service kube-system/gateway") {
		t.Errorf("Problems are %v", problems)
	}
	pod = attachment("3", model.HostPort{Protocol: model.TCP, HostIP: netip.MustParseAddr("192.0.2.1"), Port: 80, PodPort: 1})
	next.Attachments = next.Attachments.With(pod.AttachmentKey, pod)
	wants("a pod wants it at one address", "TCP 0.0.0.0:80 to 10.0.0.2:8080")
	endpoints(there)
	next = *snapshot
	snapshot = &next
	wants("there is no gateway here", "TCP 192.0.2.1:80 to 10.0.0.3:1")
	endpoints(second)
	next = *snapshot
	snapshot = &next
	wants("there is one again", "TCP 0.0.0.0:80 to 10.0.0.2:8080")
	next.Attachments = next.Attachments.Without(pod.AttachmentKey)
	wants("it is gone", "TCP 0.0.0.0:80 to 10.0.0.2:8080")
	other := *service
	other.HostPorts = false
	next.Services = next.Services.With(key, &other)
	wants("a Service like others")
}

// TestKept: connections over UDP stay with an endpoint that takes no new ones, for as
// long as its pod is there.
func TestKept(t *testing.T) {
	one, two := attachment("1"), attachment("2")
	snapshot := snapshotOf(one, two)
	key := model.ServiceKey{Namespace: "kube-system", Name: "gateway"}
	snapshot.Services = snapshot.Services.With(key, &model.Service{ServiceKey: key, HostPorts: true, Ports: []model.ServicePort{
		{Name: "https", Protocol: model.TCP, Port: 443}, {Name: "http3", Protocol: model.UDP, Port: 443},
	}})
	first := model.Endpoint{Address: one.Addresses[0], Node: "self", Ready: true, Serving: true}
	second := model.Endpoint{Address: two.Addresses[0], Node: "self", Ready: true, Serving: true}
	var plan *Plan
	wants := func(what string, all []model.Endpoint, want ...string) {
		t.Helper()
		slice := &model.EndpointSlice{SliceKey: model.SliceKey(key), Service: key.Name, Family: model.IPv4, Endpoints: all, Ports: []model.EndpointPort{
			{Name: "https", Protocol: model.TCP, Port: 8443}, {Name: "http3", Protocol: model.UDP, Port: 8443},
		}}
		next := *snapshot
		next.Slices = next.Slices.With(slice.SliceKey, slice)
		snapshot = &next
		plan, _ = Compute(plan, snapshot, "self")
		got := []string{}
		for kept := range plan.Kept.All() {
			got = append(got, kept.String())
		}
		if !slices.Equal(got, want) && len(got)+len(want) > 0 {
			t.Errorf("%s: %q are kept, want %q", what, got, want)
		}
	}
	wants("one", []model.Endpoint{first})
	wants("it has a successor, which is not led to yet", []model.Endpoint{first, second}, "10.0.0.2:8443 of UDP 0.0.0.0:443")
	first.Ready, first.Terminating = false, true
	wants("it ends", []model.Endpoint{first, second}, "10.0.0.1:8443 of UDP 0.0.0.0:443")
	first.Serving = false
	wants("it is not ready", []model.Endpoint{first, second}, "10.0.0.1:8443 of UDP 0.0.0.0:443")
	wants("it has none", []model.Endpoint{first}, "10.0.0.1:8443 of UDP 0.0.0.0:443")
	wants("it is gone", []model.Endpoint{second})
}

func TestUnknownNode(t *testing.T) {
	if plan, problems := Compute(nil, &model.Snapshot{}, "self"); plan != nil || problems != nil {
		t.Errorf("a plan %v, problems %v", plan, problems)
	}
}
