package cli

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
)

// TestUninstallNodes: what is off or fails keeps no other node from being done, and is
// told with what to do.
func TestUninstallNodes(t *testing.T) {
	node := func(name string) kube.NodeOverview {
		return kube.NodeOverview{Node: &model.Node{Name: name}, Ready: true, Report: &v1alpha1.NodeNetwork{}}
	}
	well, off, early, broken, bare := node("well"), node("off"), node("early"), node("broken"), node("bare")
	off.Ready, off.Silent = false, true
	early.Ready = false // its pods' network is gone already, and its kubelet is there
	bare.Report = nil
	done := kube.NodeRun{Output: "removed all"}
	left := kube.NodeRun{Code: 3, Output: "no more pods are connected\n1 pods still run on this node"}
	refused := kube.NodeRun{Code: 1, Output: "fairlead uninstall: no space\n  next: mend that"}
	for name, test := range map[string]struct {
		nodes []kube.NodeOverview
		ran   map[string]any // a NodeRun or an error; done without
		code  exitCode       // that is returned; 0: an error, or none
		next  string         // of the error; empty: there is none
		says  []string       // lines that are said, or in the error
	}{
		"all":       {nodes: []kube.NodeOverview{early, well, bare}, says: []string{"node well is as it was", "node early is as it was"}},
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
			nodes: []kube.NodeOverview{broken, well, early}, ran: map[string]any{"broken": refused, "early": context.DeadlineExceeded},
			next: "mend these nodes, or delete their Node objects, and run it again. ",
			says: []string{"node well is as it was", "node broken: fairlead uninstall: no space", "deadline exceeded"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var said, ran []string
			var mu sync.Mutex // guards ran
			say := func(step string) { said = append(said, step) }
			err := uninstallNodes(test.nodes, say, func(node string) (kube.NodeRun, error) {
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
