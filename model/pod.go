package model

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// PodKey names a pod.
type PodKey struct{ Namespace, Name string }

func (k PodKey) String() string { return k.Namespace + "/" + k.Name }

// Pod is a pod as the API server knows it.
type Pod struct {
	PodKey
	UID         UID
	Node        string       // name of its node, empty until scheduled
	Addresses   []netip.Addr // status.podIPs
	HostNetwork bool         // it shares its node's network; Addresses are the node's
	Finished    bool         // phase Succeeded or Failed: its addresses may be another pod's by now
	Labels      Labels
	Ports       []ContainerPort // those of its containers that have names
}

// Equal tells whether nothing that a plan could see differs.
func (p *Pod) Equal(other *Pod) bool {
	return p.PodKey == other.PodKey && p.UID == other.UID && p.Node == other.Node &&
		p.HostNetwork == other.HostNetwork && p.Finished == other.Finished && p.Labels == other.Labels &&
		slices.Equal(p.Addresses, other.Addresses) && slices.Equal(p.Ports, other.Ports)
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
	UID       UID    // of the pod, as the kubelet says; zero if that is not known
	Device    string // host side of its veth pair
	MAC       MAC    // of the pod's side
	Addresses []netip.Addr
	HostPorts []HostPort
	PortsLost bool // it has host ports, and which is not known any more
}

// HostPort is a port of the node that leads to one of a pod (hostPort of a
// container).
type HostPort struct {
	Protocol Protocol
	HostIP   netip.Addr // of the node; invalid: every one
	Port     uint16     // of the node
	PodPort  uint16
}

func (h HostPort) String() string {
	if h.HostIP.IsValid() {
		return fmt.Sprintf("%s/%s", netip.AddrPortFrom(h.HostIP, h.Port), h.Protocol)
	}
	return fmt.Sprintf("%d/%s", h.Port, h.Protocol)
}

// Protocol is one with ports, by its number in IP headers (IANA's protocol
// numbers).
type Protocol uint8

// The protocols that Kubernetes knows.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

// String is as Kubernetes writes it.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	case SCTP:
		return "SCTP"
	default:
		return fmt.Sprintf("protocol %d", uint8(p))
	}
}

// MarshalText is String.
func (p Protocol) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is ParseProtocol.
func (p *Protocol) UnmarshalText(text []byte) (err error) {
	*p, err = ParseProtocol(string(text))
	return err
}

// ParseProtocol is String's inverse, whatever the case.
func ParseProtocol(name string) (Protocol, error) {
	for _, p := range []Protocol{TCP, UDP, SCTP} {
		if strings.EqualFold(name, p.String()) {
			return p, nil
		}
	}
	return 0, fmt.Errorf("%q is none of TCP, UDP and SCTP", name)
}

// Equal tells whether nothing that a plan could see differs.
func (a *Attachment) Equal(other *Attachment) bool {
	return a.AttachmentKey == other.AttachmentKey && a.Pod == other.Pod && a.UID == other.UID &&
		a.Device == other.Device && a.MAC == other.MAC &&
		slices.Equal(a.Addresses, other.Addresses) && slices.Equal(a.HostPorts, other.HostPorts)
}

// IsOf tells whether an attachment of a node is of a pod. Another pod of the same
// name is not taken for it: one that was there before or has come since, as those
// of a StatefulSet do, or one on another node.
func (a *Attachment) IsOf(pod *Pod, node string) bool {
	return a.Pod == pod.PodKey && (pod.Node == "" || pod.Node == node) &&
		(a.UID == pod.UID || a.UID == UID{} || pod.UID == UID{})
}
