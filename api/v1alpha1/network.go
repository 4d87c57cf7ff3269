package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	// tunnel of the kernel.
	// +kubebuilder:validation:Enum=vxlan
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

	// Masquerade makes packets from pods to addresses outside the cluster leave
	// with their node's address.
	// +kubebuilder:default=true
	// +optional
	Masquerade *bool `json:"masquerade,omitempty"`
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

// Types of conditions. A Network has both, a NodeNetwork has Ready.
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
}

// NetworkList is a list of Networks.
//
// +kubebuilder:object:root=true
type NetworkList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Network `json:"items"`
}
