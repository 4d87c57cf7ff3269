package cli

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
)

func statusNode(name string, now time.Time) kube.NodeOverview {
	last := map[string]byte{"a": 1, "b": 2}[name]
	return kube.NodeOverview{
		Node: &model.Node{
			Name:      name,
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{172, 30, 0, last})},
			PodCIDRs:  []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, last, 0}), 24)},
		},
		Ready: true,
		Agent: &kube.AgentPod{Name: "agent-" + name, Ready: true},
		Report: &v1alpha1.NodeNetwork{Status: v1alpha1.NodeNetworkStatus{
			HeartbeatTime: metav1.NewTime(now), Pods: 4, Uplink: "eth0", MTU: 1500,
			Conditions: []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue}},
		}},
	}
}

func TestJudge(t *testing.T) {
	now := time.Now()
	for name, test := range map[string]struct {
		change func(*kube.Overview)
		state  string
		says   []string
	}{
		"all well":      {func(*kube.Overview) {}, "healthy", []string{"healthy: the network is ready on all 2 nodes", "eth0"}},
		"not installed": {func(o *kube.Overview) { o.Installed = false }, "unhealthy", []string{"not installed", "kubectl apply"}},
		"no agent": {func(o *kube.Overview) { o.Nodes[1].Report, o.Nodes[1].Agent = nil, nil }, "unhealthy",
			[]string{"Node/b", "not reported", "no agent pod", "describe daemonset", "AgentNeverReported"}},
		"its image": {func(o *kube.Overview) {
			o.Nodes[1].Report = nil
			o.Nodes[1].Agent = &kube.AgentPod{Name: "agent-b", State: "ImagePullBackOff: no such image"}
		}, "unhealthy", []string{"agent-b is not ready (ImagePullBackOff: no such image)", "describe pod agent-b"}},
		"the machine is off": {func(o *kube.Overview) {
			o.Nodes[0].Ready = false
			o.Nodes[0].Report.Status.HeartbeatTime = metav1.NewTime(now.Add(-time.Hour))
		}, "unhealthy", []string{"silent", "kubelet is not ready", "describe node a"}},
		"a problem": {func(o *kube.Overview) {
			o.Nodes[0].Report.Status.Problems = []v1alpha1.Problem{{Kind: "Link", Name: "eth0", Message: "is down", Remedy: "ip link set up"}}
		}, "unhealthy", []string{"1 problems", "Link/eth0", "what: is down", "next: ip link set up"}},
		"no range": {func(o *kube.Overview) { o.Nodes[0].Node.PodCIDRs = nil }, "unhealthy",
			[]string{"Node/a spec.podCIDRs", "--allocate-node-cidrs"}},
	} {
		t.Run(name, func(t *testing.T) {
			overview := &kube.Overview{Installed: true, Nodes: []kube.NodeOverview{statusNode("a", now), statusNode("b", now)}}
			test.change(overview)
			status := judge(overview, now)
			if status.State != test.state {
				t.Errorf("it is %s", status.State)
			}
			var out bytes.Buffer
			if err := printStatus(&out, "text", status); err != nil {
				t.Fatal(err)
			}
			for _, part := range test.says {
				if !strings.Contains(out.String(), part) {
					t.Errorf("%q is not in\n%s", part, out.String())
				}
			}
		})
	}
}

// run runs the program with arguments, and returns what it printed.
func runCommand(t *testing.T, args ...string) (string, error) {
	t.Helper()
	command := root()
	var out bytes.Buffer
	command.SetOut(&out)
	command.SetErr(&out)
	command.SetArgs(args)
	err := command.ExecuteContext(t.Context())
	return out.String(), err
}

func TestStatusWithoutCluster(t *testing.T) {
	t.Setenv("KUBECONFIG", "/nonexistent")
	t.Setenv("HOME", t.TempDir())
	out, err := runCommand(t, "status", "-o", "json")
	if err != exitUnknown || !strings.Contains(out, `"state": "unknown"`) || !strings.Contains(out, "--kubeconfig") {
		t.Errorf("error %v, output %s", err, out)
	}
}

func TestPlanCommand(t *testing.T) {
	file := filepath.Join(t.TempDir(), "snapshot.yaml")
	err := os.WriteFile(file, []byte(`
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Node
  metadata: {name: a}
  spec: {podCIDRs: [10.244.0.0/24]}
  status: {addresses: [{type: InternalIP, address: 172.30.0.1}]}
- apiVersion: v1
  kind: Node
  metadata: {name: b}
  spec: {podCIDRs: [10.244.1.0/24]}
  status: {addresses: [{type: InternalIP, address: 172.30.0.2}]}
---
apiVersion: fairlead.io/v1alpha1
kind: NodeState
links: [{name: eth0, mtu: 1500, addresses: [172.30.0.1/24]}]
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	for format, want := range map[string]string{
		"text": "route 10.244.1.0/24 via 172.30.0.2 dev eth0",
		"json": `"problems": []`,
	} {
		out, err := runCommand(t, "plan", "--snapshot", file, "--node", "a", "-o", format)
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%s: error %v, output\n%s", format, err, out)
		}
	}
	if out, err := runCommand(t, "plan", "--snapshot", file, "--node", "c"); err != nil || !strings.Contains(out, "NodeUnknown") && !strings.Contains(out, "no Node of this name") {
		t.Errorf("an unknown node: error %v, output\n%s", err, out)
	}
}
