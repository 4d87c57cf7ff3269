package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/preflight"
)

// TestPreflightStopped: that there was no time to look at a node says nothing of it. What
// was seen is told, and that the rest was not.
func TestPreflightStopped(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	nodes := []kube.NodeSurvey{{Node: &model.Node{Name: "off"}, Silent: true}, {Node: &model.Node{Name: "none"}, NoAgent: true}}
	for i := range nodesAtOnce + 4 {
		nodes = append(nodes, kube.NodeSurvey{Node: &model.Node{Name: fmt.Sprintf("n%02d", i)}})
	}
	var mu sync.Mutex // guards seen
	var seen []string
	found := &preflightOutput{Nodes: map[string][]preflight.Finding{}}
	lookAtNodes(ctx, nodes, found, func(node string) ([]preflight.Finding, error) {
		mu.Lock()
		if seen = append(seen, node); len(seen) == nodesAtOnce {
			stop()
		}
		mu.Unlock()
		<-ctx.Done()
		if node == "n00" {
			return []preflight.Finding{{Check: "kernel", Level: preflight.OK, What: "6.12"}}, nil
		}
		return nil, errors.New("the pod is Pending")
	})
	if len(seen) != nodesAtOnce || slices.Contains(seen, "off") || len(found.Nodes) != 1 {
		t.Fatalf("looked at %q, found %v", seen, found.Nodes)
	}
	var out bytes.Buffer
	o := &preflightOptions{output: format{name: inText}}
	if err := o.print(&out, found); !errors.Is(err, exitUnknown) {
		t.Errorf("it ends with %v", err)
	}
	for _, want := range []string{"24 of 25 nodes not looked at\n", "off: not begun in time\n", ": the pod is Pending\n", "--timeout", "ok    kernel"} {
		if !strings.Contains(out.String(), want) || strings.Contains(out.String(), "fail") {
			t.Errorf("%q is not in, or a node fails, in\n%s", want, out.String())
		}
	}
	found.Level = preflight.Fail
	if err := o.print(&out, found); !errors.Is(err, exitUnhealthy) {
		t.Errorf("something fails, and it ends with %v", err)
	}
}

// TestPreflightNode: a node at which nothing can run fails.
func TestPreflightNode(t *testing.T) {
	found := &preflightOutput{Nodes: map[string][]preflight.Finding{}}
	lookAtNodes(t.Context(), []kube.NodeSurvey{{Node: &model.Node{Name: "a"}}}, found, func(string) ([]preflight.Finding, error) {
		return nil, errors.New("quota")
	})
	if of := found.Nodes["a"]; len(of) != 1 || of[0].Level != preflight.Fail || of[0].What != "quota" || len(found.NotLookedAt) != 0 {
		t.Errorf("found %+v", found)
	}
}

// TestPreflightForbidden: that the user may make no pods says nothing of the nodes, but
// that nobody may make such pods does.
func TestPreflightForbidden(t *testing.T) {
	for text, lacks := range map[string]bool{
		`User "bob" cannot create resource "pods" in API group "" in the namespace "kube-system"`: true,
		`violates PodSecurity "restricted:latest": privileged`:                                    false,
	} {
		found := &preflightOutput{Nodes: map[string][]preflight.Finding{}}
		lookAtNodes(t.Context(), []kube.NodeSurvey{{Node: &model.Node{Name: "a"}}}, found, func(string) ([]preflight.Finding, error) {
			return nil, apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", errors.New(text))
		})
		if (len(found.Nodes) == 0) != lacks || (found.NotLookedAt["a"] == text) != lacks || (found.Next == "have yourself allowed to create pods in namespace kube-system") != lacks {
			t.Errorf("%s: found %+v", text, found)
		}
	}
}
