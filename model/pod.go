package model

import (
	"net/netip"
	"slices"
)

// PodKey names a pod.
type PodKey struct{ Namespace, Name string }

func (k PodKey) String() string { return k.Namespace + "/" + k.Name }

// Pod is a pod as the API server knows it.
type Pod struct {
	PodKey
	UID         string
	Node        string       // name of its node, empty until scheduled
	Addresses   []netip.Addr // status.podIPs
	HostNetwork bool         // it shares its node's network; Addresses are the node's
	Finished    bool         // phase Succeeded or Failed: its addresses may be another pod's by now
}

// Equal tells whether nothing that a plan could see differs.
func (p *Pod) Equal(other *Pod) bool {
	return p.PodKey == other.PodKey && p.UID == other.UID && p.Node == other.Node &&
		p.HostNetwork == other.HostNetwork && p.Finished == other.Finished &&
		slices.Equal(p.Addresses, other.Addresses)
}

// AttachmentKey names one interface of one pod sandbox, as CNI does.
type AttachmentKey struct {
	ContainerID string
	Interface   string // inside the pod, such as eth0
}

// Attachment is a pod that this node has connected.
type Attachment struct {
	AttachmentKey
	Pod       PodKey // zero if it was found in the kernel and its pod is not known
	Device    string // host side of its veth pair
	Addresses []netip.Addr
}

// Equal tells whether nothing that a plan could see differs.
func (a *Attachment) Equal(other *Attachment) bool {
	return a.AttachmentKey == other.AttachmentKey && a.Pod == other.Pod &&
		a.Device == other.Device && slices.Equal(a.Addresses, other.Addresses)
}
