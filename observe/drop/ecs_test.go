package drop

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// ecsFields are the fields of the Elastic Common Schema 8.17 that we write, with
// their types there. A * stands for any name of one level (labels is an object of
// keywords).
var ecsFields = map[string]string{
	"@timestamp": "date", "message": "match_only_text", "labels.*": "keyword",
	"ecs.version": "keyword", "host.name": "keyword",
	"event.kind": "keyword", "event.category": "keywords", "event.type": "keywords", "event.action": "keyword",
	"event.outcome": "keyword", "event.dataset": "keyword", "event.module": "keyword", "event.reason": "keyword",
	"rule.name": "keyword", "rule.ruleset": "keyword", "rule.category": "keyword",
	"source.address": "keyword", "source.ip": "ip", "source.port": "long",
	"destination.address": "keyword", "destination.ip": "ip", "destination.port": "long",
	"destination.nat.ip": "ip", "destination.nat.port": "long",
	"network.type": "keyword", "network.iana_number": "keyword", "network.transport": "keyword",
	"network.direction": "keyword", "network.community_id": "keyword",
	"observer.vendor": "keyword", "observer.product": "keyword", "observer.type": "keyword",
	"orchestrator.type": "keyword", "orchestrator.cluster.name": "keyword", "orchestrator.namespace": "keyword",
	"orchestrator.resource.type": "keyword", "orchestrator.resource.name": "keyword", "orchestrator.resource.id": "keyword",
	"orchestrator.resource.ip": "ips", "orchestrator.resource.label": "keywords",
}

// ecsValues are those that the schema allows in fields that have a list of them.
var ecsValues = map[string][]string{
	"event.kind":        {"alert", "asset", "enrichment", "event", "metric", "state", "pipeline_error", "signal"},
	"event.category":    {"network"},
	"event.type":        {"access", "allowed", "connection", "denied", "end", "info", "protocol", "start"}, // of network
	"event.outcome":     {"failure", "success", "unknown"},
	"network.type":      {"ipv4", "ipv6", "ipsec", "pim"},
	"network.direction": {"ingress", "egress", "inbound", "outbound", "internal", "external", "unknown"},
}

// TestECSFields: each field of a line is one of the schema, of its type and with a
// value that it allows.
func TestECSFields(t *testing.T) {
	end := func(addr string, port uint16) End {
		return End{
			Address: netip.MustParseAddr(addr), Port: port, Namespace: "shop", Pod: "db-0", UID: "1-2",
			Labels: map[string]string{"app": "db", "app.kubernetes.io/name": "db"},
		}
	}
	full := Record{
		Time: time.Unix(1_750_000_000, 5e6), Node: "node1", Direction: "ingress", Protocol: "TCP",
		Source: end("10.244.1.1", 40000), Destination: end("10.244.1.2", 5432),
		Called: netip.MustParseAddrPort("10.96.0.9:80"), Service: "shop/db",
		Policy: &Policy{Kind: "NetworkPolicy", Namespace: "shop", Name: "db", Tier: "NetworkPolicy", Rule: 1},
	}
	full.Nearest = &Nearest{Policy: *full.Policy, Differs: "port differs"}
	bare := Record{
		Time: full.Time, Direction: "egress", Protocol: "ICMPv6",
		Source: End{Address: netip.MustParseAddr("fd00::1")}, Destination: End{Address: netip.MustParseAddr("2001:db8::1")},
	}
	seen := map[string]bool{}
	for _, r := range []*Record{&full, &bare} {
		line, err := ECS(r, "prod")
		if err != nil {
			t.Fatal(err)
		}
		var fields map[string]any
		if err := json.Unmarshal(line, &fields); err != nil {
			t.Fatal(err)
		}
		checkECS(t, "", fields, seen)
	}
	for _, field := range slices.Sorted(maps.Keys(ecsFields)) {
		if !seen[field] {
			t.Errorf("%s is in none of the lines", field)
		}
	}
}

func checkECS(t *testing.T, at string, fields map[string]any, seen map[string]bool) {
	for name, value := range fields {
		path := at + name
		if nested, ok := value.(map[string]any); ok {
			checkECS(t, path+".", nested, seen)
			continue
		}
		if at == "labels." {
			path = "labels.*"
		}
		seen[path] = true
		if kind, known := ecsFields[path]; !known {
			t.Errorf("%s is no field of the schema", path)
		} else if err := isECS(kind, value); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		allowed, limited := ecsValues[path]
		for _, one := range listOf(value) {
			if text := fmt.Sprint(one); limited && !slices.Contains(allowed, text) {
				t.Errorf("%s: %s is none of %v", path, text, allowed)
			}
		}
	}
}

func listOf(value any) []any {
	if all, ok := value.([]any); ok {
		return all
	}
	return []any{value}
}

// isECS tells what keeps a value from being of a type.
func isECS(kind string, value any) error {
	switch kind {
	case "keywords", "ips":
		all, ok := value.([]any)
		if !ok {
			return fmt.Errorf("%v is no list", value)
		}
		for _, one := range all {
			if err := isECS(kind[:len(kind)-1], one); err != nil {
				return err
			}
		}
		return nil
	case "long":
		if number, ok := value.(float64); !ok || number != float64(int64(number)) {
			return fmt.Errorf("%v is no whole number", value)
		}
		return nil
	}
	text, ok := value.(string)
	if !ok {
		return fmt.Errorf("%v is no text", value)
	}
	var err error
	switch kind {
	case "date":
		_, err = time.Parse(time.RFC3339Nano, text)
	case "ip":
		_, err = netip.ParseAddr(text)
	}
	return err
}
