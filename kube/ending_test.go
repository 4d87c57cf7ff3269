package kube

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

const (
	ownPodsPath = "/api/v1/namespaces/kube-system/pods"
	setsPath    = "/apis/apps/v1/namespaces/kube-system/daemonsets"
)

func stubReady(name, status string) string {
	return stubNode(name, fmt.Sprintf(`"status": {"conditions": [{"type": "Ready", "status": %q}]}`, status))
}

// stubAgent is an agent's pod that is to end at a time.
func stubAgent(node string, end time.Time) string {
	return fmt.Sprintf(`{"kind": "Pod", "apiVersion": "v1", "metadata": {"namespace": "kube-system", "name": "agent-of-%s", "deletionTimestamp": %q}, "spec": {"nodeName": %q}}`,
		node, end.UTC().Format(time.RFC3339), node)
}

// TestParkAgents: the end of agents is waited for where it can be expected.
func TestParkAgents(t *testing.T) {
	api := newStub(t)
	api.put(setsPath, `{"kind": "DaemonSet", "apiVersion": "apps/v1", "metadata": {"name": "fairlead-agent"}}`)
	now := time.Now()
	for node, status := range map[string]string{"well": "True", "dying": "True", "off": "Unknown", "stuck": "False", "slow": "False"} {
		api.put(nodesPath, stubReady(node, status))
	}
	api.put(nodesPath, stubNode("never", `"spec": {}`))
	for node, end := range map[string]time.Time{
		"well": now.Add(-time.Hour), "dying": now, "off": now, "stuck": now.Add(-time.Hour), "slow": now, "never": now, "deleted": now,
	} {
		api.put(ownPodsPath, stubAgent(node, end))
	}
	client := api.client(Options{})
	park := func(ctx context.Context) <-chan error {
		done := make(chan error, 1)
		go func() { done <- client.ParkAgents(ctx) }()
		return done
	}
	await := func(what string, done <-chan error) error {
		t.Helper()
		select {
		case err := <-done:
			return err
		case <-time.After(20 * time.Second):
			t.Fatalf("not within 20 s: %s", what)
			return nil
		}
	}

	done := park(t.Context())
	for _, step := range []func(){
		func() {},
		func() { api.put(nodesPath, stubReady("dying", "Unknown")) },
		func() { api.forget(ownPodsPath + "/agent-of-slow") }, // and no watch is told
	} {
		step()
		select {
		case err := <-done:
			t.Fatalf("it does not wait for a pod of a node that is well: %v", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
	api.remove(ownPodsPath + "/agent-of-well")
	if err := await("all that can be expected", done); err != nil {
		t.Errorf("nodes that are off, stuck or gone: %v", err)
	}

	api.put(ownPodsPath, stubAgent("well", now))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	var left *NotEndedError
	if err := await("the end of the context", park(ctx)); !errors.As(err, &left) || left.Pod != "agent-of-well" || left.Node != "well" || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one that does not end: %v", err)
	}
	if len(api.patches) != 2 || !strings.Contains(api.patches[0], parked) {
		t.Errorf("asked for %q", api.patches)
	}
}

// TestEndingOverdue: a pod of a node that is not ready gets its time, and some more.
func TestEndingOverdue(t *testing.T) {
	api := newStub(t)
	api.put(nodesPath, stubReady("slow", "False"))
	end := time.Now().Add(time.Second - overdue).Truncate(time.Second) // the API has no fractions
	api.put(ownPodsPath, stubAgent("slow", end))
	if err := api.client(Options{}).awaitEnd(t.Context(), agentLabel); err != nil {
		t.Error(err)
	}
	if early := time.Until(end.Add(overdue)); early > 0 {
		t.Errorf("%s too early", early)
	}
}
