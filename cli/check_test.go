package cli

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/probe"
)

func checkedNodes(n int) (nodes []kube.NodeOverview) {
	for i := range n {
		nodes = append(nodes, kube.NodeOverview{Node: &model.Node{Name: fmt.Sprintf("node%02d", i)}, Ready: true})
	}
	return nodes
}

// TestWhatToAsk: all from all in small clusters; in large ones, each node is
// probed by four others and itself.
func TestWhatToAsk(t *testing.T) {
	for _, c := range []struct {
		nodes  int
		all    bool
		probed int
	}{{1, false, 1}, {3, false, 3}, {12, false, 12}, {13, false, 5}, {200, false, 5}, {40, true, 40}} {
		probed := map[string]int{}
		for _, a := range whatToAsk(checkedNodes(c.nodes), c.all) {
			for _, peer := range a.Peers {
				probed[peer]++
			}
		}
		for _, node := range checkedNodes(c.nodes) {
			if probed[node.Node.Name] != c.probed {
				t.Fatalf("of %d nodes, %s is probed by %d", c.nodes, node.Node.Name, probed[node.Node.Name])
			}
		}
	}
}

func TestChosenNodes(t *testing.T) {
	overview := &kube.Overview{Installed: true, Nodes: checkedNodes(3)}
	chosen, err := chosenNodes(overview, []string{"node02", "node00", "node02"})
	if err != nil || len(chosen) != 2 || chosen[0].Node.Name != "node00" {
		t.Errorf("%v, %v", chosen, err)
	}
	if _, err := chosenNodes(overview, []string{"nod00"}); err == nil || !strings.Contains(err.Error(), `no node "nod00"; kubectl get nodes`) {
		t.Error(err)
	}
	overview.Nodes[1].Node.Labels = model.LabelsOf(map[string]string{"kubernetes.io/os": "windows"})
	if chosen, err = chosenNodes(overview, nil); err != nil || len(chosen) != 2 || chosen[1].Node.Name != "node02" {
		t.Errorf("of those without an agent: %v, %v", chosen, err)
	}
	if _, err := chosenNodes(overview, []string{"node00", "node01"}); err == nil || !strings.Contains(err.Error(), "node01 has no agent that could be asked, as its label kubernetes.io/os=windows says") {
		t.Error(err)
	}
	if place := places(overview)[1]; !strings.Contains(place.Trouble, "it has no agent, as its label kubernetes.io/os=windows says") {
		t.Errorf("%+v", place)
	}
	overview.Nodes = overview.Nodes[1:2]
	if _, err := chosenNodes(overview, nil); err == nil || !strings.Contains(err.Error(), "no node is to have an agent: node01") {
		t.Error(err)
	}
	if _, err := chosenNodes(&kube.Overview{}, nil); err == nil || !strings.Contains(err.Error(), "has no Fairlead yet: kubectl apply") {
		t.Error(err)
	}
}

// TestCheckText: what people read.
func TestCheckText(t *testing.T) {
	result := checkOutput{
		State: probe.Failed, Seconds: 1.23, Nodes: 2, Peers: 1,
		Agentless: []agentlessOutput{{"c", "fairlead.io/agent=none", "vxlan"}, {"d", "kubernetes.io/os=windows", ""}, {"e", "fairlead.io/agent=none", "vxlan"}},
		Pairs: []probe.Pair{
			{From: "a", To: "a", RTT: 0.00004}, {From: "a", To: "b", State: probe.Failed},
			{From: "b", To: "a", State: probe.Unknown}, {From: "b", To: "b", State: probe.Warn, RTT: 0.01},
		},
		Findings: []probe.Finding{
			{State: probe.Failed, Ways: []probe.Route{{From: "a", To: "b"}}, Families: []string{"IPv6"}, What: "what", Why: "why", Next: "next"},
		},
		Problems: []problemOutput{{Object: "Node/b", Field: "chain ip filter FORWARD", Message: "it drops", Remedy: "do"}},
		Reports: []*probe.Report{{Node: "a", Results: []probe.Result{
			{Peer: "b", Path: probe.PodToPod, Family: "IPv6", Kind: probe.ICMP},
			{Peer: "b", Path: probe.PodToPod, Family: "IPv6", Kind: probe.TCP, OK: true, RTT: 0.002},
			{Peer: "b", Path: probe.PodToPod, Family: "IPv6", Kind: probe.MTU, Planned: 1450, Found: 1400},
		}}},
	}
	var text bytes.Buffer
	if err := printCheck(&text, &format{name: inWide}, result); err != nil {
		t.Fatal(err)
	}
	want := `failed: 1 of 4 ways between nodes and pods are broken (2 nodes, 1.2 s)
2 nodes have no agent, as their label fairlead.io/agent=none says; flannel serves them: c, e
1 node has no agent, as its label kubernetes.io/os=windows says: d

FROM \ TO   a         b
a           0.04 ms   FAILED
b           ?         10.00 ms !

failed: a → b (IPv6)
  what: what
  why:  why
  next: next

The nodes themselves report:

Node/b chain ip filter FORWARD
  what: it drops
  next: do

FROM   TO   PATH         FAMILY   ICMP   UDP   TCP       MTU
a      b    pod-to-pod   IPv6     lost   -     2.00 ms   1400 of 1450
`
	if text.String() != want {
		t.Errorf("it prints\n%s\nnot\n%s", text.String(), want)
	}
}
