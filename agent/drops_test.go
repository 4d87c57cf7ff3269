package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/dataplane"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/drop"
	"github.com/fairlead-net/fairlead/observe/nflog"
	"github.com/fairlead-net/fairlead/plan/policy"
)

func dropped(pod, peer string) *drop.Record {
	r := &drop.Record{
		Direction: "ingress", Protocol: "TCP", Policy: &drop.Policy{Kind: "NetworkPolicy", Namespace: "web", Name: "deny"},
		Source:      drop.End{Address: netip.MustParseAddr("192.0.2.7")},
		Destination: drop.End{Address: netip.MustParseAddr("10.0.0.1"), Port: 80, Namespace: "web", Pod: pod, UID: pod},
	}
	if peer != "" {
		r.Source.Namespace, r.Source.Pod = "web", peer
	}
	return r
}

// TestDropEvents: of a pod, a peer and a rule there is one Event in ten minutes,
// and of all together there are few.
func TestDropEvents(t *testing.T) {
	var told told
	now := time.Unix(1_000_000, 0)
	first, ok := told.event(dropped("a", "client"), now)
	if !ok || first.Object() != "Pod/web/a" || first.Message != "A packet from web/client to web/a, 80/TCP, was dropped: default deny by NetworkPolicy web/deny, direction ingress" {
		t.Fatalf("%t %+v", ok, first)
	}
	for name, record := range map[string]*drop.Record{"the same": dropped("a", "client"), "of no pod": {Policy: &drop.Policy{}}} {
		if event, ok := told.event(record, now.Add(toldFor-1)); ok {
			t.Errorf("%s: %+v", name, event)
		}
	}
	if _, ok := told.event(dropped("a", ""), now); !ok {
		t.Error("nothing is said of another peer")
	}
	scan := dropped("a", "")
	scan.Source.Address = netip.MustParseAddr("192.0.2.8")
	if event, ok := told.event(scan, now); ok {
		t.Errorf("of one who scans: %+v", event)
	}
	events := 2
	for i := range 1000 {
		if _, ok := told.event(dropped(fmt.Sprint("pod", i), "client"), now); ok {
			events++
		}
	}
	if events != toldMost || len(told.events) != toldMost {
		t.Errorf("%d Events, and %d are remembered", events, len(told.events))
	}
	again, ok := told.event(dropped("a", "client"), now.Add(toldFor))
	if !ok || again.Again == first.Again {
		t.Errorf("after a while: %t %+v; the API server would take it for the first", ok, again)
	}
}

// TestTally: counters that begin anew count on, what was not logged is known,
// there are so many series and no more, and none of a policy that has gone.
func TestTally(t *testing.T) {
	var counted tally
	logged := uint64(0)
	count := func(denials ...dataplane.Denial) {
		counted.add(denials, func() uint64 { return logged })
	}
	of := func(name string, rule int, packets uint64) dataplane.Denial {
		return dataplane.Denial{Rule: policy.Rule{Policy: model.PolicyKey{Name: name}, Rule: rule}, Packets: packets}
	}
	logged = 5
	count(of("a", 1, 3), of("a", 2, 4), of("b", 1, 0))
	if got := counted.policies[deniedBy{"ingress", "a"}]; got != 7 || len(counted.policies) != 1 || counted.suppressed() != 2 {
		t.Errorf("%v, %d suppressed", counted.policies, counted.suppressed())
	}
	count(of("a", 1, 5), of("b", 1, 1)) // the second rule has gone
	count(of("a", 1, 1), of("a", 2, 1)) // it comes again, and the first began anew
	if got := counted.policies[deniedBy{"ingress", "a"}]; got != 11 || counted.packets != 12 || counted.suppressed() != 7 {
		t.Errorf("%v, %d suppressed", counted.policies, counted.suppressed())
	}
	logged = 100
	var many []dataplane.Denial
	for i := range 2 * mostPolicies {
		many = append(many, of(fmt.Sprint(i), 1, 1))
	}
	count(many...) // and the others have gone
	if len(counted.policies) != mostPolicies || counted.others["ingress"] != mostPolicies || counted.suppressed() != 112 {
		t.Errorf("%d series, %v of others, %d suppressed", len(counted.policies), counted.others, counted.suppressed())
	}
	if _, there := counted.policies[deniedBy{"ingress", "a"}]; there {
		t.Error("a policy that has gone has a series")
	}

	// One of those with series goes: one of the others gets its place, once it denies.
	last := len(many) - 1
	many[last].Packets += 4
	count(many[1:]...)
	if got := counted.policies[deniedBy{"ingress", fmt.Sprint(last)}]; got != 4 || len(counted.policies) != mostPolicies {
		t.Errorf("%d of a policy that takes a place, %d series", got, len(counted.policies))
	}
	count() // no policy is left
	if len(counted.policies) != 0 || counted.others["ingress"] != mostPolicies || counted.packets != 216 {
		t.Errorf("without policies: %v, %v of others, %d in all", counted.policies, counted.others, counted.packets)
	}
	count(of("a", 1, 2)) // it comes back, and begins at zero
	if got := counted.policies[deniedBy{"ingress", "a"}]; got != 2 {
		t.Errorf("%d of a policy that is back", got)
	}
}

// denying is a data plane that denies all by one rule.
type denying struct {
	dataplane.Dataplane
	rule policy.Rule
}

func (denying) Denials() ([]dataplane.Denial, error)       { return nil, nil }
func (d denying) DeniedBy(mark uint32) (policy.Rule, bool) { return d.rule, mark == 7 }

// TestDropTaken: what was logged is remembered and written, also if its rule is
// not known any more; what cannot be written is counted, and the rest goes on.
func TestDropTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "drops.json")
	rule := policy.Rule{Tier: model.NamespaceTier, Policy: model.PolicyKey{Namespace: "web", Name: "out"}, Rule: 1}
	c := &Config{Node: testNode, DropLog: path, Cluster: "prod", Dataplanes: []dataplane.Dataplane{denying{rule: rule}}, Log: slog.New(slog.DiscardHandler)}
	d := newDrops(c, newLoop(&Config{}, &model.Feed{}))
	packet := nflog.Packet{Mark: 7, Prefix: "fairlead egress", Payload: append(make([]byte, 20), 0x10, 0, 0, 80)}
	packet.Payload[0], packet.Payload[9] = 0x45, byte(model.UDP)
	d.take(packet)
	packet.Mark = 8
	d.take(packet)
	d.take(nflog.Packet{Mark: 7, Payload: []byte("no packet")})
	packet.Mark, packet.Prefix = 7, "fairlead unfound"
	d.take(packet)
	report := d.report(time.Time{})
	if len(report.Records) != 3 || report.Counts.Read != 4 {
		t.Fatalf("%+v", report)
	}
	if why := report.Records[0].Why(); why != "denied by NetworkPolicy web/out, spec.egress[1], direction egress" {
		t.Error(why)
	}
	if why := report.Records[1].Why(); why != "denied by a policy that has gone, direction egress" {
		t.Error(why)
	}
	if last := report.Records[2]; !strings.HasPrefix(last.Why(), "policies were being changed") || last.Policy != nil || last.Direction != "" {
		t.Errorf("%+v: %s", last, last.Why())
	}
	text, err := os.ReadFile(path)
	if lines := strings.Split(string(text), "\n"); err != nil || len(lines) != 4 || !strings.Contains(lines[0], `"ruleset":"NetworkPolicy web/out"`) || !strings.Contains(lines[0], `"cluster":{"name":"prod"}`) {
		t.Errorf("%v %s", err, text)
	}
	d.file.Path = filepath.Join(path, "below a file")
	d.take(packet)
	if report := d.report(time.Time{}); len(report.Records) != 4 || report.Counts.Unwritten != 1 {
		t.Errorf("%+v", report)
	}
}

// TestDropsServed: who asks gets what is remembered, and who follows what comes.
func TestDropsServed(t *testing.T) {
	d := newDrops(&Config{Node: testNode, Log: slog.New(slog.DiscardHandler)}, newLoop(&Config{}, &model.Feed{}))
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "drops.sock")) // the tests' loopback interface may be down
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(d.serve)}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()
	client := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", listener.Addr().String())
	}}}
	get := func(query string) *http.Response {
		t.Helper()
		answer, err := client.Get("http://agent/debug/drops?" + query)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { answer.Body.Close() })
		return answer
	}
	add := func(pod string, second int64) {
		r := dropped(pod, "client")
		r.Time = time.Unix(second, 0).UTC()
		d.recent.Add(r)
	}
	add("a", 1)
	add("b", 2)
	var report drop.Report
	if err := json.NewDecoder(get("since=1970-01-01T00:00:01Z").Body).Decode(&report); err != nil || len(report.Records) != 1 || report.Records[0].Destination.Pod != "b" || report.Trouble == "" {
		t.Errorf("%v %+v", err, report)
	}
	lines := json.NewDecoder(get("follow").Body)
	for i, pod := range []string{"a", "b", "c"} {
		if i == 2 {
			add("c", 3)
		}
		var r drop.Record
		if err := lines.Decode(&r); err != nil || r.Destination.Pod != pod {
			t.Fatalf("%v %+v, want %s", err, r, pod)
		}
	}
	if answer := get("since=yesterday"); answer.StatusCode != http.StatusBadRequest {
		t.Error(answer.Status)
	}
}
