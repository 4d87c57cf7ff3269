package model

import "net/netip"

// Snapshot is all that a plan depends on, at one moment: the cluster's objects
// and what this node has learned of itself. It is immutable; the next one
// shares what did not change.
type Snapshot struct {
	Revision uint64   // grows with each change, from 1; of this process only
	Network  *Network // nil until it is known
	Nodes    Map[string, *Node]
	Pods     Map[PodKey, *Pod]

	Services     Map[ServiceKey, *Service]
	Slices       Map[SliceKey, *EndpointSlice]
	ServiceCIDRs Map[string, *ServiceCIDR]
	// Names are the Services that are not among Services, and Hosts the endpoints
	// of the headless ones among them.
	Names Map[ServiceKey, *Name]
	Hosts Map[SliceKey, *Hosts]
	// NamesKnown says that all Services have been read, and all endpoints of
	// headless ones: until then, nobody knows which names there are not.
	NamesKnown bool

	Namespaces      Map[string, *Namespace]
	Policies        Map[PolicyKey, *Policy]
	ClusterPolicies Map[string, *ClusterPolicy]
	// PoliciesKnown says that all policies, namespaces and pods of the cluster
	// have been read: until then, nobody knows what is forbidden.
	PoliciesKnown bool
	// Resolved are the addresses that names in cluster policies lead to. Who learns
	// of them takes them out when their time is over.
	Resolved Map[netip.Addr, *Resolved]

	// Ingresses and their classes, where requests from outside are served.
	Ingresses      Map[IngressKey, *HTTPIngress]
	IngressClasses Map[string, *IngressClass]

	// Former is how the cluster was routed until a moment ago, and Coming how it
	// will be in a moment; nil if it is not otherwise. See Follow.
	Former, Coming *Routing

	// Of this node alone.
	Links       Map[string, *Link]
	Attachments Map[AttachmentKey, *Attachment]
	Firewalls   *Firewalls                // of others; nil until they are known
	NameServers [len(Families)]NameServer // the DNS server, by family of its address
}

// PodOf returns the pod of an attachment of a node, and nil if it is not known.
func (s *Snapshot) PodOf(a *Attachment, node string) *Pod {
	if pod, ok := s.Pods.Get(a.Pod); ok && a.IsOf(pod, node) {
		return pod
	}
	return nil
}
