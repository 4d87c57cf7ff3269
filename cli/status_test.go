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

	"github.com/fairlead-net/fairlead/agent"
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
		}, "unhealthy", []string{"1 problem\n", "Link/eth0", "what: is down", "next: ip link set up"}},
		"nobody leads": {func(o *kube.Overview) { o.Leader = &kube.Leader{Identity: "x", Renewed: now.Add(-time.Hour)} }, "unhealthy",
			[]string{"Deployment/kube-system/fairlead-controller", "no controller leads since", "traffic goes on", "logs deployment/fairlead-controller"}},
		"nobody ever led": {func(o *kube.Overview) { o.Leader = &kube.Leader{} }, "unhealthy", []string{"no controller has ever led"}},
		"somebody leads":  {func(o *kube.Overview) { o.Leader = &kube.Leader{Identity: "x", Renewed: now} }, "healthy", nil},
		"no agent is to be there": {func(o *kube.Overview) {
			o.Nodes[1].Agent = nil
			o.Nodes[1].Node.Labels = model.LabelsOf(map[string]string{"fairlead.io/agent": "none"})
			o.Nodes[1].Report.Status.HeartbeatTime = metav1.NewTime(now.Add(-time.Hour))
			o.Nodes[1].Report.Status.Problems = []v1alpha1.Problem{{Kind: "Link", Name: "eth0", Message: "was down"}}
		}, "healthy", []string{
			"healthy: the network is ready on the one node that is to have an agent\n1 node has no agent, as its label fairlead.io/agent=none says: b\n\nNODE", "b      NoAgent ",
		}},
		"not moved from flannel yet": {func(o *kube.Overview) {
			for i := range o.Nodes {
				o.Nodes[i].Agent, o.Nodes[i].Report = nil, nil
				o.Nodes[i].Node.Flannel, o.Nodes[i].Node.Labels = "vxlan", model.LabelsOf(map[string]string{"fairlead.io/agent": "none"})
			}
		}, "healthy", []string{"2 nodes have no agent, as their label fairlead.io/agent=none says; flannel serves them: a, b\n"}},
		"no range where no agent is to be": {func(o *kube.Overview) {
			o.Nodes[0].Node.PodCIDRs, o.Nodes[0].Node.Labels = nil, model.LabelsOf(map[string]string{"kubernetes.io/os": "windows"})
			o.Nodes[1].Node.PodCIDRs = nil
		}, "unhealthy", []string{"unhealthy: 1 problem\n1 node has no agent, as its label kubernetes.io/os=windows says: a\n\nNode/b spec.podCIDRs"}},
		"no range": {func(o *kube.Overview) { o.Nodes[0].Node.PodCIDRs = nil }, "unhealthy",
			[]string{"Node/a spec.podCIDRs", "--allocate-node-cidrs"}},
	} {
		t.Run(name, func(t *testing.T) {
			overview := &kube.Overview{Installed: true, Nodes: []kube.NodeOverview{statusNode("a", now), statusNode("b", now)}}
			test.change(overview)
			status := judge(overview, nil, now)
			if status.State != test.state {
				t.Errorf("it is %s", status.State)
			}
			var out bytes.Buffer
			if err := printStatus(&out, &format{name: inText}, status, now); err != nil {
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

func details(now time.Time) *agent.Details {
	return &agent.Details{
		Node: "a", Version: "v1", Began: now.Add(-time.Hour), Ready: true, Message: "the network is as planned",
		Checks:    []agent.CheckDetails{{Name: "apiserver", Done: true}, {Name: "cni", Why: "the socket is not open yet"}},
		Snapshot:  agent.SnapshotDetails{Revision: 9, Applied: 7, Refused: 1},
		Uplink:    "eth0",
		Links:     []agent.LinkDetails{{Name: "eth0", MTU: 1500, Addresses: []netip.Prefix{netip.MustParsePrefix("172.30.0.1/24")}}},
		Tunnels:   []agent.LinkDetails{{Name: "fairlead-vx4", MTU: 1450}},
		Addresses: []agent.AddressDetails{{Family: "ipv4", Capacity: 254, InUse: 200, Cooling: 3}, {Family: "ipv6", Capacity: 1 << 53, InUse: 4}},
		Conntrack: &agent.ConntrackDetails{Used: 10, Limit: 1000},
		Peers:     []agent.PeerDetails{{Node: "b", Way: "vxlan", Addresses: []netip.Addr{netip.MustParseAddr("172.30.1.2")}, Why: "it is elsewhere"}},
		Pods:      []agent.PodDetails{{Namespace: "default", Name: "web", Device: "fl1", Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.5")}}},
	}
}

func TestNodeStatus(t *testing.T) {
	now := time.Now()
	overview := &kube.Overview{Installed: true, Nodes: []kube.NodeOverview{statusNode("a", now), statusNode("b", now)}}
	overview.Nodes[1].Report.Status.Problems = []v1alpha1.Problem{{Kind: "Link", Name: "eth0", Message: "is down"}}
	if _, err := judgeOne(overview, nil, "c", now); err == nil || err.Error() != "there is no node c; there are a, b" {
		t.Errorf("of no node: %v", err)
	}
	if status, err := judgeOne(overview, nil, "b", now); err != nil || status.State != "unhealthy" {
		t.Errorf("b: %+v, %v", status, err)
	}
	agentless := statusNode("a", now)
	agentless.Report, agentless.Agent, agentless.Node.Labels = nil, nil, model.LabelsOf(map[string]string{"kubernetes.io/os": "windows"})
	status, err := judgeOne(&kube.Overview{Installed: true, Nodes: []kube.NodeOverview{agentless}}, nil, "a", now)
	var out bytes.Buffer
	if err == nil {
		err = printNodeStatus(&out, status, false, now)
	}
	if want := "healthy: node a has no agent, as its label kubernetes.io/os=windows says\n"; err != nil || !strings.HasPrefix(out.String(), want) {
		t.Errorf("without an agent: %v\n%s", err, out.String())
	}
	status, err = judgeOne(overview, nil, "a", now)
	if err != nil || status.State != "healthy" {
		t.Fatalf("what is wrong with b is nothing of a's: %+v, %v", status, err)
	}
	status.Details = details(now)
	text := func(wide bool) string {
		var out bytes.Buffer
		if err := printNodeStatus(&out, status, wide, now); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	short := text(false)
	for _, part := range []string{
		"healthy: the network of node a is ready\n", "  agent        agent-a, version none, last seen 0s ago\n",
		"apiserver ok, cni waits: the socket is not open yet\n", "has revision 7 of 9; 1 part of the plan refused\n",
		"200 of 254 in use, 3 freed not long ago\n", "4 in use, of more than anyone could\n", "10 of 1000 connections\n",
		"eth0           1500   uplink   172.30.0.1/24\n", "fairlead-vx4   1450   tunnel\n", "b      vxlan   172.30.1.2   it is elsewhere\n",
	} {
		if !strings.Contains(short, part) {
			t.Errorf("%q is not in\n%s", part, short)
		}
	}
	if strings.Contains(short, "default/web") || !strings.Contains(text(true), "default/web   fl1    10.244.1.5\n") {
		t.Error("pods are to be shown in the wide format alone")
	}
	status.Details, status.Silence = nil, "its agent does not answer"
	if short := text(false); !strings.Contains(short, "not known: its agent does not answer") || !strings.Contains(short, "0 direct, 0 tunnelled") {
		t.Errorf("without details:\n%s", short)
	}
}
