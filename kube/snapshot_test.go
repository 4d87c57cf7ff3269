package kube

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

const snapshotFile = `# What kubectl prints, and what a node knows of itself.
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Node
  metadata: {name: a, uid: uid-a, labels: {topology.kubernetes.io/zone: z1}, annotations: {flannel.alpha.coreos.com/kube-subnet-manager: "true", flannel.alpha.coreos.com/backend-type: vxlan}}
  spec: {podCIDRs: [10.244.0.0/24, "fd00::/64"], taints: [{key: ToBeDeletedByClusterAutoscaler, effect: NoSchedule}]}
  status: {addresses: [{type: InternalIP, address: 172.30.0.1}]}
- apiVersion: v1
  kind: Pod
  metadata: {namespace: default, name: web, uid: uid-web, labels: {app: web, "example.org/tier": front}}
  spec: {nodeName: a, containers: [{ports: [{name: http, containerPort: 80}, {name: 'odd "\ é', protocol: UDP, containerPort: 53}]}]}
  status: {phase: Running, podIPs: [{ip: 10.244.0.2}]}
---
apiVersion: v1
kind: Pod
metadata: {namespace: default, name: job}
spec: {nodeName: a, hostNetwork: true}
status: {phase: Failed}
---
apiVersion: fairlead.io/v1alpha1
kind: Network
metadata: {name: default}
spec:
  {mtu: 1400, directRouting: false, backend: udp, udp: {port: 99},
   masquerade: {ipv6: false, exclude: [198.51.100.0/24], from: [192.0.2.0/24]}, cni: {plugins: [{type: bandwidth}]},
   services: {nodePortAddresses: [192.0.2.0/24, "::/0"], localhostNodePorts: true, masqueradeAll: true}, policy: {established: cut}}
---
apiVersion: fairlead.io/v1alpha1
kind: NodeState
former: {backend: ipip}
firewalls: {drops: [{family: inet, table: mine, chain: f}], passes: [{chain: {family: inet, table: mine, chain: f}, of: to, pods: 10.0.0.0/8}]}
links:
- {name: eth0, mtu: 1500, addresses: [172.30.0.1/24], acceptsRA: true}
attachments:
- {containerID: c1, interface: eth0, namespace: default, pod: web, uid: 0b9a3c1e-7f64-4c8e-9d0c-000000000001, device: fl1, mac: "02:00:00:00:00:01",
   addresses: [10.244.0.2], hostPorts: [{protocol: UDP, hostIP: 192.0.2.1, hostPort: 53, podPort: 1053}]}
`

func TestSnapshotRoundTrip(t *testing.T) {
	first, err := ReadSnapshot(strings.NewReader(snapshotFile))
	if err != nil {
		t.Fatal(err)
	}
	web, _ := first.Pods.Get(model.PodKey{Namespace: "default", Name: "web"})
	job, _ := first.Pods.Get(model.PodKey{Namespace: "default", Name: "job"})
	node, _ := first.Nodes.Get("a")
	link, _ := first.Links.Get("eth0")
	attachment, _ := first.Attachments.Get(model.AttachmentKey{ContainerID: "c1", Interface: "eth0"})
	switch {
	case web == nil || len(web.Addresses) != 1 || web.Finished:
		t.Errorf("pod web: %+v", web)
	case job == nil || !job.HostNetwork || !job.Finished:
		t.Errorf("pod job: %+v", job)
	case node == nil || node.Zone != "z1" || len(node.PodCIDRs) != 2 || node.Flannel != "vxlan":
		t.Errorf("node: %+v", node)
	case link == nil || !link.AcceptsRA || link.MTU != 1500:
		t.Errorf("link: %+v", link)
	case attachment == nil || attachment.Pod != web.PodKey || attachment.UID.String() != "0b9a3c1e-7f64-4c8e-9d0c-000000000001" || attachment.MAC[5] != 1 ||
		len(attachment.HostPorts) != 1 || attachment.HostPorts[0].String() != "192.0.2.1:53/UDP":
		t.Errorf("attachment: %+v", attachment)
	case first.Former == nil || first.Former.Backend != model.BackendIPIP:
		t.Errorf("former routing: %+v", first.Former)
	case first.Firewalls == nil || len(first.Firewalls.Drops) != 1 || len(first.Firewalls.Passes) != 1 || first.Firewalls.Passes[0].String() != "inet mine f: to 10.0.0.0/8":
		t.Errorf("firewalls: %+v", first.Firewalls)
	case first.Network.MTU != 1400 || first.Network.DirectRouting || first.Network.UDPPort != 99 || len(first.Network.Plugins) != 1 ||
		first.Network.Masquerade.On != [...]bool{model.IPv4: true, model.IPv6: false} ||
		len(first.Network.Masquerade.Exclude) != 1 || len(first.Network.Masquerade.From) != 1 ||
		len(first.Network.Services.NodePortAddresses) != 2 || !first.Network.Services.LocalhostNodePorts || !first.Network.Services.MasqueradeAll || !first.Network.Policy.CutEstablished:
		t.Errorf("network: %+v", first.Network)
	}

	var once, twice bytes.Buffer
	if err := WriteSnapshot(&once, first); err != nil {
		t.Fatal(err)
	}
	second, err := ReadSnapshot(bytes.NewReader(once.Bytes()))
	if err != nil {
		t.Fatalf("%v in\n%s", err, once.String())
	}
	if err := WriteSnapshot(&twice, second); err != nil {
		t.Fatal(err)
	}
	if once.String() != twice.String() {
		t.Errorf("written and read again, it is\n%s\nand was\n%s", twice.String(), once.String())
	}
	var lines, thrice bytes.Buffer
	if err := WriteSnapshotJSON(&lines, first); err != nil {
		t.Fatal(err)
	}
	third, err := ReadSnapshot(bytes.NewReader(lines.Bytes()))
	if err != nil {
		t.Fatalf("%v in\n%s", err, lines.String())
	}
	if err := WriteSnapshot(&thrice, third); err != nil {
		t.Fatal(err)
	}
	if once.String() != thrice.String() {
		t.Errorf("written as JSON and read again, it is\n%s\nand was\n%s", thrice.String(), once.String())
	}
	if again, _ := second.Nodes.Get("a"); again == nil || !again.Equal(node) || !again.Leaving {
		t.Errorf("node: %+v, was %+v", again, node)
	}
	for key, pod := range first.Pods.All() {
		if again, _ := second.Pods.Get(key); again == nil || !again.Equal(pod) {
			t.Errorf("pod %s: %+v, was %+v", key, again, pod)
		}
	}
}

func TestSnapshotMistakes(t *testing.T) {
	for name, test := range map[string]struct {
		file string
		want []string
	}{
		"another kind":  {"apiVersion: v1\nkind: Secret\nmetadata: {namespace: ns, name: s}", []string{"document 1", "Secret ns/s"}},
		"no kind":       {"a: b", []string{"document 1", "kind"}},
		"a CIDR":        {"---\napiVersion: v1\nkind: Node\nmetadata: {name: a}\nspec: {podCIDRs: [x]}", []string{"document 1", "Node a", "spec.podCIDRs", `"x"`}},
		"a type":        {"apiVersion: v1\nkind: Node\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Node\nmetadata: {name: b}\nspec: {podCIDRs: 7}", []string{"document 2", "Node b", "podCIDRs"}},
		"a Network":     {"apiVersion: fairlead.io/v1alpha1\nkind: Network\nmetadata: {name: default}\nspec: {mtu: 3}", []string{"Network default", "spec.mtu", "576"}},
		"a policy":      {"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {namespace: ns, name: p}\nspec: {ingress: [{ports: [{endPort: 7}]}]}", []string{"NetworkPolicy ns/p", "spec.ingress[0].ports[0]", "endPort 7"}},
		"an option":     {"apiVersion: fairlead.io/v1alpha1\nkind: Network\nmetadata: {name: default}\nspec: {policy: {established: x}}", []string{"Network default", "spec.policy.established", "keep nor cut"}},
		"an item":       {"kind: List\napiVersion: v1\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {namespace: ns, name: p}, status: {podIPs: [{ip: x}]}}", []string{"item 1", "Pod ns/p", "status.podIPs"}},
		"a node's word": {"apiVersion: fairlead.io/v1alpha1\nkind: NodeState\nlinks: [{nam: eth0}]", []string{"NodeState", "nam"}},
		"not YAML":      {"a: b: c", []string{"document 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadSnapshot(strings.NewReader(test.file))
			if err == nil {
				t.Fatal("it was read")
			}
			for _, part := range test.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q is not in the error: %v", part, err)
				}
			}
		})
	}
}

// counter counts what is allocated until the first write.
type counter struct{ first, before uint64 }

func (c *counter) Write(text []byte) (int, error) {
	if c.first == 0 {
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		c.first = stats.Mallocs - c.before
	}
	return len(text), nil
}

// TestSnapshotIsWrittenAsItGoes: the documents of a large cluster are never all in
// memory.
func TestSnapshotIsWrittenAsItGoes(t *testing.T) {
	const pods = 5000
	snapshot := &model.Snapshot{Network: model.DefaultNetwork()}
	for i := range pods {
		pod := &model.Pod{PodKey: model.PodKey{Namespace: "default", Name: fmt.Sprint("pod-", i)}}
		snapshot.Pods = snapshot.Pods.With(pod.PodKey, pod)
	}
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	c := &counter{before: stats.Mallocs}
	if err := WriteSnapshot(c, snapshot); err != nil {
		t.Fatal(err)
	}
	if c.first > pods {
		t.Errorf("%d allocations before the first byte, for %d pods", c.first, pods)
	}
}
