package cli

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
)

// shop is a cluster of three nodes, whose endpoint of web is on node b. Service
// late wants an address of web.
func shop() *foundServices {
	addr := netip.MustParseAddr
	found := &foundServices{overview: &kube.Overview{}, serving: &kube.Serving{Snapshot: &model.Snapshot{Network: model.DefaultNetwork()}}}
	snapshot := found.serving.Snapshot
	for i, name := range []string{"a", "b", "c"} {
		node := &model.Node{Name: name, Addresses: []netip.Addr{addr("192.0.2." + string(rune('1'+i)))}}
		found.overview.Nodes = append(found.overview.Nodes, kube.NodeOverview{Node: node, Ready: name != "a", Agent: &kube.AgentPod{Name: "agent-" + name, Ready: true}})
		snapshot.Nodes = snapshot.Nodes.With(name, node)
	}
	add := func(object kube.ServiceObject, s *model.Service) {
		if s != nil {
			s.ServiceKey = object.ServiceKey
			snapshot.Services = snapshot.Services.With(s.ServiceKey, s)
		}
		object.Served, object.Created = s, time.Unix(1_700_000_000, 0)
		found.serving.Services = append(found.serving.Services, object)
	}
	key := func(name string) model.ServiceKey { return model.ServiceKey{Namespace: "shop", Name: name} }
	add(kube.ServiceObject{ServiceKey: key("headless"), Type: "ClusterIP", Unserved: "it is headless"}, nil)
	add(kube.ServiceObject{ServiceKey: key("late"), Type: "LoadBalancer", Awaits: true}, &model.Service{
		Created: 9, ClusterIPs: []netip.Addr{addr("10.96.0.2")}, ExternalIPs: []netip.Addr{addr("198.51.100.1")},
		Ports: []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 80}},
	})
	add(kube.ServiceObject{ServiceKey: key("web"), Type: "NodePort"}, &model.Service{
		Created: 1, ClusterIPs: []netip.Addr{addr("10.96.0.1")}, ExternalIPs: []netip.Addr{addr("198.51.100.1")}, Affinity: 60, ExternalLocal: true,
		Ports: []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 80, NodePort: 30080}},
	})
	slice := &model.EndpointSlice{
		SliceKey: model.SliceKey{Namespace: "shop", Name: "web-1"}, Service: "web", Ports: []model.EndpointPort{{Name: "http", Protocol: model.TCP, Port: 8080}},
		Endpoints: []model.Endpoint{
			{Address: addr("10.244.1.1"), Node: "b", Ready: true, Serving: true}, {Address: addr("10.244.2.1"), Node: "c"},
		},
	}
	snapshot.Slices = snapshot.Slices.With(slice.SliceKey, slice)
	found.serving.Pods = map[netip.Addr]string{addr("10.244.1.1"): "shop/web-0"}
	return found
}

func TestServiceList(t *testing.T) {
	found := shop()
	found.overview.Nodes[1].Report = &v1alpha1.NodeNetwork{Status: v1alpha1.NodeNetworkStatus{Problems: []v1alpha1.Problem{
		{Kind: "Service", Namespace: "shop", Name: "web", Reason: "KernelRefused", Message: "the kernel refused it", Remedy: "mend it"},
		{Kind: "Service", Namespace: "else", Name: "web", Reason: "KernelRefused", Message: "not asked about"},
		{Kind: "Node", Name: "b", Message: "of a node"},
	}}}
	list := listServices(found)
	if list.State != stateProblems || len(list.Services) != 2 || len(list.Unserved) != 1 || len(list.Problems) != 2 {
		t.Errorf("it is %+v", list)
	}
	for wide, wants := range map[bool][]string{
		false: {
			"NAME   TYPE           ADDRESSES                PORTS          ENDPOINTS   REMARKS\n",
			"late   LoadBalancer   10.96.0.2,198.51.100.1   80/TCP         0/0         connections are refused: it has no endpoints; it waits for the address of a load balancer\n",
			"web    NodePort       10.96.0.1,198.51.100.1   80:30080/TCP   1/2\n",
			"1 Service has no address to serve, as headless ones", "2 problems", "Service/shop/late", "the kernel refused it", "next: mend it",
		},
		true: {"externalTrafficPolicy: Local, sessionAffinity: ClientIP (60s)", "shop/headless   it is headless"},
	} {
		var text strings.Builder
		if err := printServices(&text, list, "shop", wide); err != nil {
			t.Fatal(err)
		}
		for _, want := range wants {
			if !strings.Contains(text.String(), want) {
				t.Errorf("wide %t: %q is not in\n%s", wide, want, text.String())
			}
		}
	}
	for _, test := range []struct {
		list serviceListOutput
		in   string
		want string
	}{
		{serviceListOutput{State: stateServed}, "shop", "there are no Services in namespace shop (-A looks in all)"},
		{serviceListOutput{State: stateUnknown, Error: "no cluster"}, "", "unknown: no cluster\n  next: "},
		{list, "", "NAMESPACE   NAME"},
	} {
		var text strings.Builder
		if err := printServices(&text, test.list, test.in, false); err != nil || !strings.Contains(text.String(), test.want) {
			t.Errorf("error %v, %q is not in\n%s", err, test.want, text.String())
		}
	}
}

// TestServiceShow: what is said of one Service, if no node can be asked for it.
func TestServiceShow(t *testing.T) {
	found, key := shop(), model.ServiceKey{Namespace: "shop", Name: "web"}
	web, headless := describe(&found.serving.Services[2], bySlices(found.serving.Snapshot)), describe(&found.serving.Services[0], nil)
	show := serviceShowOutput{State: stateServed, Service: &web, Silence: "it does not answer", Chosen: true, Report: found.planned("a", key)}
	show.Others = found.others(show.Report, key)
	if len(show.Others) != 1 || !slices.Equal(show.Others[0].Nodes, []string{"b"}) {
		t.Errorf("nodes that differ: %+v", show.Others)
	}
	differing := *show.Report
	for wanted, show := range map[string]serviceShowOutput{
		`Service shop/web, NodePort
  a client stays with its endpoint for 1m0s after its last new connection (sessionAffinity: ClientIP)
  externalTrafficPolicy: Local
  seen from a (--node shows another one)
  ? it does not answer
  so this is what it should be, by what the API server knows

http 80/TCP, IPv4
  ADDRESS           KIND         PODS, NODE   OTHERS    ENDPOINTS SEE
  10.96.0.1:80      ClusterIP    1 of 1       1 of 1    pods; else the node
  192.0.2.1:30080   NodePort     1 of 1       dropped   the client
  198.51.100.1:80   ExternalIP   1 of 1       dropped   the client
    dropped: it has endpoints that take connections, but none on a, and only such may be used (policy Local)

  ENDPOINT          NODE   POD    USED   IF LOCAL   WHY
  10.244.1.1:8080   b      none   yes    no         it is ready
  10.244.2.1:8080   c      none   no     no         it is not ready

other nodes give other answers
  b
    NodePort 30080/TCP, IPv4: 1 of 1 for pods and the node, 1 of 1 here for others
    ExternalIP 198.51.100.1:80/TCP, IPv4: 1 of 1 for pods and the node, 1 of 1 here for others
`: show,
		"Service shop/headless, ClusterIP\n  Fairlead has nothing to do for it: it is headless\n": {Service: &headless},
		"unknown: why\n  next: what\n": {Error: "why", Next: "what"},
	} {
		var text strings.Builder
		if err := printService(&text, show); err != nil || text.String() != wanted {
			t.Errorf("error %v, got\n%s\nwant\n%s", err, text.String(), wanted)
		}
	}
	differing.Kernel, show.Report, show.Silence = true, &differing, ""
	differing.Ports[0].VIPs[0].Differs, differing.Ports[0].VIPs[0].Connections = "none", 7
	var text strings.Builder
	if err := printService(&text, show); err != nil || !strings.Contains(text.String(), "7      ✗ none\n") || !strings.Contains(text.String(), "the kernel of a is not as planned") {
		t.Errorf("error %v, of a kernel that differs:\n%s", err, text.String())
	}
}

// TestServicePlace: the node that is named, or the first that can be asked.
func TestServicePlace(t *testing.T) {
	found := shop()
	for name, want := range map[string]string{"": "b", "a": "a", "c": "c"} {
		if place, err := found.place(name); err != nil || place.Name != want {
			t.Errorf("%q is %s, error %v", name, place.Name, err)
		}
	}
	if _, err := found.place("d"); err == nil || !strings.Contains(err.Error(), "there is no node d; there are a, b, c") {
		t.Errorf("of an unknown one: %v", err)
	}
	if _, err := (&foundServices{overview: &kube.Overview{}}).place(""); err == nil {
		t.Error("there is a node where there is none")
	}
	if _, err := found.ask(t.Context(), places(found.overview)[0], model.ServiceKey{}); err == nil || !strings.Contains(err.Error(), "kubelet is not ready") {
		t.Errorf("a node that cannot be asked: %v", err)
	}
}

// TestUnknownService: names that somebody may have meant.
func TestUnknownService(t *testing.T) {
	var all []kube.ServiceObject
	for _, name := range []string{"shop/web", "shop/frontend", "shop/db", "kube-system/kube-dns", "other/wep"} {
		namespace, name, _ := strings.Cut(name, "/")
		all = append(all, kube.ServiceObject{ServiceKey: model.ServiceKey{Namespace: namespace, Name: name}})
	}
	for asked, want := range map[string]string{
		"shop/wep": "; did you mean other/wep or shop/web?", "shop/frontned": "; did you mean shop/frontend?", "shop/front": "; did you mean shop/frontend?",
		"default/kube-dns": "; did you mean kube-system/kube-dns?", "shop/zebra": "",
	} {
		namespace, name, _ := strings.Cut(asked, "/")
		err := unknownAmong(model.ServiceKey{Namespace: namespace, Name: name}, all)
		if got := strings.TrimPrefix(err.Error(), "there is no Service "+asked); got != want {
			t.Errorf("%s: %q, want %q", asked, got, want)
		}
	}
}

func TestServiceCommandLine(t *testing.T) {
	t.Setenv("KUBECONFIG", "/nonexistent")
	t.Setenv("HOME", t.TempDir())
	for _, args := range [][]string{{"service", "list"}, {"service", "show", "web"}} {
		out, err := runCommand(t, args...)
		if err != exitServedUnknown || !strings.Contains(out, "--kubeconfig") || !strings.Contains(out, "next: ") {
			t.Errorf("%q: error %v, output %s", args, err, out)
		}
	}
	for _, args := range [][]string{{"service", "show"}, {"service", "list", "-A", "-n", "shop"}, {"service", "lisst"}, {"serving", "web"}} {
		if out, err := runCommand(t, args...); err == nil {
			t.Errorf("%q was taken: %s", args, out)
		}
	}
}
