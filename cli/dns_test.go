package cli

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/asker"
	"github.com/fairlead-net/fairlead/observe/trace"
)

// TestDNSAsker: who looks for a name is found, and who does not ask the cluster's
// servers, or cannot be told from others, is refused with what to do.
func TestDNSAsker(t *testing.T) {
	on := func(node string, host bool, policy string) kube.PodPlace {
		return kube.PodPlace{Node: node, Addresses: []string{"10.244.1.5"}, HostNetwork: host, Phase: "Running", Resolver: kube.PodResolver{Policy: policy, NDots: -1}}
	}
	pods := fakePods{
		{Namespace: "shop", Name: "web-0"}: on("node1", false, "ClusterFirst"), {Namespace: "shop", Name: "host"}: on("node1", true, "ClusterFirstWithHostNet"),
		{Namespace: "shop", Name: "default"}: on("node1", false, "Default"), {Namespace: "shop", Name: "silent"}: on("node2", false, "ClusterFirst"),
		{Namespace: "shop", Name: "waits"}: {Phase: "Pending"},
	}
	cluster := []trace.Place{{Node: &model.Node{Name: "node1"}, Agent: "agent-1"}, {Node: &model.Node{Name: "node2"}, Trouble: "node2 cannot be asked", Next: "look at it"}}
	for from, want := range map[string]string{ // empty: found
		"shop/web-0": "", "web-0": "", "pod/web-0": "",
		"shop/host": "is in the network of node node1", "shop/default": "does not ask the cluster's DNS", "shop/silent": "node2 cannot be asked",
		"shop/none": "not found", "shop/waits": "on no node yet",
	} {
		found, err := (&dnsTraceOptions{from: from, namespace: "shop"}).asker(t.Context(), pods, cluster)
		switch unasked := (*trace.Unasked)(nil); {
		case want == "" && (err != nil || found.agent != "agent-1" || found.Address != netip.MustParseAddr("10.244.1.5") || found.Name != "shop/web-0"):
			t.Errorf("%s: %+v, %v", from, found, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || !errors.As(err, &unasked) || unasked.Next == ""):
			t.Errorf("%s: %v, want %s", from, err, want)
		}
	}
}

// TestAskNaming: what a server says is passed on; that there is none, or that it
// does not understand, is told apart.
func TestAskNaming(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/debug/clients":
			_, _ = w.Write([]byte("[]\n"))
		case "/debug/trace":
			http.Error(w, "name: it is empty", http.StatusBadRequest)
		default:
			http.NotFound(w, r)
		}
	}))
	address := server.Listener.Addr().String()
	var said bytes.Buffer
	if err := askNaming(t.Context(), &said, address, "clients"); err != nil || said.String() != "[]\n" {
		t.Errorf("clients: %q, %v", said.String(), err)
	}
	if bad := (*refusedQuestion)(nil); !errors.As(askNaming(t.Context(), &said, address, "trace?name="), &bad) || bad.text != "name: it is empty" {
		t.Errorf("a bad question: %v", bad)
	}
	if err := askNaming(t.Context(), &said, address, "top"); err == nil || !strings.Contains(err.Error(), "another version") {
		t.Errorf("an older server: %v", err)
	}
	server.Close()
	if none := (*noServer)(nil); !errors.As(askNaming(t.Context(), &said, address, "clients"), &none) || strings.Contains(none.Error(), "debug/") {
		t.Errorf("no server: %v", none)
	}
}

// TestDNSTopText: who asks most comes first, with shares of what was asked.
func TestDNSTopText(t *testing.T) {
	output := dnsTopOutput{Report: &asker.Report{
		Seconds: 2, Names: []asker.Name{{Name: "a.example.", Type: "A", Queries: 1000}, {Name: "b.example.", Type: "A", Queries: 5}},
		Askers: []asker.Asker{
			{Node: "node2", Namespace: "shop", Pod: "loud", Queries: 2000, Outside: 1000, Nxdomain: 660, Bytes: 4000, Total: 5000}, {Node: "node1", Queries: 1, Total: 1},
		},
	}}
	var text bytes.Buffer
	if err := (&dnsTopOptions{most: 1}).print(&text, output, false); err != nil {
		t.Fatal(err)
	}
	const want = `1000 queries a second, over 2.0 s

POD         NODE    QUERIES/S   NXDOMAIN   OUTSIDE   REFUSED/S   BYTES/S   TOTAL
shop/loud   node2   1000        33%        50%       0           2000      5000
… and 1 more: --most

NAME         TYPE   QUERIES/S
a.example.   A      500

`
	if text.String() != want {
		t.Errorf("got\n%s\nwant\n%s", text.String(), want)
	}
}
