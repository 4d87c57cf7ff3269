package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/probe"
	"github.com/fairlead-net/fairlead/observe/trace"
	"github.com/fairlead-net/fairlead/preflight"
)

// trap is a text that YAML would take for something else, or for more than one line.
const trap = "1e3: no # 0x10\nnull — ünïcode \"'"

// formatted is a command that prints an answer that is given.
type formatted struct {
	command string
	print   func(io.Writer, *format) error
	wide    []string // what the wide format has and the plain one lacks; nil: there is none
}

func formattedStatus(now time.Time) formatted {
	nodes := []kube.NodeOverview{statusNode("a", now), statusNode("b", now)}
	nodes[0].Node.Name, nodes[1].Node.Name = "1e3", "null" // names that nodes may have
	nodes[1].Report.Status.HeartbeatTime = metav1.NewTime(now.Add(-time.Hour))
	nodes[1].Report.Status.Problems = []v1alpha1.Problem{{Kind: "Link", Name: "eth0", Reason: "Down", Message: trap, Remedy: trap}}
	none := kube.NodeOverview{Node: &model.Node{Name: "yes", Flannel: "vxlan", Labels: model.LabelsOf(map[string]string{"fairlead.io/agent": "none"})}}
	overview := &kube.Overview{Installed: true, Nodes: append(nodes, none), Leader: &kube.Leader{Identity: "controller-0", Renewed: now}}
	gateways := &gatewaysFound{
		wanted: 1, unread: trap, pods: []kube.GatewayPod{{Name: "gw-a", Node: "1e3", Phase: "Running", Ready: true}},
		silence: map[string]string{"gw-a": trap},
	}
	status := judge(overview, gateways, now)
	return formatted{
		command: "status",
		print:   func(to io.Writer, f *format) error { return printStatus(to, f, status, now) },
		wide:    []string{"KUBELET", "LAST SEEN", "1h0m0s ago", "172.30.0.1", "10.244.1.0/24", "agent-a", "controller-0 leads, heard of 0s ago"},
	}
}

func formattedNode(now time.Time) formatted {
	overview := &kube.Overview{Installed: true, Nodes: []kube.NodeOverview{statusNode("a", now), statusNode("b", now)}}
	overview.Nodes[0].Report.Status.Problems = []v1alpha1.Problem{{Kind: "Link", Name: "eth0", Message: trap}}
	status, err := judgeOne(overview, nil, "a", now)
	status.Details, status.Silence = details(now), trap
	for range mostPeers {
		status.Details.Peers = append(status.Details.Peers, status.Details.Peers[0])
	}
	status.Details.Peers[mostPeers].Node = "the-last-peer"
	return formatted{
		command: "status",
		print: func(to io.Writer, f *format) error {
			if err != nil || f.structured() {
				return f.print(to, status)
			}
			return printNodeStatus(to, status, f.name == inWide, now)
		},
		wide: []string{"default/web", "10.244.1.5", "the-last-peer"},
	}
}

func formattedCheck() formatted {
	result := checkOutput{
		State: probe.Failed, Error: "", Seconds: 1.25, Nodes: 2, Peers: 1,
		Agentless: []agentlessOutput{{"yes", "kubernetes.io/os=windows", ""}},
		Pairs:     []probe.Pair{{From: "1e3", To: "null", State: probe.Failed}, {From: "null", To: "1e3", RTT: 1e-7}},
		Findings: []probe.Finding{
			{State: probe.Failed, Ways: []probe.Route{{From: "1e3", To: "null"}}, Families: []string{"IPv6"}, What: trap, Why: trap, Next: trap},
		},
		Problems: []problemOutput{{Object: "Node/null", Field: "chain ip filter FORWARD", Message: trap, Remedy: trap}},
		Reports: []*probe.Report{{Node: "1e3", Results: []probe.Result{
			{Peer: "null", Path: probe.PodToPod, Family: "IPv6", Kind: probe.TCP, OK: true, RTT: 0.002},
			{Peer: "null", Path: probe.PodToPod, Family: "IPv6", Kind: probe.MTU, Planned: 1450, Found: 1400},
		}}},
	}
	return formatted{
		command: "check",
		print:   func(to io.Writer, f *format) error { return printCheck(to, f, result) },
		wide:    []string{"pod-to-pod", "2.00 ms", "1400 of 1450"},
	}
}

// formattedRoute: text has every interface and finding, so more columns would have
// nothing to say; the way back is shown by --return.
func formattedRoute() formatted {
	addr := netip.MustParseAddr
	path := &trace.Path{
		From: trace.End{Name: "default/1e3", Node: "a", Address: addr("10.244.0.5"), Pod: true},
		To:   trace.End{Name: "default/null", Node: "b", Address: addr("10.244.1.5"), Pod: true}, Outcome: trace.Stops, MTU: 1450, Differs: true,
		Lines: []trace.Line{{Where: "a", Device: "eth0", MTU: 1500, Way: trap, Findings: []trace.Finding{
			{Effect: trace.Breaks, What: trap, Plan: trap, Kernel: trap, Next: trap},
		}}},
		Reports: []trace.Report{{Node: "a", Problem: trap, Next: trap}},
	}
	output := &routeOutput{Outcome: string(trace.Stops), Paths: []pathOutput{{
		Path: path, Back: path, Missed: []missedOutput{{netip.MustParseAddrPort("[fd00::1]:80"), trap}},
	}}}
	return formatted{command: "route", print: func(to io.Writer, f *format) error {
		if f.structured() {
			return f.print(to, output)
		}
		return printPaths(to, output, false)
	}}
}

// formattedPreflight: text has every finding whole.
func formattedPreflight() formatted {
	finding := preflight.Finding{Check: "kernel", Level: preflight.Warn, What: trap, Why: trap, Next: trap}
	found := &preflightOutput{
		Level: preflight.Warn, Cluster: []preflight.Finding{finding, {Check: "rights", Level: preflight.OK, What: trap}},
		Nodes: map[string][]preflight.Finding{"1e3": {finding}, "null": {finding}},
	}
	return formatted{command: "preflight", print: func(to io.Writer, f *format) error {
		return (&preflightOptions{output: *f}).print(to, found)
	}}
}

// TestFormats: of one answer, YAML has what JSON has, whatever the texts in it are like;
// the wide format has all that the plain one has and more, and is offered only then.
func TestFormats(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)
	for name, test := range map[string]formatted{
		"status": formattedStatus(now), "status NODE": formattedNode(now), "check": formattedCheck(),
		"route": formattedRoute(), "preflight": formattedPreflight(),
	} {
		t.Run(name, func(t *testing.T) {
			text := map[string]string{}
			for _, format := range formatsOf(t, test.command) {
				var out bytes.Buffer
				if err := test.print(&out, format); err != nil {
					t.Fatalf("%s: %v", format.name, err)
				}
				text[format.name] = out.String()
			}
			var fromJSON, fromYAML any
			if err := json.Unmarshal([]byte(text[inJSON]), &fromJSON); err != nil {
				t.Fatal(err)
			}
			if err := yaml.Unmarshal([]byte(text[inYAML]), &fromYAML); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(fromJSON, fromYAML) {
				t.Errorf("JSON has\n%v\nYAML has\n%v", fromJSON, fromYAML)
			}
			if !strings.Contains(text[inJSON], `1e3: no # 0x10\nnull`) {
				t.Errorf("the text that is hard on YAML is not in\n%s", text[inJSON])
			}
			if wide, offered := text[inWide]; offered != (test.wide != nil) {
				t.Errorf("wide is offered: %t; what it has more: %q", offered, test.wide)
			} else if offered {
				verifyWide(t, text[inText], wide, test.wide)
			}
		})
	}
}

// formatsOf are those that a command takes.
func formatsOf(t *testing.T, command string) (formats []*format) {
	t.Helper()
	found, _, err := root().Find([]string{command})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range found.Flags().Lookup("output").Value.(*format).allowed {
		formats = append(formats, &format{name: name})
	}
	return formats
}

func verifyWide(t *testing.T, plain, wide string, more []string) {
	t.Helper()
	cells := strings.Fields(wide)
	_, left, _ := strings.Cut(plain, "\n… and ") // what the plain format says of what it leaves out
	for _, cell := range strings.Fields(plain) {
		if !slices.Contains(cells, cell) && !strings.Contains("… and "+left, cell) {
			t.Errorf("%q is not in the wide format:\n%s", cell, wide)
		}
	}
	for _, text := range more {
		if !strings.Contains(wide, text) || strings.Contains(plain, text) {
			t.Errorf("%q is to be in the wide format alone:\n%s\n%s", text, plain, wide)
		}
	}
}
