package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
)

func reportedNode(name string) kube.NodeOverview {
	return kube.NodeOverview{Node: &model.Node{Name: name}, Ready: true, Report: &v1alpha1.NodeNetwork{}}
}

// TestUninstallNodes: what is off or fails keeps no other node from being done, and is
// told with what to do.
func TestUninstallNodes(t *testing.T) {
	node := reportedNode
	well, off, early, broken, bare := node("well"), node("off"), node("early"), node("broken"), node("bare")
	off.Ready, off.Silent = false, true
	early.Ready = false // its pods' network is gone already, and its kubelet is there
	bare.Report = nil
	done := kube.NodeRun{Output: "removed all"}
	left := kube.NodeRun{Code: 3, Output: "no more pods are connected\n1 pods still run on this node"}
	refused := kube.NodeRun{Code: 1, Output: "fairlead uninstall: no space\n  next: mend that"}
	labelled := node("labelled")
	labelled.Report, labelled.Node.Labels = nil, model.LabelsOf(map[string]string{"fairlead.io/agent": "none"})
	for name, test := range map[string]struct {
		nodes []kube.NodeOverview
		ran   map[string]any // a NodeRun or an error; done without
		code  exitCode       // that is returned; 0: an error, or none
		next  string         // of the error; empty: there is none
		says  []string       // lines that are said, or in the error
	}{
		"all": {
			nodes: []kube.NodeOverview{early, well, bare, labelled},
			says:  []string{"node well is as it was", "node early is as it was", "nothing was done on nodes from which no agent has reported: bare. If one has run there"},
		},
		"pods left": {nodes: []kube.NodeOverview{well, early}, ran: map[string]any{"well": left}, code: exitPodsLeft, says: []string{"node well: 1 pods still run on this node", "node early is as it was", "Fairlead's objects stay"}},
		"one is off": {
			nodes: []kube.NodeOverview{off, well}, next: "kubectl delete node off, and run it again. Fairlead's objects stay until then",
			says: []string{"node well is as it was", "nothing was done on nodes that are off, or cut off (their kubelets have said nothing for a while): off"},
		},
		"one is off, and pods are left": {
			nodes: []kube.NodeOverview{off, well}, ran: map[string]any{"well": left}, next: "bring what is off back and run it again",
			says: []string{"node well: 1 pods still run", "Fairlead's objects stay until no pods are left", "cut off (their kubelets"},
		},
		"one fails": {
			nodes: []kube.NodeOverview{broken, well, early}, ran: map[string]any{"broken": refused, "early": errors.New("quota")},
			next: "mend these nodes and run it again; one that will not come back: kubectl delete node NODE. ",
			says: []string{"node well is as it was", "node broken: fairlead uninstall: no space", "quota"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var said, ran []string
			var mu sync.Mutex // guards ran
			say := func(step string) { said = append(said, step) }
			err := uninstallNodes(t.Context(), test.nodes, say, func(node string) (kube.NodeRun, error) {
				mu.Lock()
				defer mu.Unlock()
				ran = append(ran, node)
				switch what := test.ran[node].(type) {
				case kube.NodeRun:
					return what, nil
				case error:
					return kube.NodeRun{}, what
				}
				return done, nil
			}).verdict(say)
			if slices.Contains(ran, "off") || slices.Contains(ran, "bare") || !slices.Contains(ran, "well") {
				t.Errorf("ran on %q", ran)
			}
			var code exitCode
			var why *undone
			switch {
			case errors.As(err, &why) != (test.next != ""), errors.As(err, &code) != (test.code != 0), code != test.code, err == nil != (test.next == "" && test.code == 0):
				t.Errorf("got %v", err)
			case why != nil && !strings.Contains(why.next, test.next):
				t.Errorf("next: %s", why.next)
			case why != nil:
				said = append(said, why.Error())
			}
			for _, want := range test.says {
				if text := strings.Join(said, "\n"); !strings.Contains(text, want) || strings.Contains(text, "next: mend that") {
					t.Errorf("%q is not in, or too much is in\n%s", want, text)
				}
			}
		})
	}
}

// TestUninstallStopped: when the time is over, or the user stops it, no further node is
// begun, and nobody is told to delete Node objects: the nodes would be forgotten.
func TestUninstallStopped(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	var nodes []kube.NodeOverview
	for i := range 3 * nodesAtOnce {
		nodes = append(nodes, reportedNode(fmt.Sprintf("n%02d", i)))
	}
	var mu sync.Mutex // guards begun
	var begun []string
	done := uninstallNodes(ctx, nodes, func(string) {}, func(node string) (kube.NodeRun, error) {
		mu.Lock()
		begun = append(begun, node)
		if len(begun) == nodesAtOnce {
			stop()
		}
		mu.Unlock()
		<-ctx.Done()
		return kube.NodeRun{}, fmt.Errorf("run on node %s: the pod is Running: %w", node, ctx.Err())
	})
	if len(begun) != nodesAtOnce || !done.again() {
		t.Errorf("began %q; again: %v", begun, done.again())
	}
	err := done.verdict(func(string) {})
	var why *undone
	if !errors.As(err, &why) || strings.Contains(why.next, "delete") || !strings.HasPrefix(why.next, "run it again, with a longer --timeout") {
		t.Fatalf("got %v, next: %+v", err, why)
	}
	for _, node := range nodes {
		reached := slices.Contains(begun, node.Node.Name)
		_, late, _ := strings.Cut(err.Error(), "not reached in time: ")
		if strings.Contains(late, node.Node.Name) == reached || strings.Contains(err.Error(), "run on node "+node.Node.Name+": the pod is Running") != reached {
			t.Errorf("%s, reached: %v, is not told so:\n%v", node.Node.Name, reached, err)
		}
	}
}

// TestUninstallUnvisited: without the DaemonSet of the agents, nodes that have had one keep
// Fairlead's objects, which are all that tells of them.
func TestUninstallUnvisited(t *testing.T) {
	bare := reportedNode("bare")
	bare.Report = nil
	if err := unvisited([]kube.NodeOverview{bare}); err != nil {
		t.Errorf("no agent has reported, got %v", err)
	}
	var why *undone
	err := unvisited([]kube.NodeOverview{reportedNode("a"), bare, reportedNode("b")})
	if !errors.As(err, &why) || !strings.HasSuffix(err.Error(), ": a b") || !strings.Contains(why.next, "fairlead uninstall --node") {
		t.Errorf("got %v, next: %+v", err, why)
	}
}
