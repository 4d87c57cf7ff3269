package policy_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/policy"
)

var update = flag.Bool("update", false, "write the golden files of testdata anew")

// shop is the cluster of testdata/shop.yaml.
func shop(t *testing.T) *model.Snapshot { return read(t, "shop.yaml") }

func read(t *testing.T, name string) *model.Snapshot {
	t.Helper()
	file, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	snapshot, err := kube.ReadSnapshot(file)
	if err != nil {
		t.Fatal(err)
	}
	return snapshot
}

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (-update writes it anew); got\n%s", file, got)
	}
}

// TestExplain: what is said of connections, in testdata/explain.txt.
func TestExplain(t *testing.T) {
	snapshot := shop(t)
	const front, back = "front-7d9c5b4f6-aaaaa", "back-5c6b7d8e9-ccccc"
	var b strings.Builder
	for _, q := range [][3]string{
		{front, "db-0", "5432"},                      // denied at both ends
		{back, "db-0", "http"},                       // a name that db-0 does not have
		{back, "db-0", "sql"},                        // allowed, by name
		{back, "db-0", "metrics"},                    // the port differs
		{back, "svc/db", ""},                         // by a Service
		{"monitoring/monitor", "db-0", "metrics"},    // ClusterNetworkPolicy before NetworkPolicies
		{"monitoring/monitor", "db-0", "22"},         // denied by one
		{"monitoring/agent", "db-0", "22"},           // of the pod's own node
		{"node/node1", "db-0", "9187"},               // of another
		{front, "node/node2", "10250"},               // to a node
		{front, "monitoring/agent", "icmp"},          // to a pod that has its node's network
		{back, "198.51.100.6", "80"},                 // masqueraded on the way to the other node
		{"203.0.113.5", "svc/web", "http"},           // from outside by a Service
		{"198.51.100.1", "db-0", "5432"},             // a block
		{"198.51.100.200", "db-0", "5432"},           // its exception
		{"10.244.1.2", "fd00:2::2", "5432"},          // of two families
		{"db-0", "db-0", "icmp"},                     // itself
		{back, "migrate-x2x2x", "80"},                // has finished
		{back, "monitor", "80"},                      // of another namespace
		{"svc/db", "db-0", "80"},                     // a Service sends nothing
		{back, "svc/web", ""},                        // several ports
		{back, "svc/web", "https"},                   // without endpoints
		{back, "svc/none", "80"}, {back, "db-0", ""}, // no such Service; no port
	} {
		fmt.Fprintf(&b, "# --from %s --to %s --port %s\n", q[0], q[1], q[2])
		port, err := policy.ParsePort(q[2])
		if err != nil {
			t.Fatal(err)
		}
		explained, err := policy.Explain(snapshot, policy.Query{From: q[0], To: q[1], Namespace: "shop", Port: port})
		var untold *policy.Untold
		switch {
		case errors.As(err, &untold):
			fmt.Fprintf(&b, "untold: %s\n  next: %s\n", untold.What, untold.Next)
		case err != nil:
			t.Fatal(err)
		default:
			if err := explained.Text(&b, policy.Style{}); err != nil {
				t.Fatal(err)
			}
		}
		b.WriteString("\n")
	}
	golden(t, "explain.txt", b.String())
}

// TestNames: what is said of queries of DNS, in testdata/names.txt.
func TestNames(t *testing.T) {
	snapshot := read(t, "names.yaml")
	var b strings.Builder
	for _, q := range [][2]string{{"front", "dns"}, {"front", "metrics"}, {"back", "dns"}} {
		fmt.Fprintf(&b, "# --from %s --to svc/kube-system/kube-dns --port %s\n", q[0], q[1])
		explained, err := policy.Explain(snapshot, policy.Query{From: q[0], To: "svc/kube-system/kube-dns", Namespace: "shop", Port: policy.Port{Name: q[1]}})
		if err == nil {
			err = explained.Text(&b, policy.Style{})
		}
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString("\n")
	}
	matrix, err := policy.MatrixOf(snapshot, policy.MatrixQuery{Namespace: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range matrix.Rows() {
		b.WriteString(strings.Join(row[:], " | ") + "\n")
	}
	golden(t, "names.txt", b.String())
}

// TestParsePort: what is no port is refused.
func TestParsePort(t *testing.T) {
	for text, want := range map[string]string{
		"80": "{protocol 0 80 }", "80/udp": "{UDP 80 }", "http": "{protocol 0 0 http}", "http/TCP": "{TCP 0 http}", "ICMP": "{protocol 1 0 }", "": "{protocol 0 0 }",
		"0": "refused", "65536": "refused", "80/icmp": "refused", "-1": "refused", "/tcp": "refused",
	} {
		port, err := policy.ParsePort(text)
		got := fmt.Sprint(port)
		if err != nil {
			got = "refused"
		}
		if got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
	}
}

// TestUnknownPolicies: a node that has not read policies says nothing of them.
func TestUnknownPolicies(t *testing.T) {
	snapshot := *shop(t)
	snapshot.PoliciesKnown = false
	var untold *policy.Untold
	if _, err := policy.Explain(&snapshot, policy.Query{From: "shop/db-0", To: "192.0.2.77", Port: policy.Port{Number: 80}}); !errors.As(err, &untold) {
		t.Errorf("it is told: %v", err)
	}
}
