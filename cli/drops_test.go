package cli

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/observe/drop"
)

func aDrop() *drop.Record {
	return &drop.Record{
		Time: time.Date(2026, 5, 4, 12, 0, 1, 337e6, time.Local), Node: "node2", Direction: "ingress", Protocol: "TCP",
		Source:      drop.End{Address: netip.MustParseAddr("10.244.0.2"), Port: 4000, Namespace: "shop", Pod: "client"},
		Destination: drop.End{Address: netip.MustParseAddr("10.244.1.3"), Port: 5432, Namespace: "shop", Pod: "db-0"},
		Called:      netip.MustParseAddrPort("10.96.0.7:90"), Service: "shop/db",
		Policy: &drop.Policy{Kind: "NetworkPolicy", Namespace: "shop", Name: "deny-all"},
	}
}

// TestDropsText: a drop is one line for people, and one object for programs that
// follow.
func TestDropsText(t *testing.T) {
	options := dropsOptions{output: format{name: inText}}
	records := []*drop.Record{aDrop(), aDrop(), aDrop()}
	records[1].Service = ""
	records[2].Called, records[2].Service, records[2].Source.Pod = netip.AddrPort{}, "", ""
	records[2].Nearest = &drop.Nearest{Policy: drop.Policy{Kind: "NetworkPolicy", Namespace: "shop", Name: "db", Rule: 1, Field: "spec.ingress[0]"}, Differs: "port differs"}
	var text bytes.Buffer
	if err := options.write(&text, records); err != nil {
		t.Fatal(err)
	}
	const why = "5432/TCP  default deny by NetworkPolicy shop/deny-all, direction ingress"
	want := "May  4 12:00:01.337  node2  shop/client → shop/db-0 (svc shop/db)  " + why + "\n" +
		"May  4 12:00:01.337  node2  shop/client → shop/db-0 (10.96.0.7:90)  " + why + "\n" +
		"May  4 12:00:01.337  node2  10.244.0.2 → shop/db-0  " + why + "; nearest allow: NetworkPolicy shop/db, spec.ingress[0], port differs\n"
	if text.String() != want {
		t.Errorf("\n%s, want\n%s", text.String(), want)
	}
	text.Reset()
	options.output.name = inJSON
	if err := options.write(&text, records); err != nil || strings.Count(text.String(), "\n") != 3 {
		t.Errorf("%v %s", err, text.String())
	}
	text.Reset()
	options.output.name = inYAML
	if err := options.write(&text, records); err != nil || strings.Count(text.String(), "---\n") != 3 || !strings.Contains(text.String(), "\n  pod: client\n") {
		t.Errorf("%v %s", err, text.String())
	}
}

// TestDropsTroubles: what the nodes leave out is said, and who does not answer.
func TestDropsTroubles(t *testing.T) {
	nodes := []dropsNode{{Node: "quiet", Counts: &drop.Counts{Read: 7}}, {Node: "busy", Counts: &drop.Counts{Suppressed: 90, Lost: 2}}}
	var text bytes.Buffer
	if writeTroubles(&text, nodes, true) || text.String() != "busy: besides, 90 were dropped and not logged, since they were many, and 2 were lost from the log\n" {
		t.Error(text.String())
	}
	text.Reset()
	nodes = append(nodes, dropsNode{Node: "gone", Trouble: "it does not answer", Next: "look"})
	if !writeTroubles(&text, nodes, false) || text.String() != "gone: it does not answer\n  next: look\n" {
		t.Error(text.String())
	}
}
