package cli

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/kube"
)

// planted are secrets as they look, each with a mark that must not arrive.
var planted = []string{
	"eyJhbGciOiJSUzI1NiIsImtpZCI6IlNFQ1JFVDEifQ.eyJzdWIiOiJzZWNyZXQxIn0.SECRET1signature",
	"Authorization: Bearer SECRET2abcdefgh", "authorization=Basic SECRET3Zm9vOmJhcg==",
	"-----BEGIN EC PRIVATE KEY-----\nSECRET4\n-----END EC PRIVATE KEY-----", "-----BEGIN RSA PRIVATE KEY-----\nSECRET5 is cut",
	"https://admin:SECRET6@proxy.example:3128/", `"bootstrap-token": "SECRET7"`, "DB_PASSWORD=SECRET8", "client-key-data: U0VDUkVUSECRET9",
	"MY_API_KEY='SECRET10'", `{\"password\": \"SECRET11\"}`, "abcdef.0123456789secret", "--token=SECRET12",
	`"password": "SECRET13 SECRET14, SECRET15"`, `"password": "a\"SECRET16 SECRET17"`, `{\"password\": \"SECRET18 SECRET19\"}`,
	`{\"password\": \"a\\\"SECRET30, SECRET31\"}`, "password: 'SECRET32, \"SECRET33\"'", `passphrase="SECRET34 SECRET35`,
	"DB_PASS=SECRET36", "db.pwd: SECRET37", `{"auths": {"r": {"auth": "SECRET38"}}}`, "dbPass: SECRET39",
}

func TestScrub(t *testing.T) {
	for _, text := range planted {
		if got := string(scrub([]byte("before " + text + "\nafter"))); strings.Contains(got, "SECRET") || strings.Contains(got, "0123456789secret") || !strings.Contains(got, "[taken out]") {
			t.Errorf("%q became %q", text, got)
		}
	}
	for before, want := range map[string]string{
		"a\n-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----\nb\n": "a\n[taken out]\nb\n",
		"SECRET\n-----END PRIVATE KEY-----\nb":                                   "[taken out]\nb",
		"a-----BEGIN EC PRIVATE KEY-----SECRET":                                  "a[taken out]",
		"x PRIVATE KEY----- y":                                                   "[taken out]",
		"a:\n  password: |\n    SECRET\n\n    SECRET\n  b: c\n":                  "a:\n  password: [taken out]\n  b: c\n",
		"- dbPass: >-\n    SECRET\n- b\n":                                        "- dbPass: [taken out]\n- b\n",
		`{"password": "a b", "user": "c"}`:                                       `{"password": "[taken out]", "user": "c"}`,
		`error="login: {\"password\": \"a b\"}" user=c`:                          `error="login: {\"password\": \"[taken out]\"}" user=c`,
	} {
		if got := string(scrub([]byte(before))); got != want {
			t.Errorf("%q became %q, want %q", before, got, want)
		}
	}
	for _, harmless := range []string{
		"route 10.244.1.0/24 via 192.0.2.2 dev eth0 mtu 1450", "node1 ready 10.244.1.5,fd00:10:244::5", `fairlead_watch_up{kind="Node"} 1`,
		`{"name":"pods4","key":"ipv4_addr","count":1}`, "the token of the service account is expired", "process_start_time_seconds 1.76372e+09",
		"https://172.30.0.10:6443/api/v1/nodes", "fairlead-agent-x7k2p", "time=2026-01-02T03:04:05.678Z level=WARN msg=\"a part\" error=\"refused\"",
		"author: bob", "passed: 5", "bypass=on", "compass: north", "authority=example.com", "authorized: true", `password: ""`, "description: |\n  two\n  lines\n",
	} {
		if got := string(scrub([]byte(harmless))); got != harmless {
			t.Errorf("%q became %q", harmless, got)
		}
	}
}

// pretended is a cluster of nodes a, b and so on.
type pretended struct {
	overview *kube.Overview
	logs     []byte
	snapshot []byte
	dead     []string         // nodes whose agents do not answer
	asked    func(pod string) // called before an agent is asked, unless it is nil
	deniedGateways
}

func pretend(nodes ...string) *pretended {
	p := &pretended{overview: &kube.Overview{Installed: true}, logs: []byte("level=INFO msg=hello\n"), snapshot: []byte("apiVersion: v1\nkind: Node\nmetadata: {name: a}\n")}
	for _, name := range nodes {
		p.overview.Nodes = append(p.overview.Nodes, statusNode(name, time.Now()))
	}
	return p
}

func (p *pretended) Overview(context.Context) (*kube.Overview, error) { return p.overview, nil }

func (p *pretended) ExecAgent(_ context.Context, pod string, _ io.Reader, command ...string) ([]byte, error) {
	if p.asked != nil {
		p.asked(pod)
	}
	if slices.Contains(p.dead, strings.TrimPrefix(pod, "agent-")) {
		return nil, errors.New("the kubelet does not answer")
	}
	if command[2] == "snapshot" {
		return p.snapshot, nil
	}
	return []byte(strings.Join(command, " ") + "\n" + strings.Join(planted, "\n")), nil
}

func (p *pretended) AgentLogs(_ context.Context, pod string, previous bool, _ int64) ([]byte, error) {
	if previous {
		return nil, errors.New("previous terminated container not found")
	}
	return p.logs, nil
}

func (p *pretended) ControllerLogs(_ context.Context, previous bool, _ int64) (map[string][]byte, error) {
	return map[string][]byte{"fairlead-controller-1": p.logs}, nil
}

func (p *pretended) Events(context.Context) ([]string, error) {
	return []string{"Warning Node/a NotReady"}, nil
}

func (p *pretended) ServerVersion(context.Context) (string, error) { return "v1.36.0", nil }

// bundle returns the files of a bundle without its directory, and its size.
func bundle(t *testing.T, from cluster, options *bundleOptions, largest int) (files map[string]string, size int, silent []string) {
	t.Helper()
	var out bytes.Buffer
	wanted, err := survey(t.Context(), from, options)
	if err == nil {
		silent, err = wanted.collect(t.Context(), from, newArchive(&out, "b", time.Now(), largest), io.Discard)
	}
	if err != nil {
		t.Fatal(err)
	}
	size = out.Len()
	compressed, err := gzip.NewReader(&out)
	if err != nil {
		t.Fatal(err)
	}
	files = map[string]string{}
	for reader := tar.NewReader(compressed); ; {
		header, err := reader.Next()
		if err == io.EOF {
			return files, size, silent
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(header.Name, "b/")] = string(text)
	}
}

// TestBundle: all of it is there, without a secret, also if a node is silent.
func TestBundle(t *testing.T) {
	t.Setenv("FAIRLEAD_PLANTED", "SECRET20")
	from := pretend("a", "b")
	from.logs = []byte("level=ERROR error=\"" + strings.Join(planted, "\"\n") + "\n")
	from.dead = []string{"b"}
	from.overview.Network = &v1alpha1.Network{ObjectMeta: metav1.ObjectMeta{Name: "default", Annotations: map[string]string{"kubectl.kubernetes.io/last-applied-configuration": "SECRET21"}}}
	from.overview.Network.Spec.CNI.Plugins = []runtime.RawExtension{{Raw: []byte(`{"type": "vpn", "psk": "SECRET22", "password": "SECRET23"}`)}}
	files, _, silent := bundle(t, from, &bundleOptions{most: 30}, largestBundle)
	if !slices.Equal(silent, []string{"b"}) {
		t.Errorf("silent are %v", silent)
	}
	for _, name := range []string{
		"README.txt", "cluster/status.txt", "cluster/status.json", "cluster/network.yaml", "cluster/nodenetworks.yaml", "cluster/events.txt",
		"cluster/versions.txt", "cluster/fairlead-controller-1.log", "nodes/a/status.json", "nodes/a/snapshot.yaml", "nodes/a/plan.txt",
		"nodes/a/metrics.txt", "nodes/a/ready.txt", "nodes/a/kernel.json", "nodes/a/dns-clients.json", "nodes/a/agent.log", "nodes/b/agent.log",
	} {
		if files[name] == "" {
			t.Errorf("%s is not there", name)
		}
	}
	for name, text := range files {
		if at := strings.Index(text, "SECRET"); at >= 0 {
			t.Errorf("%s has a secret: %.60s", name, text[max(0, at-30):])
		}
		if strings.Contains(text, "0123456789secret") {
			t.Errorf("%s has a token", name)
		}
	}
	for _, part := range []string{"no answer from b", "node b: status.json: the kubelet does not answer"} {
		if !strings.Contains(files["README.txt"], part) {
			t.Errorf("%q is not in README.txt:\n%s", part, files["README.txt"])
		}
	}
	if strings.Contains(files["README.txt"], "agent-previous") && strings.Contains(files["README.txt"], "not found") {
		t.Error("that there was no process before is no failure")
	}
}

// TestBundleIsSmall: whatever there is, it stays below a size, and says what was
// cut; of logs the end is there.
func TestBundleIsSmall(t *testing.T) {
	const largest = 1 << 20
	if largestBundle+500_000 > 25e6 {
		t.Errorf("%d bytes and what frames them are more than 25 MB", largestBundle)
	}
	noise := make([]byte, 3<<16)
	_, _ = rand.Read(noise)
	text := []byte(base64.StdEncoding.EncodeToString(noise)) // which does not compress
	from := pretend("a", "b", "c", "d")
	from.logs = append(slices.Clone(text), "\nthe end\n"...)
	from.snapshot = text
	files, size, _ := bundle(t, from, &bundleOptions{most: 30}, largest)
	if size >= largest+50_000 || size < largest/2 {
		t.Errorf("it has %d bytes", size)
	}
	for _, node := range []string{"a", "b", "c", "d"} {
		if log := files["nodes/"+node+"/agent.log"]; !strings.HasSuffix(log, "the end\n") || len(log) < len(from.logs) && !strings.Contains(log, "[cut here") {
			t.Errorf("the log of %s does not have its end, or does not say that it was cut", node)
		}
		if files["nodes/"+node+"/kernel.json"] == "" {
			t.Errorf("node %s had no room", node)
		}
	}
	if !strings.Contains(files["README.txt"], "nodes/a/agent.log: cut, of its 262153 bytes the last are there") {
		t.Errorf("README.txt:\n%s", files["README.txt"])
	}
}

func TestBundleOfSome(t *testing.T) {
	from := pretend("a", "b", "c", "d")
	from.overview.Nodes[2].Report = nil
	names := func(options bundleOptions) string {
		chosen, err := choose(from.overview, &options, time.Now())
		if err != nil {
			return err.Error()
		}
		var names []string
		for _, node := range chosen {
			names = append(names, node.Node.Name)
		}
		return fmt.Sprint(names)
	}
	for want, options := range map[string]bundleOptions{
		"[c a b d]": {most: 30}, "[c a]": {most: 2}, "[d]": {nodes: []string{"d"}, most: 30},
		"there is no node e": {nodes: []string{"d", "e"}},
	} {
		if got := names(options); got != want {
			t.Errorf("%+v: %s, want %s", options, got, want)
		}
	}
	if files, _, _ := bundle(t, from, &bundleOptions{most: 2}, largestBundle); !strings.Contains(files["README.txt"], "2 nodes of 4 were left out") {
		t.Errorf("README.txt:\n%s", files["README.txt"])
	}
}

// TestBundleOfGateways: the status in a bundle is that which fairlead status says, with
// gateways; those that cannot be read keep nobody from a bundle.
func TestBundleOfGateways(t *testing.T) {
	from := pretend("a")
	from.pods = []kube.GatewayPod{{Name: "gw-a", Node: "a", Phase: "Running", State: "CrashLoopBackOff"}}
	files, _, _ := bundle(t, from, &bundleOptions{most: 30}, largestBundle)
	if status := files["cluster/status.txt"]; !strings.HasPrefix(status, "unhealthy: 1 problem") || !strings.Contains(status, "CrashLoopBackOff") {
		t.Errorf("status.txt:\n%s", status)
	}
	from.noPods = errors.New("the API server is away")
	files, _, _ = bundle(t, from, &bundleOptions{most: 30}, largestBundle)
	if status := files["cluster/status.txt"]; !strings.Contains(status, "gateways: not known: the API server is away") {
		t.Errorf("status.txt:\n%s", status)
	}
}

// TestBundleStopped: a bundle that is stopped is none, and leaves what was there.
func TestBundleStopped(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "bundle.tar.gz")
	if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	from := pretend("a", "b", "c")
	ctx, stop := context.WithCancel(t.Context())
	from.asked = func(pod string) {
		if pod == "agent-b" {
			stop()
		}
	}
	options := &bundleOptions{most: 30, file: file}
	if path, _, err := makeBundle(ctx, from, options, io.Discard); err == nil || !errors.Is(err, context.Canceled) {
		t.Errorf("wrote %s, %v", path, err)
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if old, err := os.ReadFile(file); string(old) != "old" || len(left) != 1 {
		t.Errorf("the file has %q, %v, and there are %v", old, err, left)
	}
	from.asked = nil
	path, _, err := makeBundle(t.Context(), from, options, io.Discard)
	if stat, statErr := os.Stat(path); err != nil || path != file || statErr != nil || stat.Size() < 100 || stat.Mode().Perm() != 0o600 {
		t.Errorf("wrote %s: %v, %v", path, stat, err)
	}
	options.file = os.DevNull // which is to stay what it is
	if _, _, err := makeBundle(t.Context(), from, options, io.Discard); err != nil {
		t.Error(err)
	}
	if stat, err := os.Stat(os.DevNull); err != nil || stat.Mode().IsRegular() {
		t.Errorf("%s is %v, %v", os.DevNull, stat, err)
	}
}
