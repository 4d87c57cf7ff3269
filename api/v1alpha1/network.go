package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// NetworkName is the name of the only Network.
const NetworkName = "default"

// Network is the configuration of the cluster's network. There is one, named
// default; without it, and for each field that it leaves out, the defaults
// hold. Changes take effect at once and on every node.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:subresource:status
// +kubebuilder:validation:XValidation:rule="self.metadata.name == 'default'",message="the only Network is named default"
// +kubebuilder:printcolumn:name="Backend",type=string,JSONPath=`.spec.backend`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Nodes",type=integer,JSONPath=`.status.nodes.total`
// +kubebuilder:printcolumn:name="Ready Nodes",type=integer,JSONPath=`.status.nodes.ready`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
type Network struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +kubebuilder:default={}
	// +optional
	Spec NetworkSpec `json:"spec,omitempty"`
	// +optional
	Status NetworkStatus `json:"status,omitempty"`
}

// NetworkSpec is what the network should be.
type NetworkSpec struct {
	// Backend is the way between nodes that are not on one link: vxlan, a
	// tunnel of the kernel; ipip, another one with a smaller header, of IPv4
	// only (pods' IPv6 goes through vxlan); udp, a tunnel in user space for
	// networks that let nothing else through; or host-gw, none: all nodes are
	// on one link.
	// +kubebuilder:validation:Enum=vxlan;host-gw;ipip;udp
	// +kubebuilder:default=vxlan
	// +optional
	Backend string `json:"backend,omitempty"`

	// DirectRouting makes packets to nodes on the same link go there by a plain
	// route, whatever the backend.
	// +kubebuilder:default=true
	// +optional
	DirectRouting *bool `json:"directRouting,omitempty"`

	// MTU of the links between nodes, in bytes, before any tunnel header: 576
	// to 65535 (1280 at least if there is IPv6). 0, the default, takes that of
	// each node's uplink.
	// +kubebuilder:validation:XValidation:rule="self == 0 || (self >= 576 && self <= 65535)",message="must be 0 or between 576 and 65535 bytes"
	// +optional
	MTU int32 `json:"mtu,omitempty"`

	// VXLAN configures the backend vxlan.
	// +kubebuilder:default={}
	// +optional
	VXLAN VXLAN `json:"vxlan,omitempty"`

	// UDP configures the backend udp.
	// +kubebuilder:default={}
	// +optional
	UDP UDP `json:"udp,omitempty"`

	// Masquerade makes packets from pods to addresses outside the cluster leave
	// with their node's address.
	// +kubebuilder:default={}
	// +optional
	Masquerade Masquerade `json:"masquerade,omitempty"`

	// Services configures where node ports are, and whose packets to ClusterIPs
	// take an address of their node.
	// +optional
	Services Services `json:"services,omitempty"`

	// Policy configures how policies are carried out: NetworkPolicies, and
	// ClusterNetworkPolicies where the cluster has that kind.
	// +optional
	Policy Policy `json:"policy,omitempty"`

	// DNS configures the names of the cluster, and how those outside of it are
	// found, where fairlead-dns runs.
	// +optional
	DNS DNS `json:"dns,omitempty"`

	// Ingress configures requests from outside of the cluster, where fairlead-gateway
	// runs.
	// +optional
	Ingress Ingress `json:"ingress,omitempty"`

	// ForeignFirewall is what is done where another program's firewall on a node,
	// such as Docker's or ufw's, drops the packets that are forwarded. Accept puts
	// rules that accept those of pods, marked as Fairlead's, into the chain FORWARD
	// of iptables; Report only names the chain among the problems of the node, as
	// is done with all other chains; Ignore does neither.
	// +kubebuilder:validation:Enum=Accept;Report;Ignore
	// +kubebuilder:default=Accept
	// +optional
	ForeignFirewall string `json:"foreignFirewall,omitempty"`

	// CNI configures what the container runtime of each node runs.
	// +optional
	CNI CNI `json:"cni,omitempty"`
}

// Masquerade says which packets leave the cluster with an address of their
// node.
type Masquerade struct {
	// IPv4 is whether those of IPv4 do.
	// +kubebuilder:default=true
	// +optional
	IPv4 *bool `json:"ipv4,omitempty"`

	// IPv6 is whether those of IPv6 do.
	// +kubebuilder:default=true
	// +optional
	IPv6 *bool `json:"ipv6,omitempty"`

	// Exclude are destinations outside of the cluster, as CIDRs of either
	// family, that see the pods' own addresses: networks that have routes to
	// them.
	// +kubebuilder:validation:MaxItems=256
	// +listType=set
	// +optional
	Exclude []CIDR `json:"exclude,omitempty"`

	// From selects the address: the first of the node's own that is in one of
	// these CIDRs. By default, and on nodes that have none, it is that of the
	// interface by which the packet leaves.
	// +kubebuilder:validation:MaxItems=16
	// +listType=set
	// +optional
	From []CIDR `json:"from,omitempty"`

	// RandomPorts chooses source ports at random, so that connections that
	// begin at the same moment do not take the same one and lose a packet.
	// Otherwise a pod's port is kept where that is possible.
	// +kubebuilder:default=true
	// +optional
	RandomPorts *bool `json:"randomPorts,omitempty"`
}

// Services are settings that all Services have in common.
type Services struct {
	// NodePortAddresses are networks, as CIDRs of either family: node ports are
	// at the addresses of each node that are in one of them. 0.0.0.0/0 or ::/0
	// means all of the node's addresses but those of its loopback interface. Of a
	// family of which there is no network here, they are at the node's first
	// InternalIP, as they are by default.
	// +kubebuilder:validation:MaxItems=32
	// +listType=set
	// +optional
	NodePortAddresses []CIDR `json:"nodePortAddresses,omitempty"`

	// LocalhostNodePorts makes node ports answer at 127.0.0.1 as well, to
	// processes of the node itself and of pods in its network namespace. It sets
	// the sysctl net.ipv4.conf.all.route_localnet.
	// +optional
	LocalhostNodePorts bool `json:"localhostNodePorts,omitempty"`

	// MasqueradeAll makes packets to ClusterIPs take an address of the node, those
	// of pods too, which otherwise keep their own.
	// +optional
	MasqueradeAll bool `json:"masqueradeAll,omitempty"`
}

// Policy says how policies are carried out.
type Policy struct {
	// Established is what becomes of connections that there are when a policy
	// comes to forbid them: keep, the default, lets them go on until they end by
	// themselves; cut ends them.
	// +kubebuilder:validation:Enum=keep;cut
	// +kubebuilder:default=keep
	// +optional
	Established string `json:"established,omitempty"`
}

// CIDR is a range of addresses, such as 192.0.2.0/24 or 2001:db8::/64.
// +kubebuilder:validation:MaxLength=43
// +kubebuilder:validation:XValidation:rule="isCIDR(self)",message="must be a range of addresses such as 192.0.2.0/24"
type CIDR string

// CNI configures the chain of plugins.
type CNI struct {
	// Plugins are run after Fairlead's own, in this order: objects as they
	// stand in a CNI configuration, such as {"type": "bandwidth",
	// "capabilities": {"bandwidth": true}}. A node uses a plugin once it is in
	// its directory of CNI plugins.
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:pruning:PreserveUnknownFields
	// +listType=atomic
	// +optional
	Plugins []runtime.RawExtension `json:"plugins,omitempty"`
}

// VXLAN configures the tunnels of RFC 7348.
type VXLAN struct {
	// VNI is the network identifier, the same on all nodes.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=16777215
	// +kubebuilder:default=4096
	// +optional
	VNI int32 `json:"vni,omitempty"`

	// Port is the UDP port on every node. Firewalls between nodes must let it
	// through.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	// +kubebuilder:default=4789
	// +optional
	Port int32 `json:"port,omitempty"`
}

// UDP configures the tunnels in user space.
type UDP struct {
	// Port is the UDP port on every node. Firewalls between nodes must let it
	// through.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	// +kubebuilder:default=8285
	// +optional
	Port int32 `json:"port,omitempty"`
}

// Types of conditions of a Network and of a NodeNetwork.
const (
	// Ready is True when every node follows the spec and pods reach each other.
	ConditionReady = "Ready"
	// Degraded is True when there are problems. Message and problems name them.
	ConditionDegraded = "Degraded"
)

// NetworkStatus is what became of the spec, as the controller sees it.
type NetworkStatus struct {
	// ObservedGeneration is the generation of the spec that this status is of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// Conditions are Ready and Degraded.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Nodes counts the cluster's nodes.
	// +optional
	Nodes NodeCount `json:"nodes,omitempty"`

	// Problems are what users have to mend, the first 50 of them: of the
	// cluster, and of nodes. Each node's NodeNetwork has all of its own.
	// +kubebuilder:validation:MaxItems=50
	// +listType=atomic
	// +optional
	Problems []Problem `json:"problems,omitempty"`
}

// NodeCount counts nodes.
type NodeCount struct {
	// Total is how many nodes the cluster has.
	Total int32 `json:"total"`
	// Ready is on how many of them the network is ready.
	Ready int32 `json:"ready"`
	// WithoutAgent is how many of them have no agent, as their labels say:
	// fairlead.io/agent=none, or a kubernetes.io/os other than linux. They are
	// not ready, and need not be.
	// +optional
	WithoutAgent int32 `json:"withoutAgent,omitempty"`
}

// NetworkList is a list of Networks.
//
// +kubebuilder:object:root=true
type NetworkList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Network `json:"items"`
}
