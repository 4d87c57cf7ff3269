package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-net/fairlead/dataplane/nftables"
	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/service"
)

// plane is Fairlead's data plane, which serves the node of a world.
type plane struct {
	world    *world
	config   config
	tables   *nftables.Plane
	snapshot *model.Snapshot // nil at first
	node     *plan.Node
	oracle   *plan.Node // the same, but that the world has routes of its own
}

func newPlane(w *world, c config) *plane {
	return &plane{world: w, config: c, tables: nftables.New()}
}

// nodes are those of the cluster, this one first.
func nodes() (all []*corev1.Node) {
	for number, name := range []string{self, "far1", "far2"} {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
			Name: name, UID: "uid-of-node", Labels: map[string]string{corev1.LabelTopologyZone: []string{"z1", "z1", "z2"}[number], corev1.LabelHostname: name},
		}}
		for family, bits := range []int{24, 64} {
			prefix, _ := podAt(number, 0)[family].Prefix(bits)
			node.Spec.PodCIDRs = append(node.Spec.PodCIDRs, prefix.String())
			node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: nodeAt(number)[family].String()})
		}
		node.Spec.PodCIDR = node.Spec.PodCIDRs[0]
		all = append(all, node)
	}
	return all
}

func serviceCIDR() *networkingv1.ServiceCIDR {
	return &networkingv1.ServiceCIDR{
		ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"},
		Spec:       networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.96.0.0/16", "fd96::/112"}},
	}
}

// follow carries out what the objects say, as an agent would: it is the same
// Plane each time, and what did not change is the same in the snapshot.
func (p *plane) follow(ctx context.Context, objects []metav1.Object) error {
	if err := p.plan(objects); err != nil {
		return err
	}
	return p.world.spaces[atNode].do(func() error {
		problems, err := p.tables.Apply(ctx, p.node)
		if err == nil && len(problems) > 0 {
			err = fmt.Errorf("the kernel took not all: %v", problems)
		}
		return err
	})
}

// plan computes what follow carries out.
func (p *plane) plan(objects []metav1.Object) error {
	cluster := []metav1.Object{serviceCIDR()}
	for _, node := range nodes() {
		cluster = append(cluster, node)
	}
	next, err := read(append(cluster, objects...))
	if err != nil {
		return err
	}
	network := *model.DefaultNetwork()
	network.Masquerade.On = [2]bool{} // by whom pods are seen outside is not about Services
	network.Services.MasqueradeAll = p.config.masqueradeAll
	for _, text := range p.config.nodePortAddresses {
		network.Services.NodePortAddresses = append(network.Services.NodePortAddresses, netip.MustParsePrefix(text))
	}
	next.Network = &network
	next.Links = model.MapOf(map[string]*model.Link{uplink: {Name: uplink, MTU: 1500, Addresses: nodeNetworks()}})
	for pod := range localPods {
		key, name := model.AttachmentKey{ContainerID: podDevice(pod), Interface: "eth0"}, model.PodKey{Namespace: "differ", Name: podDevice(pod)}
		addr := podAt(0, pod)
		next.Attachments = next.Attachments.With(key, &model.Attachment{
			AttachmentKey: key, Pod: name, Device: podDevice(pod), MAC: model.MAC(hardware(byte(pod), 1)), Addresses: addr[:],
		})
		next.Pods = next.Pods.With(name, &model.Pod{PodKey: name, Node: self, Addresses: addr[:]}) // else policies know nothing of it, and isolate it
	}
	if p.snapshot != nil {
		kept := *p.snapshot
		kept.Revision++
		kept.Services = adopt(kept.Services, next.Services)
		kept.Slices = adopt(kept.Slices, next.Slices)
		next = &kept
	}
	p.snapshot, p.node = next, plan.Compute(p.node, next, self)
	oracle := *p.node
	oracle.Route = nil
	p.oracle = &oracle
	return nil
}

// read converts objects as kubectl get prints them.
func read(objects []metav1.Object) (*model.Snapshot, error) {
	var documents bytes.Buffer
	for _, object := range objects {
		content, err := json.Marshal(typed(object))
		if err != nil {
			return nil, fmt.Errorf("write %s: %w", object.GetName(), err)
		}
		fmt.Fprintf(&documents, "---\n%s\n", content)
	}
	return kube.ReadSnapshot(&documents)
}

// adopt makes the second map of the first one, of which it keeps what is equal.
func adopt[K comparable, V interface {
	comparable
	Equal(V) bool
}](old, new model.Map[K, V]) model.Map[K, V] {
	result := old
	for key := range old.All() {
		if _, stays := new.Get(key); !stays {
			result = result.Without(key)
		}
	}
	for key, value := range new.All() {
		if before, ok := old.Get(key); !ok || !before.Equal(value) {
			result = result.With(key, value)
		}
	}
	return result
}

// expect is what the oracle says that a client may meet, each as likely as the
// others.
func (p *plane) expect(c call) (all []answer) {
	family := model.FamilyOf(c.to.Addr())
	packet := plan.Packet{
		Device: c.client.device, MAC: c.client.mac, Source: c.client.source[family],
		Destination: c.to.Addr(), Port: c.to.Port(), Protocol: c.protocol, Local: isNode(c.to.Addr()),
	}
	hop, choices := plan.Verdict(p.oracle, packet), plan.Choices(p.oracle, packet)
	switch {
	case hop.Spoofed:
		return []answer{{other: "spoofed"}}
	case hop.Dropped:
		return []answer{{}}
	case !hop.Reachable:
		return []answer{{refused: true}}
	case len(choices) == 0:
		return []answer{{refused: packet.Local}} // no server has that port; elsewhere, nobody has that address
	}
	for _, packet.Backend = range choices {
		hop := plan.Verdict(p.oracle, packet)
		seen := packet.Source
		if hop.Masquerade {
			seen = nodeAt(0)[family]
		}
		all = append(all, answer{server: packet.Backend, seen: seen})
	}
	return all
}

// sticky tells what a client stays at: one pool of a port. Where the policies of
// two addresses differ, he may stay with an endpoint at each.
func (p *plane) sticky(c call) stay {
	frontend, answer := p.serve(c)
	if frontend == nil || frontend.Sticky == 0 || answer.Do != service.Forward {
		return stay{}
	}
	return stay{c.client.name, frontend.Pool(answer)}
}

// forgetStays leaves out who need not stay any more, because his endpoint has
// gone.
func (p *plane) forgetStays(stays map[stay]stayed) {
	for key, last := range stays {
		backends, ok := p.node.Service.Backends.Get(key.pool)
		if !ok || backends.Sticky == 0 || !slices.Contains(backends.Targets, last.server) {
			delete(stays, key)
		}
	}
}

// serve is what Services make of a call; a frontend is nil if it is none's.
func (p *plane) serve(c call) (*service.Frontend, service.Answer) {
	return plan.Served(p.oracle, plan.Packet{
		Source: c.client.source[model.FamilyOf(c.to.Addr())], Destination: c.to.Addr(), Port: c.to.Port(), Protocol: c.protocol,
	})
}

// contested tells whether several Services claim what is called.
func (p *plane) contested(c call) bool {
	claimed := fmt.Sprintf("%s %s is that of", c.protocol, c.to)
	return slices.ContainsFunc(p.node.Problems, func(problem model.Problem) bool {
		return problem.Reason == "AddressTaken" && strings.HasPrefix(problem.Message, claimed)
	})
}
