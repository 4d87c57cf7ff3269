package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/fairlead-net/fairlead/dataplane"
	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

// scrape returns the series of the agent's own metrics, with their values.
func scrape(t testing.TB, m *metrics) map[string]string {
	t.Helper()
	answer := httptest.NewRecorder()
	m.handler().ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	series := map[string]string{}
	for line := range strings.Lines(answer.Body.String()) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "} ")
		if ok {
			name += "}"
		} else {
			name, value, _ = strings.Cut(strings.TrimSpace(line), " ")
		}
		if strings.HasPrefix(name, "fairlead_") || strings.HasPrefix(name, "kubeproxy_") {
			series[name] = value
		}
	}
	return series
}

// watching is a source with watches.
type watching struct{ Source }

func (watching) Watches() []kube.WatchState { return nil }

// counting is a data plane with counters.
type counting struct{ dataplane.Dataplane }

func (counting) Counters() ([]dataplane.Counter, error) {
	return []dataplane.Counter{{Rule: "spoofed", Packets: 3, Bytes: 300}}, nil
}

// TestMetrics: what is there has its series, and what is gone has none.
func TestMetrics(t *testing.T) {
	feed := &model.Feed{}
	s := idle(feed, check{"links", make(chan struct{}), func() string { return "" }})
	s.loop.targets = []*target{{Dataplane: counting{}}}
	counts := linkCounts{receive: {bytes: 10, packets: 1, errors: 2, dropped: 3}, transmit: {bytes: 20, packets: 2}}
	links := []link{{"eth0", counts}, {"eth1", counts}, {"fairlead-vx4", counts}}
	s.traffic.list = func() ([]link, error) { return links, nil }
	s.metrics.registry.MustRegister(s.collectors()...)
	cluster := newCluster("10.244.0.0/24")
	feed.Edit(func(snapshot *model.Snapshot) {
		snapshot.Network = model.DefaultNetwork()
		snapshot.Nodes = snapshot.Nodes.With(testNode, cluster.node).With("far", &model.Node{Name: "far", Addresses: cluster.node.Addresses, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}})
		snapshot.Links = snapshot.Links.With("eth0", &model.Link{Name: "eth0", MTU: 1400, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}})
	})
	snapshot, _ := feed.Latest()
	s.loop.outcome.set(outcome{plan: plan.Compute(nil, snapshot, testNode), shown: []model.Problem{{Reason: "Refused"}}, refused: make([]model.Problem, 4)})
	s.metrics.turned(turn{snapshot: snapshot, took: time.Millisecond})
	s.metrics.turned(turn{snapshot: &model.Snapshot{Revision: snapshot.Revision + 1}, before: snapshot, took: time.Millisecond, err: errors.New("broken")})
	s.metrics.logged(slog.New(slog.DiscardHandler)).With("a", "b").Warn("careful")

	got := scrape(t, s.metrics)
	for series, want := range map[string]string{
		`fairlead_link_errors_total{device="eth0",direction="receive",role="uplink"}`:          "2",
		`fairlead_link_dropped_total{device="fairlead-vx4",direction="receive",role="tunnel"}`: "3",
		`fairlead_link_bytes_total{device="fairlead-vx4",direction="transmit",role="tunnel"}`:  "20",
		`fairlead_peers{way="direct"}`:                              "1",
		`fairlead_peers{way="vxlan"}`:                               "0",
		`fairlead_problems{reason="Refused"}`:                       "1",
		`fairlead_refused_items`:                                    "4",
		`fairlead_ready`:                                            "0",
		`fairlead_check_passed{check="links"}`:                      "0",
		`fairlead_uplink_mtu_bytes{device="eth0"}`:                  "1400",
		`fairlead_addresses_capacity{family="ipv4"}`:                "254",
		`fairlead_addresses_in_use{family="ipv4"}`:                  "0",
		`fairlead_rule_packets_total{rule="spoofed"}`:               "3",
		`fairlead_rule_bytes_total{rule="spoofed"}`:                 "300",
		`fairlead_snapshot_objects{kind="Node"}`:                    "2",
		`fairlead_snapshot_revision`:                                fmt.Sprint(snapshot.Revision),
		`fairlead_applied_revision`:                                 fmt.Sprint(snapshot.Revision),
		`fairlead_apply_duration_seconds_count{result="failed"}`:    "1",
		`fairlead_apply_duration_seconds_count{result="succeeded"}`: "1",
		`fairlead_log_messages_total{level="warn"}`:                 "1",
		`fairlead_status_publications_total{result="succeeded"}`:    "0",
	} {
		if got[series] != want {
			t.Errorf("%s is %q, want %s", series, got[series], want)
		}
	}
	for series := range got {
		if strings.Contains(series, `"eth1"`) {
			t.Errorf("%s is of an interface that is neither uplink nor tunnel", series)
		}
	}

	links = links[:1]
	s.loop.outcome.set(outcome{})
	s.attacher.addresses.SetRanges(nil)
	feed.Edit(func(snapshot *model.Snapshot) {
		snapshot.Links, snapshot.Nodes = snapshot.Links.Without("eth0"), snapshot.Nodes.Without(testNode)
	})
	for series := range scrape(t, s.metrics) {
		for _, gone := range []string{`role=`, `reason=`, `family=`, `_mtu_`} {
			if strings.Contains(series, gone) {
				t.Errorf("%s is of what is gone", series)
			}
		}
	}
}

// TestTrafficOfPods: the sum grows by what goes through links of pods while the
// agent runs, whatever pods come and go.
func TestTrafficOfPods(t *testing.T) {
	traffic := &traffic{}
	pod := func(name string, bytes uint64) link {
		return link{devicePrefix + name, linkCounts{receive: {bytes: bytes, packets: bytes / 10}, transmit: {bytes: 2 * bytes, packets: bytes}}}
	}
	const a, b = "aaaaaaaaaaaaa", "bbbbbbbbbbbbb"
	for step, test := range []struct {
		links []link
		want  uint64
	}{
		{[]link{pod(a, 1000)}, 0}, // of before the agent began
		{[]link{pod(a, 1100)}, 100},
		{[]link{pod(a, 1100), pod(b, 50)}, 150},
		{[]link{pod(b, 60)}, 160},
		{nil, 160},
		{[]link{pod(b, 20)}, 180},
		{[]link{pod(b, 10)}, 190}, // another one of the same name
	} {
		sums := traffic.sum(append(test.links, link{name: "eth0", counts: linkCounts{receive: {bytes: 1 << 40}}}))
		if sums[transmit].bytes != test.want || sums[receive].bytes != 2*test.want {
			t.Errorf("step %d: pods have sent %d and got %d, want %d and twice that", step, sums[transmit].bytes, sums[receive].bytes, test.want)
		}
	}
}

// TestStateOfAgent: an agent that runs tells of itself and of its pods, as
// metrics and in detail.
func TestStateOfAgent(t *testing.T) {
	needNode(t)
	cluster := newCluster("10.244.0.0/24", "fd00:10:244::/64")
	cluster.peers = []*model.Node{
		peerAt("near", "10.244.1.0/24", "fd00:10:244:1::/64", "192.0.2.2", "2001:db8::2"),
		peerAt("far", "10.244.2.0/24", "fd00:10:244:2::/64", "198.51.100.2"),
	}
	a := start(t, cluster, t.TempDir())
	list := a.list(t, "1.1.0")
	one := newPod(t, "one")
	_, err := a.cni.AddNetworkList(t.Context(), list, one.conf)
	must(t, err)
	t.Cleanup(func() { must(t, a.cni.DelNetworkList(context.Background(), list, one.conf)) })

	get := func(path string) string {
		answer, err := http.Get("http://" + testHealthAddress + path)
		must(t, err)
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		must(t, err)
		return string(text)
	}
	text := get("/metrics")
	for _, series := range []string{
		`fairlead_cni_duration_seconds_count{command="ADD",result="met"} 1`,
		`fairlead_addresses_in_use{family="ipv4"} `, `fairlead_addresses_in_use{family="ipv6"} `,
		`fairlead_peers{way="direct"} 1`, `fairlead_peers{way="vxlan"} 1`,
		`fairlead_link_bytes_total{device="uplink",direction="transmit",role="uplink"} `,
		`fairlead_link_bytes_total{device="fairlead-vx4",direction="transmit",role="tunnel"} `,
		`fairlead_pods_packets_total{direction="receive"} `, `fairlead_conntrack_entries_limit `,
		`fairlead_build_info{go_version="`, `fairlead_snapshot_objects{kind="Attachment"} `,
	} {
		if !strings.Contains(text, "\n"+series) {
			t.Errorf("%s is not in the metrics", series)
		}
	}
	if strings.Contains(text, "promhttp_metric_handler_errors_total{cause=\"gathering\"} 1") {
		t.Error("some metrics cannot be read")
	}
	var details Details
	must(t, json.Unmarshal([]byte(get("/debug/status")), &details))
	want := []PeerDetails{
		{"far", cluster.peers[1].Addresses, "vxlan", "198.51.100.2 is not on the network of uplink (192.0.2.0/24); vxlan over IPv4; the peer has no IPv6 address; vxlan over IPv4"},
		{"near", cluster.peers[0].Addresses, "direct", "192.0.2.2 is on the network of uplink; 2001:db8::2 is on the network of uplink"},
	}
	if !reflect.DeepEqual(details.Peers, want) {
		t.Errorf("peers are %+v", details.Peers)
	}
	if !details.Ready || details.Uplink != "uplink" || details.PodMTU != 1400 || len(details.Tunnels) != 1 || len(details.Addresses) != 2 || details.Addresses[0].Capacity != 254 {
		t.Errorf("details are %+v", details)
	}
	if len(details.Pods) != 1 || details.Pods[0].Name != "one" || len(details.Pods[0].Addresses) != 2 {
		t.Errorf("pods are %+v", details.Pods)
	}
}

func TestConntrackSums(t *testing.T) {
	sums := conntrackSums("entries  clashres found insert_failed drop\n00000010  00000000 00000000 0000000a 00000001\n00000010  00000000 00000000 00000006 00000000\n")
	if sums["insert_failed"] != 16 || sums["drop"] != 1 {
		t.Errorf("got %v", sums)
	}
	if sums := conntrackSums(""); len(sums) != 0 {
		t.Errorf("of nothing: %v", sums)
	}
}

// TestMetricsAreDocumented: docs/observe.md has all metrics, with their labels,
// and no others. Dashboards and rules are compared with it.
func TestMetricsAreDocumented(t *testing.T) {
	s := idle(&model.Feed{})
	s.source = watching{newCluster()}
	s.metrics.registry.MustRegister(s.collectors()...)
	s.metrics.registry.MustRegister(&rounds{})
	have := map[string]string{}
	descs := make(chan *prometheus.Desc, 1000)
	s.metrics.registry.Describe(descs)
	close(descs)
	pattern := regexp.MustCompile(`fqName: "((?:fairlead|kubeproxy)_\w+)".*variableLabels: \{([^}]*)\}`)
	for desc := range descs {
		if match := pattern.FindStringSubmatch(desc.String()); match != nil {
			have[match[1]] = match[2]
		}
	}
	documented, types := map[string]string{}, map[string]string{}
	text, err := os.ReadFile("../docs/observe.md")
	must(t, err)
	row := regexp.MustCompile("(?m)^\\| `((?:fairlead|kubeproxy)_\\w+)` \\| (\\w+) \\| ([^|]*) \\| (agent|both) \\|")
	for _, match := range row.FindAllStringSubmatch(string(text), -1) {
		types[match[1]] = match[2]
		documented[match[1]] = strings.NewReplacer("`", "", " ", "", "–", "").Replace(match[3])
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if labels, ok := documented[name]; !ok || labels != have[name] {
			t.Errorf("%s{%s} is in the agent, and docs/observe.md has %q (%t)", name, have[name], labels, ok)
		}
	}
	for name := range documented {
		if _, ok := have[name]; !ok {
			t.Errorf("%s is in docs/observe.md, and not in the agent", name)
		}
	}
	families, err := s.metrics.registry.Gather()
	must(t, err)
	for _, family := range families { // those that have a value by now
		if wanted, ok := types[family.GetName()]; ok && wanted != strings.ToLower(family.GetType().String()) {
			t.Errorf("%s is a %s, and in docs/observe.md a %s", family.GetName(), strings.ToLower(family.GetType().String()), wanted)
		}
	}
}

// TestMetricsLint: names, units and types are as Prometheus recommends.
func TestMetricsLint(t *testing.T) {
	s := idle(&model.Feed{})
	s.source = watching{newCluster()}
	s.metrics.registry.MustRegister(s.collectors()...)
	families, err := s.metrics.registry.Gather()
	must(t, err)
	if len(families) < 20 {
		t.Errorf("of %d metrics", len(families))
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	must(t, err)
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
