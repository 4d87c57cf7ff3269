package trace

import (
	"net/netip"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// TestDeniedByPolicy: a connection that a policy forbids ends on the node whose
// pod it is, and the rule is named.
func TestDeniedByPolicy(t *testing.T) {
	pod := &model.Pod{PodKey: model.PodKey{Namespace: "web", Name: "front"}, Node: "a"}
	here := &model.Attachment{AttachmentKey: model.AttachmentKey{ContainerID: "1"}, Pod: pod.PodKey, Device: "fl1", Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.5")}}
	policy := &model.Policy{PolicyKey: model.PolicyKey{Namespace: "web", Name: "none"}, Isolates: [2]bool{model.Ingress: true}}
	snapshot := &model.Snapshot{PoliciesKnown: true}
	snapshot.Pods = snapshot.Pods.With(pod.PodKey, pod)
	snapshot.Attachments = snapshot.Attachments.With(here.AttachmentKey, here)
	snapshot.Policies = snapshot.Policies.With(policy.PolicyKey, policy)
	question := Question{From: netip.MustParseAddr("10.244.2.5"), To: here.Addresses[0], Protocol: model.TCP, Port: 80}

	expected := Expect(snapshot, "a", question, model.MAC{})
	want := Denied{"web/front", "ingress", "NetworkPolicy web/none: no rule allows it", "see what would allow it: fairlead policy explain --from 10.244.2.5 --to 10.244.1.5 --port 80/tcp"}
	if expected.Denied == nil || *expected.Denied != want || expected.Refused {
		t.Fatalf("expected %+v", expected.Denied)
	}
	v := &visit{walk: &walk{path: &Path{}}, place: &Place{Node: &model.Node{Name: "a"}}, q: question, plan: expected}
	if v.allowed() || v.path.Lines[0].Findings[0].Effect != Breaks {
		t.Errorf("the packet goes on: %+v", v.path)
	}
	question.Reply = true
	if expected := Expect(snapshot, "a", question, model.MAC{}); expected.Denied != nil {
		t.Errorf("a reply is judged: %+v", expected.Denied)
	}
}
