package daemon

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/fairlead-net/fairlead/model"
	server "github.com/fairlead-net/fairlead/servers/dns"
	"github.com/fairlead-net/fairlead/servers/dns/feed"
	"github.com/fairlead-net/fairlead/servers/dns/forward"
)

// assemble makes a daemon that does not run, and knows nothing.
func (n *node) assemble() *daemon {
	d := &daemon{queries: server.NewQueryLog(), confirm: func() {}, fresh: make(chan struct{}, 1), Config: Config{Log: slog.New(slog.DiscardHandler), ResolvConf: filepath.Join(n.dir, "resolv.conf")}}
	d.served.Store(&server.Served{})
	d.receiver = &feed.Receiver{Apply: d.apply}
	d.forward = forward.New(d.outside(feed.State{Snapshot: &model.Snapshot{}}), d.receiver.Tell, d.Log)
	d.server = server.New(d.forward, d.receiver, d.Log)
	return d
}

// tell makes it know what the feed has.
func (n *node) tell(d *daemon) feed.State {
	snapshot, _ := n.feed.Latest()
	state := feed.State{Snapshot: snapshot, Serving: feed.Serving{Node: "node1", Listen: []netip.AddrPort{netip.MustParseAddrPort(n.at)}}, Confirmed: true}
	d.apply(state)
	return state
}

// connect makes an address that of a pod of this node.
func (n *node) connect(pod model.PodKey, addr string) {
	key := model.AttachmentKey{ContainerID: pod.String(), Interface: "eth0"}
	n.feed.Edit(func(s *model.Snapshot) {
		s.Attachments = s.Attachments.With(key, &model.Attachment{AttachmentKey: key, Pod: pod, Addresses: []netip.Addr{netip.MustParseAddr(addr)}})
	})
}

// get asks at the health address, as somebody on this machine.
func get(d *daemon, path string) (int, string) {
	request := httptest.NewRequest(http.MethodGet, path, nil)
	request.RemoteAddr = "127.0.0.1:1"
	answer := httptest.NewRecorder()
	d.watch().Mux().ServeHTTP(answer, request)
	text, _ := io.ReadAll(answer.Body)
	return answer.Code, string(text)
}

// TestWatch: whether it is ready is told honestly, who asks is named, and metrics
// have CoreDNS's names.
func TestWatch(t *testing.T) {
	n := begin(t)
	n.put("web", "10.96.0.20")
	n.connect(model.PodKey{Namespace: "default", Name: "asks"}, "127.0.0.1")
	d := n.assemble()
	get := func(path string) (int, string) { return get(d, path) }
	if code, text := get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(text, "waiting  names of the cluster are known") {
		t.Errorf("before anything is known: %d %s", code, text)
	}

	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = d.server.Run(t.Context())
	}()
	t.Cleanup(func() { <-ended })
	n.know()
	state := n.tell(d)
	n.eventually("web.default.svc.cluster.local.", dns.TypeA, "NOERROR 10.96.0.20")
	n.ask("tcp", "none.default.svc.cluster.local.", dns.TypeAAAA)
	if code, text := get("/readyz?verbose"); code != http.StatusOK || !strings.Contains(text, "note     there is no agent") {
		t.Errorf("ready: %d %s", code, text)
	}
	if _, text := get("/debug/clients"); !strings.Contains(text, `{"namespace":"default","pod":"asks","addresses":["127.0.0.1"],"queries":2,"outside":0,"nxdomain":1,"refused":0,"bytes":`) {
		t.Errorf("clients: %s", text)
	}
	_, text := get("/metrics")
	// How long the last one took is known once its answer has left.
	const both = `coredns_dns_request_duration_seconds_count{zone="cluster.local."} 2`
	for deadline := time.Now().Add(5 * time.Second); !strings.Contains(text, both) && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		_, text = get("/metrics")
	}
	for _, want := range []string{
		`coredns_dns_requests_total{family="1",proto="udp",type="A",zone="cluster.local."} 1`,
		`coredns_dns_requests_total{family="1",proto="tcp",type="AAAA",zone="cluster.local."} 1`,
		`coredns_dns_responses_total{rcode="NXDOMAIN",zone="cluster.local."} 1`,
		both,
		`fairlead_dns_client_connections_total{namespace="default",pod="asks"} 1`,
		`fairlead_dns_client_queries_total{namespace="default",pod="asks"} 2`,
		`fairlead_dns_serving{address="` + n.at + `"} 1`,
		`coredns_cache_entries{type="success"} 0`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}

	// In a period, what is new counts.
	asking := make(chan struct{})
	go func() {
		defer close(asking)
		time.Sleep(20 * time.Millisecond) // so that it is within the period
		n.ask("udp", "web.default.svc.cluster.local.", dns.TypeA)
	}()
	_, top := get("/debug/top?over=500ms")
	if !strings.Contains(top, `{"namespace":"default","pod":"asks","addresses":["127.0.0.1"],"queries":1,"outside":0,"nxdomain":0,"refused":0,"bytes":`) || !strings.Contains(top, `"total":3}`) || !strings.Contains(top, `"names":[{"name":"web.default.svc.cluster.local.","type":"A","queries":1}]`) {
		t.Errorf("top: %s", top)
	}
	<-asking
	if code, text := get("/debug/top?over=1h"); code != http.StatusBadRequest {
		t.Errorf("an hour: %d %s", code, text)
	}

	// An old state is told of, and denies nothing.
	state.Confirmed, state.Boot = false, "another"
	d.boot = "this"
	d.apply(state)
	if code, text := get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(text, "waiting  they are of this boot") {
		t.Errorf("with what is of another boot: %d %s", code, text)
	}
	n.eventually("none.default.svc.cluster.local.", dns.TypeA, "SERVFAIL")
}
