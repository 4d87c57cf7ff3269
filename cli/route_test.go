package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/trace"
)

// fakePods is an API server's answer about pods.
type fakePods map[model.PodKey]kube.PodPlace

func (f fakePods) FindPod(_ context.Context, namespace, name string) (kube.PodPlace, error) {
	place, ok := f[model.PodKey{Namespace: namespace, Name: name}]
	if !ok {
		return kube.PodPlace{}, apierrors.NewNotFound(corev1.Resource("pods"), name)
	}
	return place, nil
}

func (f fakePods) PodAt(_ context.Context, node string, addr netip.Addr) (model.PodKey, error) {
	for key, place := range f {
		if place.Node == node && len(place.Addresses) > 0 && place.Addresses[0] == addr.String() {
			return key, nil
		}
	}
	return model.PodKey{}, nil
}

// Serving has the Services of this test, in whatever namespace.
func (f fakePods) Serving(_ context.Context, of model.ServiceKey) (*kube.Serving, error) {
	addr := netip.MustParseAddr
	served := map[string]*model.Service{
		"kube-dns": {ClusterIPs: []netip.Addr{addr("10.96.0.10")}, Ports: []model.ServicePort{
			{Name: "dns", Protocol: model.UDP, Port: 53}, {Name: "dns-tcp", Protocol: model.TCP, Port: 53}, {Name: "metrics", Protocol: model.TCP, Port: 9153},
		}},
		"web": {ClusterIPs: []netip.Addr{addr("10.96.0.1"), addr("fd96::1")}, Ports: []model.ServicePort{{Protocol: model.TCP, Port: 80}}},
		"log": {ClusterIPs: []netip.Addr{addr("10.96.0.2")}, Ports: []model.ServicePort{{Protocol: model.UDP, Port: 514}}},
	}
	serving := &kube.Serving{}
	if s, ok := served[of.Name]; ok {
		s.ServiceKey = of
		serving.Services = append(serving.Services, kube.ServiceObject{ServiceKey: of, Served: s})
	}
	if of.Name == "headless" {
		serving.Services = append(serving.Services, kube.ServiceObject{ServiceKey: of, Unserved: "it is headless"})
	}
	return serving, nil
}

func (f fakePods) ServiceAt(_ context.Context, addr netip.Addr) (string, error) {
	if addr == netip.MustParseAddr("10.96.0.10") {
		return "kube-system/kube-dns", nil
	}
	return "", nil
}

func routeSearch() *endSearch {
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	node := func(name, address, address6, pods string) trace.Place {
		return trace.Place{Node: &model.Node{Name: name, Addresses: []netip.Addr{addr(address), addr(address6)}, PodCIDRs: []netip.Prefix{prefix(pods)}}}
	}
	return &endSearch{
		namespace: "default",
		cluster:   []trace.Place{node("n1", "192.0.2.1", "2001:db8::1", "10.244.1.0/24"), node("n2", "192.0.2.2", "2001:db8::2", "10.244.2.0/24")},
		client: fakePods{
			{Namespace: "default", Name: "a"}:    {Node: "n1", Addresses: []string{"10.244.1.5", "fd00::5"}, Phase: "Running"},
			{Namespace: "shop", Name: "b"}:       {Node: "n2", Addresses: []string{"10.244.2.6"}, Phase: "Running"},
			{Namespace: "default", Name: "host"}: {Node: "n2", Addresses: []string{"192.0.2.2", "2001:db8::2"}, Phase: "Running", HostNetwork: true},
			{Namespace: "default", Name: "new"}:  {Phase: "Pending"},
			{Namespace: "default", Name: "mute"}: {Node: "n1", Phase: "Pending"},
			{Namespace: "default", Name: "done"}: {Node: "n1", Addresses: []string{"10.244.1.7"}, Phase: "Succeeded"},
		},
	}
}

func TestRouteEnds(t *testing.T) {
	for _, test := range []struct{ from, to, want string }{
		{"a", "shop/b", "default/a@n1 10.244.1.5 > shop/b@n2 10.244.2.6"},
		{"pod/a", "pod/shop/b", "default/a@n1 10.244.1.5 > shop/b@n2 10.244.2.6"},
		{"a", "n2", "default/a@n1 10.244.1.5 > node/n2@n2 192.0.2.2, default/a@n1 fd00::5 > node/n2@n2 2001:db8::2"},
		{"node/n1", "a", "node/n1@n1 chosen > default/a@n1 10.244.1.5, node/n1@n1 chosen > default/a@n1 fd00::5"},
		{"host", "a", "default/host@n2 chosen > default/a@n1 10.244.1.5, default/host@n2 chosen > default/a@n1 fd00::5"},
		{"a", "10.244.2.6", "default/a@n1 10.244.1.5 > shop/b@n2 10.244.2.6"},
		{"a", "10.244.2.99", "default/a@n1 10.244.1.5 > 10.244.2.99@n2 10.244.2.99"},
		{"a", "2001:db8::2", "default/a@n1 fd00::5 > node/n2@n2 2001:db8::2"},
		{"a", "203.0.113.1", "default/a@n1 10.244.1.5 > 203.0.113.1@ 203.0.113.1"},
		{"shop/b", "2001:db8::2", ""},
		{"a", "svc/web", "default/a@n1 10.244.1.5 > svc/default/web@ 10.96.0.1:80/TCP, default/a@n1 fd00::5 > svc/default/web@ fd96::1:80/TCP"},
		{"a", "svc/shop/web:80", "default/a@n1 10.244.1.5 > svc/shop/web@ 10.96.0.1:80/TCP, default/a@n1 fd00::5 > svc/shop/web@ fd96::1:80/TCP"},
		{"a", "svc/log", "default/a@n1 10.244.1.5 > svc/default/log@ 10.96.0.2:514/UDP"},
		{"a", "svc/kube-dns:53", "default/a@n1 10.244.1.5 > svc/default/kube-dns@ 10.96.0.10:53/TCP"},
		{"a", "svc/kube-dns:dns", "default/a@n1 10.244.1.5 > svc/default/kube-dns@ 10.96.0.10:53/UDP"},
		{"a", "10.96.0.10:9153", "default/a@n1 10.244.1.5 > svc/kube-system/kube-dns@ 10.96.0.10:9153/TCP"},
		{"a", "svc/web:81", "default/a@n1 10.244.1.5 > svc/default/web@ 10.96.0.1:81/TCP, default/a@n1 fd00::5 > svc/default/web@ fd96::1:81/TCP"},
		{"a", "node/n2:30080", "default/a@n1 10.244.1.5 > node/n2@n2 192.0.2.2:30080/TCP, default/a@n1 fd00::5 > node/n2@n2 2001:db8::2:30080/TCP"},
		{"a", "n2:30080", "default/a@n1 10.244.1.5 > node/n2@n2 192.0.2.2:30080/TCP, default/a@n1 fd00::5 > node/n2@n2 2001:db8::2:30080/TCP"},
		{"a", "[2001:db8::2]:30080", "default/a@n1 fd00::5 > node/n2@n2 2001:db8::2:30080/TCP"},
	} {
		trips, err := routeSearch().trips(t.Context(), test.from, test.to)
		var texts []string
		for _, trip := range trips {
			source := trip.From.Address.String()
			if !trip.From.Address.IsValid() {
				source = "chosen"
			}
			text := trip.From.Name + "@" + trip.From.Node + " " + source + " > " + trip.To.Name + "@" + trip.To.Node + " " + trip.To.Address.String()
			if trip.Port != 0 {
				text += fmt.Sprintf(":%d/%s", trip.Port, trip.Protocol)
			}
			texts = append(texts, text)
		}
		if got := strings.Join(texts, ", "); err != nil || got != test.want {
			t.Errorf("%s to %s: error %v, got %s, want %s", test.from, test.to, err, got, test.want)
		}
	}
}

func TestRouteRefusals(t *testing.T) {
	for _, test := range []struct{ from, to, says, next string }{
		{"nobody", "a", "nobody", "kubectl get pods -A"},
		{"a", "shop/nobody", "nobody", "-n"},
		{"new", "a", "on no node yet", "kubectl -n default describe pod new"},
		{"mute", "a", "no address yet (Pending)", "describe pod mute"},
		{"done", "a", "has finished (Succeeded)", "get pods"},
		{"node/n9", "a", "there is no node n9", "kubectl get nodes"},
		{"a", "127.0.0.1", "no address that packets go to", "name a pod"},
		{"a", "fe80::1", "no address that packets go to", "name a pod"},
		{"a", "10.96.0.10", "Service kube-system/kube-dns has several ports: dns 53/UDP, dns-tcp 53/TCP, metrics 9153/TCP", "svc/kube-system/kube-dns:53"},
		{"a", "svc/web:http", `Service default/web has no port "http"; it has 80/TCP`, "name one"},
		{"a", "svc/nobody", "there is no Service default/nobody", "fairlead service list -A"},
		{"a", "svc/shop/headless", "nobody translates for Service shop/headless: it is headless", "kubectl -n shop get endpointslices -l kubernetes.io/service-name=headless"},
		{"svc/web", "a", "a Service: it sends nothing", "name the pod"},
		{"a", "n2:http", `"http" is no port`, "svc/NAME:PORT"},
		{"a", "n2:0", `"0" is no port`, "1 to 65535"},
		{"203.0.113.1", "a", "no pod and no node", "kubectl get pods"},
	} {
		_, err := routeSearch().trips(t.Context(), test.from, test.to)
		refusal := &trace.Unasked{}
		if !errors.As(err, &refusal) || !strings.Contains(err.Error(), test.says) || !strings.Contains(refusal.Next, test.next) {
			t.Errorf("%s to %s: error %v, next %q", test.from, test.to, err, refusal.Next)
		}
	}
}

// TestRoutePorts: a port is said once, and which protocol it is of may be said.
func TestRoutePorts(t *testing.T) {
	search := routeSearch()
	search.port, search.protocol = 53, model.UDP
	trips, err := search.trips(t.Context(), "a", "svc/kube-system/kube-dns")
	if err != nil || len(trips) != 1 || trips[0].Port != 53 || trips[0].Protocol != model.UDP || trips[0].To.Service != "kube-system/kube-dns" {
		t.Errorf("trips %+v, error %v", trips, err)
	}
	if _, err := search.trips(t.Context(), "a", "svc/kube-system/kube-dns:53"); err == nil || !strings.Contains(err.Error(), "both say a port") {
		t.Errorf("two ports: error %v", err)
	}
}

// TestRouteThrough: an endpoint is named by its pod or its address.
func TestRouteThrough(t *testing.T) {
	for backend, want := range map[string]string{
		"shop/b": "10.244.2.6:0 invalid AddrPort", "a": "10.244.1.5:0 [fd00::5]:0",
		"10.244.2.6": "10.244.2.6:0 invalid AddrPort", "[fd00::5]:80": "invalid AddrPort [fd00::5]:80",
	} {
		search := routeSearch()
		trips, err := search.trips(t.Context(), "a", "svc/web")
		if err == nil {
			err = search.through(t.Context(), trips, backend)
		}
		if err != nil || fmt.Sprint(trips[0].Backend, trips[1].Backend) != want {
			t.Errorf("%s: %v, error %v", backend, trips, err)
		}
	}
	search := routeSearch()
	trips, _ := search.trips(t.Context(), "a", "svc/log")
	if err := search.through(t.Context(), trips, "fd00::5"); err == nil || !strings.Contains(err.Error(), "no address of a family") {
		t.Errorf("of another family: error %v", err)
	}
}

// TestRouteTriesOthers: if the first endpoint is not reached, the next ones are
// followed, and it says so.
func TestRouteTriesOthers(t *testing.T) {
	search := routeSearch()
	addr, port := netip.MustParseAddr, netip.MustParseAddrPort
	choices := []trace.Choice{{Address: port("10.244.2.6:80"), Node: "n2"}, {Address: port("10.244.1.7:80"), Node: "n1"}}
	ask := func(_ string, q trace.Question) (*trace.Answer, error) {
		to := choices[0].Address
		if q.Backend.IsValid() {
			to = q.Backend
		}
		served := &trace.Service{Name: "default/web", Kind: "ClusterIP", Do: "forward", Choices: choices}
		link := &trace.Device{Name: "fl1", Kind: "veth", MTU: 1500, Up: true, Carrier: true, Peer: &trace.Device{Name: "eth0", MTU: 1500, Up: true}}
		answer := &trace.Answer{Plan: &trace.Plan{Service: served, Translated: to}, Kernel: trace.Kernel{Tables: true, Service: served, In: link, Out: link}}
		answer.Kernel.Route = &trace.Route{Destination: netip.PrefixFrom(to.Addr(), 32), Device: "fl1"}
		answer.Kernel.Neighbor = &trace.Neighbor{Address: to.Addr(), State: "permanent"}
		if to == choices[0].Address {
			answer.Kernel.Refused, answer.Kernel.Route = trace.NoRoute, nil
		}
		return answer, nil
	}
	trip := trace.Trip{
		From: trace.End{Name: "default/a", Node: "n1", Address: addr("10.244.1.5"), Pod: true},
		To:   trace.End{Name: "svc/default/web", Address: addr("10.96.0.1"), Service: "default/web"}, Protocol: model.TCP, Port: 80,
	}
	output := walkBoth(search.cluster, trip, ask)
	if output.Outcome != trace.Arrives || output.Service.To != choices[1].Address || len(output.Missed) != 1 || !strings.Contains(output.Missed[0].Why, "no way to 10.244.2.0/24") {
		t.Errorf("it %s at %+v, missed %+v", output.Outcome, output.Service, output.Missed)
	}
	trip.Backend = choices[0].Address
	if output := walkBoth(search.cluster, trip, ask); output.Outcome != trace.Stops || output.Missed != nil {
		t.Errorf("though one was asked for, it %s, missed %+v", output.Outcome, output.Missed)
	}
}

func TestRouteCommandLine(t *testing.T) {
	t.Setenv("KUBECONFIG", "/nonexistent")
	t.Setenv("HOME", t.TempDir())
	for _, test := range []struct {
		args []string
		says string
	}{
		{[]string{"--from", "a", "--to", "b"}, "--kubeconfig"},
		{[]string{"--from", "a", "--to", "b", "--port", "1", "--protocol", "icmp"}, "none of TCP, UDP and SCTP"},
	} {
		out, err := runCommand(t, append([]string{"route"}, test.args...)...)
		if err != exitUntold || !strings.Contains(out, test.says) || !strings.Contains(out, "next: ") {
			t.Errorf("%q: error %v, output %s", test.args, err, out)
		}
	}
	for _, args := range [][]string{{"--from", "a"}, {"--from", "a", "--to", "b", "-4", "-6"}, {"--from", "a", "--to", "b", "-o", "xml"}} {
		if out, err := runCommand(t, append([]string{"route"}, args...)...); err == nil {
			t.Errorf("%q was taken: %s", args, out)
		}
	}
}

// TestPlaces: a node that cannot be asked says why.
func TestPlaces(t *testing.T) {
	node := func(ready bool, agent *kube.AgentPod) kube.NodeOverview {
		return kube.NodeOverview{Node: &model.Node{Name: "n"}, Ready: ready, Agent: agent}
	}
	for name, test := range map[string]struct {
		node kube.NodeOverview
		want string
	}{
		"well":           {node(true, &kube.AgentPod{Name: "x", Ready: true, State: "Running"}), ""},
		"not ready":      {node(true, &kube.AgentPod{Name: "x", State: "Running"}), ""}, // it may still answer
		"no kubelet":     {node(false, &kube.AgentPod{Name: "x"}), "kubelet is not ready"},
		"no agent":       {node(true, nil), "no agent pod"},
		"a broken agent": {node(true, &kube.AgentPod{Name: "x", State: "CrashLoopBackOff"}), "x does not run (CrashLoopBackOff)"},
	} {
		got := places(&kube.Overview{Nodes: []kube.NodeOverview{test.node}})[0]
		if test.want == "" && got.Trouble != "" || !strings.Contains(got.Trouble, test.want) || test.want != "" && got.Next == "" {
			t.Errorf("%s: %q, next %q", name, got.Trouble, got.Next)
		}
	}
}
