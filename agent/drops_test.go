package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/dataplane"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/drop"
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
// and there are so many series and no more.
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
	count(many...)
	if len(counted.policies) != mostPolicies+1 || counted.policies[deniedBy{"ingress", otherPolicies}] != mostPolicies+2 || counted.suppressed() != 112 {
		t.Errorf("%d series, %v of others, %d suppressed", len(counted.policies), counted.policies[deniedBy{"ingress", otherPolicies}], counted.suppressed())
	}
}

// TestDropsServed: who asks gets what is remembered, and who follows what comes.
func TestDropsServed(t *testing.T) {
	d := newDrops(&Config{Node: testNode, Log: slog.New(slog.DiscardHandler)}, newLoop(&Config{}, &model.Feed{}))
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "drops.sock")) // the tests' loopback interface may be down
	if err != nil {
		t.Fatal(err)
	}
	const patience = 20 * time.Millisecond // with requests, that the health address has too
	server := &http.Server{Handler: http.HandlerFunc(d.serve), ReadTimeout: patience}
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
			time.Sleep(3 * patience) // it goes on though no request is being read
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
