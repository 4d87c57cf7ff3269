package cli

import (
	"context"
	"errors"
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
	} {
		trips, err := routeSearch().trips(t.Context(), test.from, test.to)
		var texts []string
		for _, trip := range trips {
			source := trip.From.Address.String()
			if !trip.From.Address.IsValid() {
				source = "chosen"
			}
			texts = append(texts, trip.From.Name+"@"+trip.From.Node+" "+source+" > "+trip.To.Name+"@"+trip.To.Node+" "+trip.To.Address.String())
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
		{"a", "10.96.0.10", "the Service kube-system/kube-dns", "kubectl -n kube-system get endpointslices -l kubernetes.io/service-name=kube-dns"},
		{"a", "svc/web", "the Service default/web", "service-name=web"},
		{"a", "svc/shop/web", "the Service shop/web", "-n shop"},
		{"203.0.113.1", "a", "no pod and no node", "kubectl get pods"},
	} {
		_, err := routeSearch().trips(t.Context(), test.from, test.to)
		refusal := &trace.Unasked{}
		if !errors.As(err, &refusal) || !strings.Contains(err.Error(), test.says) || !strings.Contains(refusal.Next, test.next) {
			t.Errorf("%s to %s: error %v, next %q", test.from, test.to, err, refusal.Next)
		}
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
