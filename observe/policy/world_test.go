package policy_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/dataplane/conformance/policyworld"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/policy"
)

// apart is a random cluster whose pods have addresses of their own, as the API
// server knows them, and the same with all pods on one node, which is how the
// judge looks at both ends.
func apart(seed uint64) (known, judged *model.Snapshot, pods []*model.Pod) {
	from := policyworld.New(seed).Snapshot
	here := from
	here.Attachments = model.Map[model.AttachmentKey, *model.Attachment]{}
	taken := map[netip.Addr]bool{}
	for _, node := range from.Nodes.All() {
		for _, addr := range node.Addresses {
			taken[addr] = true
		}
	}
	for key, pod := range from.Pods.All() {
		own := *pod
		own.Addresses = policyworld.Addresses(&from, pod)
		if seed%2 == 0 { // only their ports, and addresses, tell pods of a namespace apart
			own.Labels = model.LabelsOf(map[string]string{"app": "a"})
		}
		if pod.HostNetwork || pod.Finished || slices.ContainsFunc(own.Addresses, func(addr netip.Addr) bool { return taken[addr] }) {
			own.Finished = true
		}
		from.Pods = from.Pods.With(key, &own)
		there := own
		if there.Node = policyworld.Here; own.Finished {
			there.Addresses = nil
		}
		here.Pods = here.Pods.With(key, &there)
		if own.Finished || len(own.Addresses) == 0 {
			continue
		}
		for _, addr := range own.Addresses {
			taken[addr] = true
		}
		pods = append(pods, &own)
		a := &model.Attachment{AttachmentKey: model.AttachmentKey{ContainerID: key.String()}, Pod: key, UID: pod.UID, Addresses: own.Addresses}
		here.Attachments = here.Attachments.With(a.AttachmentKey, a)
	}
	from.Attachments = model.Map[model.AttachmentKey, *model.Attachment]{}
	return &from, &here, pods
}

// asked are ports that the policies of random clusters are about, by number or by
// name.
func asked(to *model.Pod) []policy.Port {
	all := []policy.Port{{Number: 80, Protocol: model.TCP}, {Number: 53, Protocol: model.UDP}, {Protocol: 1}}
	for _, port := range to.Ports {
		all = append(all, policy.Port{Number: port.Port, Protocol: port.Protocol})
	}
	return all
}

// TestRandomWorlds: what is explained, and what a matrix has, is what the API's
// documentation says of random connections in random clusters.
func TestRandomWorlds(t *testing.T) {
	n, verdicts := uint64(150), map[string]int{}
	if testing.Short() {
		n = 30
	}
	for seed := range n {
		known, judged, pods := apart(seed)
		matrix, err := policy.MatrixOf(known, policy.MatrixQuery{})
		if err != nil {
			t.Fatal(err)
		}
		for _, from := range pods {
			for _, to := range pods {
				if from.PodKey == to.PodKey {
					continue
				}
				for _, port := range asked(to) {
					explained, err := policy.Explain(known, policy.Query{From: from.String(), To: to.String(), Port: port})
					if err != nil {
						continue // they have no addresses of the same family
					}
					for _, c := range explained.Connections {
						verdicts[c.Verdict]++
						want := judge(judged, c.Source, c.Destination, port)
						if c.Verdict != want {
							t.Fatalf("seed %d: %s to %s at %v is %s, want %s:\n%+v\n%s", seed, from, to, port, c.Verdict, want, c, policyworld.Text(judged))
						}
						if reaches(matrix, from, to, c.Destination, port) != (want == policy.Allowed) {
							t.Fatalf("seed %d: in the matrix %s to %s at %s %v is not %s:\n%+v\n%s", seed, from, to, c.Destination, port, want, matrix.Reach, policyworld.Text(judged))
						}
					}
				}
			}
		}
	}
	t.Logf("verdicts: %v", verdicts)
	if verdicts[policy.Allowed] == 0 || verdicts[policy.Denied] == 0 {
		t.Error("the clusters say little")
	}
}

func judge(s *model.Snapshot, from netip.Addr, to netip.AddrPort, port policy.Port) string {
	egress, _ := policyworld.Judge(s, policyworld.Connection{Direction: model.Egress, Pod: from, Peer: to.Addr(), Protocol: port.Protocol, Port: port.Number})
	ingress, _ := policyworld.Judge(s, policyworld.Connection{Direction: model.Ingress, Pod: to.Addr(), Peer: from, Protocol: port.Protocol, Port: port.Number})
	if egress.Allowed && ingress.Allowed {
		return policy.Allowed
	}
	return policy.Denied
}

// reaches looks a connection up in a matrix.
func reaches(m *policy.Matrix, from, to *model.Pod, at netip.AddrPort, port policy.Port) bool {
	protocol := port.Protocol.String()
	if port.Protocol == 1 {
		protocol = "ICMP"
	}
	for _, r := range m.Reach {
		if r.From != from.String() || r.To != to.String() || r.Family != "" && r.Family != model.FamilyOf(at.Addr()).String() {
			continue
		}
		if r.Some {
			panic("each pod is a workload of its own")
		}
		for _, p := range r.Ports {
			if p.Protocol == protocol && p.From <= port.Number && port.Number <= p.To {
				return true
			}
		}
	}
	return false
}

// TestRandomPreviews: what a preview says changes is what explanations before and
// after differ in.
func TestRandomPreviews(t *testing.T) {
	changes := 0
	for seed := range uint64(60) {
		known, _, pods := apart(seed)
		next := *known
		var edit policy.Edit
		for key, p := range known.Policies.All() {
			edit.Policies, edit.Delete = []*model.Policy{p}, true
			next.Policies = next.Policies.Without(key)
			break
		}
		if seed%2 == 0 { // the other way round
			known, next = &next, *known
			edit.Delete = false
		}
		preview, err := policy.PreviewOf(known, edit)
		if err != nil {
			t.Fatal(err)
		}
		changes += len(preview.Changes)
		for _, from := range pods {
			for _, to := range pods {
				for _, port := range asked(to) {
					q := policy.Query{From: from.String(), To: to.String(), Port: port}
					before, err := policy.Explain(known, q)
					if err != nil || from.PodKey == to.PodKey {
						continue
					}
					after, _ := policy.Explain(&next, q)
					for i, c := range before.Connections {
						want := ""
						if now := after.Connections[i].Verdict; now != c.Verdict {
							want = now
						}
						if got := becomes(preview, from, to, c.Destination, port); got != want {
							t.Fatalf("seed %d: %s to %s at %s %v becomes %q, want %q\n%+v\n%s", seed, from, to, c.Destination, port, got, want, preview.Changes, policyworld.Text(known))
						}
					}
				}
			}
		}
	}
	if changes == 0 {
		t.Error("nothing ever changes")
	}
}

func becomes(p *policy.Preview, from, to *model.Pod, at netip.AddrPort, port policy.Port) string {
	for _, c := range p.Changes {
		m := policy.Matrix{Reach: []policy.Reach{{From: c.From, To: c.To, Family: c.Family, Ports: c.Ports}}}
		if reaches(&m, from, to, at, port) {
			return c.Becomes
		}
	}
	return ""
}

// TestMatrix: who reaches whom in testdata/shop.yaml.
func TestMatrix(t *testing.T) {
	var b strings.Builder
	for _, q := range []policy.MatrixQuery{{Namespace: "shop"}, {}, {Port: &policy.Port{Number: 22}}, {Port: &policy.Port{Protocol: 1}}} {
		fmt.Fprintf(&b, "# namespace %q, port %v\n", q.Namespace, q.Port)
		matrix, err := policy.MatrixOf(shop(t), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range matrix.Rows() {
			b.WriteString(strings.Join(row[:], " | ") + "\n")
		}
	}
	for _, q := range []policy.MatrixQuery{{Namespace: "none"}, {Port: &policy.Port{Name: "http"}}} {
		_, err := policy.MatrixOf(shop(t), q)
		fmt.Fprintf(&b, "untold: %v\n", err)
	}
	golden(t, "matrix.txt", b.String())
}

// TestShow: the rules of pods of testdata/shop.yaml.
func TestShow(t *testing.T) {
	var b strings.Builder
	for _, name := range []string{"db-0", "front-7d9c5b4f6-aaaaa", "monitoring/agent", "10.244.1.3", "node/node1"} {
		fmt.Fprintf(&b, "# %s\n", name)
		shown, err := policy.Show(shop(t), name, "shop")
		if err != nil {
			fmt.Fprintf(&b, "untold: %v\n", err)
			continue
		}
		if err := shown.Text(&b); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "show.txt", b.String())
}
