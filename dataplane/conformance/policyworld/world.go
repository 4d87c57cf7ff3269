// Package policyworld makes random clusters with policies, and judges their
// connections slowly, as the API's documentation reads. Plans and data planes
// are compared with it. It is for tests only, and no two goroutines may share a
// World.
package policyworld

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
)

// Here is the node whose pods are judged.
const Here = "n1"

// World is a cluster that is made of a seed, as that node sees it.
type World struct {
	*rand.Rand
	model.Snapshot
	made int // objects, for their names
}

// New makes the world of a seed.
func New(seed uint64) *World {
	w := &World{Rand: rand.New(rand.NewPCG(seed, 6))}
	w.PoliciesKnown = true
	w.Network = model.DefaultNetwork()
	w.Network.DNS.Service = nameservice
	for _, name := range names[:1+w.IntN(len(names))] {
		if !w.rarely() {
			w.addNamespace(name)
		}
	}
	for n := range 3 {
		node := &model.Node{Name: fmt.Sprintf("n%d", n+1), Labels: w.labels(), Addresses: []netip.Addr{nodeAddress(n, model.IPv4), nodeAddress(n, model.IPv6)}}
		w.Nodes = w.Nodes.With(node.Name, node)
	}
	for range 2 + w.IntN(9) {
		w.addPod()
	}
	for range w.IntN(6) {
		w.addPolicy()
	}
	for range w.IntN(8) / 2 {
		w.addClusterPolicy()
	}
	if !w.sometimes() {
		w.addNameserver()
	}
	for range w.IntN(6) {
		w.resolve()
	}
	return w
}

// The words of a world are few, so that they meet.
var (
	names      = []string{"red", "green", "blue"}
	keys       = []string{"app", "tier", "all"}
	values     = []string{"a", "b", "c"}
	portNames  = []string{"http", "dns"}
	protocols  = []model.Protocol{model.TCP, model.UDP, model.SCTP}
	ports      = []uint16{0, 1, 53, 79, 80, 81, 443, 8080, 8081, 65534, 65535}
	strangers  = addresses("192.0.2.1", "192.0.2.5", "192.0.2.200", "203.0.113.9", "2001:db8::1", "2001:db8::f:1")
	blocks     = prefixes("0.0.0.0/0", "10.0.0.0/8", "10.0.1.0/24", "10.0.2.0/30", "192.0.2.0/24", "192.0.2.0/29", "192.0.2.5/32", "::/0", "fd00::/16", "fd00:1::/32", "2001:db8::/32", "2001:db8::1/128")
	exceptions = prefixes("10.0.1.0/24", "10.0.1.2/32", "10.0.2.0/30", "192.0.2.0/29", "192.0.2.0/25", "192.0.2.5/32", "128.0.0.0/1", "fd00:1::/32", "fd00:1::2/128", "2001:db8::1/128")
)

func addresses(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func pick[T any](w *World, from []T) T { return from[w.IntN(len(from))] }

func (w *World) rarely() bool    { return w.IntN(12) == 0 }
func (w *World) sometimes() bool { return w.IntN(3) == 0 }

func (w *World) name() string {
	w.made++
	return fmt.Sprintf("o%d", w.made)
}

func nodeAddress(node int, family model.Family) netip.Addr {
	if family == model.IPv4 {
		return netip.AddrFrom4([4]byte{10, 1, 0, byte(node + 1)})
	}
	return netip.MustParseAddr(fmt.Sprintf("fd01::%d", node+1))
}

// podAddress is one of few, so that pods meet at one.
func podAddress(node, number int, family model.Family) netip.Addr {
	if family == model.IPv4 {
		return netip.AddrFrom4([4]byte{10, 0, byte(node + 1), byte(number + 1)})
	}
	return netip.MustParseAddr(fmt.Sprintf("fd00:%d::%d", node+1, number+1))
}

const podNumbers = 7

func (w *World) labels() model.Labels {
	all := map[string]string{}
	for _, key := range keys {
		if w.IntN(2) == 0 {
			all[key] = pick(w, values)
		}
	}
	return model.LabelsOf(all)
}

func (w *World) addNamespace(name string) {
	all := map[string]string{metadataName: name}
	for key, value := range w.labels().All() {
		all[key] = value
	}
	w.Namespaces = w.Namespaces.With(name, &model.Namespace{Name: name, Labels: model.LabelsOf(all)})
}

// addPod adds one anywhere, known or not, ended or not.
func (w *World) addPod() {
	node, number := w.IntN(3), w.IntN(podNumbers)
	if w.sometimes() {
		node = 0
	}
	pod := &model.Pod{PodKey: model.PodKey{Namespace: pick(w, names), Name: w.name()}, Node: fmt.Sprintf("n%d", node+1), Labels: w.labels()}
	pod.UID = model.UIDOf(pod.Name)
	pod.Finished, pod.HostNetwork = w.rarely(), w.rarely()
	for range w.IntN(3) {
		pod.Ports = append(pod.Ports, model.ContainerPort{Name: pick(w, portNames), Protocol: pick(w, protocols), Port: pick(w, ports[1:])})
	}
	var all []netip.Addr
	for _, family := range model.Families {
		switch {
		case pod.HostNetwork:
			pod.Addresses = append(pod.Addresses, nodeAddress(node, family))
		case !w.rarely():
			all = append(all, podAddress(node, number, family))
		}
	}
	if node > 0 || !w.sometimes() {
		pod.Addresses = append(pod.Addresses, all...)
	}
	if node == 0 && !pod.HostNetwork && !w.rarely() {
		w.attach(pod, all)
	}
	if node > 0 || !w.rarely() {
		w.Pods = w.Pods.With(pod.PodKey, pod)
	}
}

func (w *World) attach(pod *model.Pod, all []netip.Addr) {
	a := &model.Attachment{AttachmentKey: model.AttachmentKey{ContainerID: w.name(), Interface: "eth0"}, Pod: pod.PodKey, UID: pod.UID, Addresses: all}
	a.Device = "fl" + a.ContainerID
	switch w.IntN(16) {
	case 0:
		a.Pod, a.UID = model.PodKey{}, model.UID{}
	case 1:
		a.UID = model.UID{}
	case 2:
		a.UID = model.UIDOf("before")
	}
	w.Attachments = w.Attachments.With(a.AttachmentKey, a)
}

// Everyone is each address that means something here: of pods, nodes and
// strangers.
func (w *World) Everyone() (all []netip.Addr) {
	all = append(all, strangers...)
	for _, node := range w.Nodes.All() {
		all = append(all, node.Addresses...)
	}
	if s, ok := w.Services.Get(nameservice); ok {
		all = append(all, s.ClusterIPs...)
	}
	for _, pod := range w.Pods.All() {
		all = append(all, Addresses(&w.Snapshot, pod)...)
	}
	return append(all, w.Own()...)
}

// Own are the addresses of this node's pods.
func (w *World) Own() (all []netip.Addr) {
	for _, a := range w.Attachments.All() {
		all = append(all, a.Addresses...)
	}
	return all
}

// Connections are some that pods of this node may want.
func (w *World) Connections(n int) (all []Connection) {
	own, everyone := w.Own(), w.Everyone()
	if len(own) == 0 {
		return nil
	}
	for range n {
		c := Connection{Direction: pick(w, model.Directions[:]), Pod: pick(w, own), Peer: pick(w, everyone), Port: pick(w, ports)}
		if w.rarely() {
			c.Peer = c.Pod
		}
		if c.Protocol = pick(w, protocols); w.rarely() {
			c.Protocol, c.Port = 1, 0 // ICMP
		}
		if s, ok := w.Services.Get(nameservice); ok && w.IntN(8) == 0 {
			c.Direction, c.Peer, c.Port = model.Egress, pick(w, s.ClusterIPs), 53
		}
		if model.FamilyOf(c.Pod) == model.FamilyOf(c.Peer) {
			all = append(all, c)
		}
	}
	return all
}
