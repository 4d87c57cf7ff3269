package kube

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// TestOverviewLeader: of the leader among the controllers there is what its lease
// says, that none ever led, or nothing if the user must not know.
func TestOverviewLeader(t *testing.T) {
	const leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
	api := newStub(t)
	api.put(nodesPath, stubNode("a", `"spec": {}`))
	client := api.client(Options{})
	leader := func() *Leader {
		t.Helper()
		overview, err := client.Overview(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return overview.Leader
	}
	if l := leader(); l == nil || *l != (Leader{}) {
		t.Errorf("without a lease: %+v", l)
	}
	api.put(leases, `{"kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "metadata": {"name": "fairlead-controller"},
		"spec": {"holderIdentity": "c1", "renewTime": "2026-01-02T03:04:05.000000Z"}}`)
	if l := leader(); l == nil || l.Identity != "c1" || !l.Renewed.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) {
		t.Errorf("with a lease: %+v", l)
	}
	names, err := client.NodeNames(t.Context())
	if err != nil || strings.Join(names, " ") != "a" {
		t.Errorf("names of nodes: %q, %v", names, err)
	}
}

// TestWriteEventAgain: an Event that tells of something good is none of the
// warnings, one that comes again is another, and its object may be of any kind.
func TestWriteEventAgain(t *testing.T) {
	api := newStub(t)
	client := api.client(Options{})
	api.put(networksPath, `{"metadata": {"name": "default", "uid": "u"}}`)
	event := Event{
		Problem:    model.Problem{Kind: "Network", Name: "default", Field: "spec.mtu", Reason: "MTUTooLargeResolved", Message: "no more"},
		APIVersion: "fairlead.io/v1alpha1", Normal: true, Again: "2026-01-02T03:04:05Z",
	}
	again := event
	again.Again = "2026-01-02T04:04:05Z"
	for _, e := range []Event{event, event, again} {
		if err := client.WriteEvent(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	api.mu.Lock()
	defer api.mu.Unlock()
	written := api.list(eventsPath)
	if len(written) != 2 {
		t.Fatalf("there are %v", written)
	}
	for _, object := range written {
		for _, want := range []string{"type:Normal", "uid:u", "apiVersion:fairlead.io/v1alpha1", "kind:Network"} {
			if text := fmt.Sprint(object); !strings.Contains(text, want) {
				t.Errorf("%s is not in %s", want, text)
			}
		}
	}
}
