package agent

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/dataplane"
	planenetlink "github.com/fairlead-net/fairlead/dataplane/netlink"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/probe"
)

// startProbing runs an agent with probes until stop, or the test's end.
func startProbing(t *testing.T, cluster *testCluster, run string) (stop func()) {
	t.Helper()
	routes, err := planenetlink.New()
	must(t, err)
	config := Config{
		Node: testNode, Version: "test", Source: cluster, Publisher: cluster, Probes: true,
		Dataplanes: []dataplane.Dataplane{routes},
		RunDir:     run, StateDir: filepath.Join(run, "state"), CNIBinDir: t.TempDir(), CNIConfDir: t.TempDir(),
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	if testing.Verbose() {
		config.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, config) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the agent ended: %v", err)
		}
		routes.Close()
	}
	t.Cleanup(stop)
	return stop
}

// askProbes is what fairlead probe does.
func askProbes(t *testing.T, run string, peers string) (report probe.Report) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return net.Dial("unix", filepath.Join(run, probeSocket))
		},
	}}
	response, err := client.Get("http://agent/probe?" + peers)
	if err != nil {
		return report
	}
	defer response.Body.Close()
	must(t, json.NewDecoder(response.Body).Decode(&report))
	return report
}

// TestEndpoint: the endpoint is reached as a pod is, and reaches the node; it
// comes back when somebody removes it, and with the next agent; it is no pod in
// what people see, and the runtime's GC does not take it for one that is gone.
func TestEndpoint(t *testing.T) {
	needNode(t)
	run := t.TempDir()
	cluster := newCluster("10.244.1.0/24", "fd00:0:0:1::/64")
	stop := startProbing(t, cluster, run)
	works := func() bool {
		report := askProbes(t, run, "peer="+testNode)
		kinds := 0
		for _, r := range report.Results {
			if !r.OK {
				return false
			}
			kinds++
		}
		return kinds == 2*2*3 // paths, families, kinds
	}
	eventually(t, "the endpoint to answer and ask", works)
	eventually(t, "the status", func() bool {
		cluster.mu.Lock()
		defer cluster.mu.Unlock()
		return len(cluster.published) > 0 && cluster.published[len(cluster.published)-1].Ready
	})
	cluster.mu.Lock()
	if attached := cluster.published[len(cluster.published)-1].Attached; attached != 0 {
		t.Errorf("%d pods are attached", attached)
	}
	cluster.mu.Unlock()
	index := linkOf(t, deviceName(endpointKey)).Attrs().Index
	must(t, netlink.LinkDel(linkOf(t, deviceName(endpointKey))))
	eventually(t, "it to come back", func() bool {
		link, err := netlink.LinkByName(deviceName(endpointKey))
		return err == nil && link.Attrs().Index != index && works()
	})
	stop()
	if left := podDevices(t); left != nil {
		t.Errorf("%v are left", left)
	}
	startProbing(t, newCluster("10.244.1.0/24"), run)
	eventually(t, "the endpoint of the next agent", func() bool {
		report := askProbes(t, run, "peer="+testNode)
		return len(report.Endpoint) == 1 && len(report.Results) == 6
	})
	if report := askProbes(t, run, "peer=nobody"); len(report.Unknown) != 1 {
		t.Errorf("of a node that is not known: %+v", report)
	}
}

// TestEndpointOfTheKilled: the pair that an agent left which had no time to take
// it away is replaced.
func TestEndpointOfTheKilled(t *testing.T) {
	needNode(t)
	netns, err := newNetns()
	must(t, err)
	defer netns.Close()
	_, mac := hardware(endpointKey)
	v := &veth{netns: netns, mtu: 1400, Attachment: &model.Attachment{
		AttachmentKey: endpointKey, Device: deviceName(endpointKey), MAC: mac, Addresses: addrs("10.244.1.254"),
	}}
	must(t, v.create())
	run := t.TempDir()
	startProbing(t, newCluster("10.244.1.0/24"), run)
	eventually(t, "the endpoint", func() bool {
		report := askProbes(t, run, "peer="+testNode)
		for _, r := range report.Results {
			if !r.OK {
				return false
			}
		}
		return len(report.Results) == 6
	})
}

// TestEndpointGivesWay: a pod that has its address, of another network perhaps,
// is not cut off.
func TestEndpointGivesWay(t *testing.T) {
	needNode(t)
	run := t.TempDir()
	cluster := newCluster("10.244.1.0/24")
	cluster.pods = []*model.Pod{{PodKey: model.PodKey{Namespace: "default", Name: "old"}, Node: testNode, Addresses: addrs("10.244.1.254")}}
	startProbing(t, cluster, run)
	eventually(t, "it to say why", func() bool {
		return askProbes(t, run, "peer="+testNode).NoEndpoint == "pod default/old has its address until it ends"
	})
	if devices := podDevices(t); devices != nil {
		t.Error(devices)
	}
}

// TestAdmits: nodes and pods of the cluster are answered, others are not.
func TestAdmits(t *testing.T) {
	p := &prober{feed: &model.Feed{}}
	p.feed.Edit(func(s *model.Snapshot) {
		s.Nodes = s.Nodes.With("a", &model.Node{Name: "a", Addresses: addrs("192.0.2.1", "2001:db8::1"),
			PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}})
	})
	for addr, want := range map[string]bool{
		"192.0.2.1": true, "2001:db8::1": true, "10.244.1.77": true,
		"192.0.2.2": false, "2001:db8::2": false, "10.244.2.1": false, "127.0.0.1": false,
	} {
		if p.admits(netip.MustParseAddr(addr)) != want {
			t.Errorf("%s is answered: %v", addr, !want)
		}
	}
	p.feed.Edit(func(s *model.Snapshot) { s.Nodes = s.Nodes.Without("a") })
	if p.admits(netip.MustParseAddr("192.0.2.1")) {
		t.Error("a node that is gone is answered")
	}
}

// TestSeriesOfGonePeers: the series of a peer come with it and go with it, and
// a path that is broken is a problem that names both nodes.
func TestSeriesOfGonePeers(t *testing.T) {
	needNode(t)
	feed, notices := &model.Feed{}, &notices{}
	feed.Edit(func(s *model.Snapshot) {
		for _, name := range []string{testNode, "b", "c"} {
			s.Nodes = s.Nodes.With(name, &model.Node{Name: name, Addresses: addrs("192.0.2.1")})
		}
	})
	broken := false
	r := &rounds{
		node: testNode, feed: feed, notices: notices,
		way:    func(string) probe.Way { return probe.Way{Name: "vxlan", Protocol: "UDP", Port: 4789} },
		legacy: func() []string { return []string{"iptables-legacy -S FORWARD"} },
		tasks: func(_ *model.Snapshot, peer *model.Node) []probe.Task {
			pod := "127.0.0.3"
			if broken && peer.Name == "b" {
				pod = "192.0.2.77" // nobody's
			}
			return []probe.Task{
				{Peer: peer.Name, Path: probe.HostToHost, To: netip.MustParseAddr("127.0.0.2"), MTU: 1500},
				{Peer: peer.Name, Path: probe.PodToPod, To: netip.MustParseAddr(pod)},
			}
		},
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(r)
	series := func() string {
		families, err := registry.Gather()
		must(t, err)
		var text strings.Builder
		for _, family := range families {
			text.WriteString(family.String() + "\n")
		}
		return text.String()
	}
	r.round(t.Context())
	for _, want := range []string{`"b"`, `"c"`, "host-to-host", "fairlead_probe_rtt_seconds", "fairlead_probe_mtu_bytes", "value:1500"} {
		if !strings.Contains(series(), want) {
			t.Errorf("no %s in\n%s", want, series())
		}
	}
	broken = true
	for range 4 {
		r.round(t.Context())
	}
	if problems := notices.Problems(); len(problems) > 0 {
		t.Errorf("no agent runs on b: %v", problems)
	}
	echo := &probe.Echo{Admit: func(netip.Addr) bool { return true }, Endpoint: func() bool { return true }}
	listening := make(chan struct{})
	go func() {
		if err := echo.Serve(t.Context(), netip.MustParseAddr("127.0.0.2"), nil, func() { close(listening) }); err != nil {
			t.Error(err)
		}
	}()
	<-listening
	r.round(t.Context())
	problems := notices.Problems()
	if len(problems) != 1 || problems[0].Field != "path to b" || !strings.Contains(problems[0].Message, "IPv4 packets from pods to pods of node b are lost") ||
		!strings.Contains(problems[0].Remedy, "UDP port 4789; fairlead check --nodes node1,b says more; iptables-legacy may drop them on this node: iptables-legacy -S FORWARD") {
		t.Errorf("%v", problems)
	}
	feed.Edit(func(s *model.Snapshot) { s.Nodes = s.Nodes.Without("b") })
	r.round(t.Context())
	if text := series(); strings.Contains(text, `"b"`) || !strings.Contains(text, `"c"`) {
		t.Errorf("b is gone:\n%s", text)
	}
	if problems := notices.Problems(); len(problems) > 0 {
		t.Errorf("b is gone: %v", problems)
	}
}
