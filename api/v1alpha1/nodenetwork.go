package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// NodeNetwork is the health of the network on one node. It has the name of its
// Node and goes away with it. Only the node's agent writes it: when something
// changes, and every few minutes to show that it lives.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Pods",type=integer,JSONPath=`.status.pods`
// +kubebuilder:printcolumn:name="Direct",type=integer,JSONPath=`.status.peers.direct`
// +kubebuilder:printcolumn:name="Tunnelled",type=integer,JSONPath=`.status.peers.tunnelled`
// +kubebuilder:printcolumn:name="Uplink",type=string,JSONPath=`.status.uplink`
// +kubebuilder:printcolumn:name="MTU",type=integer,JSONPath=`.status.mtu`
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.agentVersion`
// +kubebuilder:printcolumn:name="Heartbeat",type=date,JSONPath=`.status.heartbeatTime`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
type NodeNetwork struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Status NodeNetworkStatus `json:"status,omitempty"`
}

// NodeNetworkStatus is what the agent of the node says.
type NodeNetworkStatus struct {
	// AgentVersion is the version of the agent.
	// +optional
	AgentVersion string `json:"agentVersion,omitempty"`

	// HeartbeatTime is when the agent wrote this last, by the API server's clock.
	// +optional
	HeartbeatTime metav1.Time `json:"heartbeatTime,omitempty"`

	// Conditions are Ready: pods of this node reach, and are reached by, all
	// that they should; and Degraded: there are problems, the first of which is
	// its reason.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Problems are what users have to mend on this node, the first 100 of them.
	// +kubebuilder:validation:MaxItems=100
	// +listType=atomic
	// +optional
	Problems []Problem `json:"problems,omitempty"`

	// Uplink is the interface that carries traffic to other nodes.
	// +optional
	Uplink string `json:"uplink,omitempty"`

	// MTU of the uplink, in bytes.
	// +optional
	MTU int32 `json:"mtu,omitempty"`

	// Peers counts the other nodes by the way to them.
	// +optional
	Peers PeerCount `json:"peers,omitempty"`

	// Pods is how many pods are attached to the network on this node.
	Pods int32 `json:"pods"`
}

// PeerCount counts other nodes.
type PeerCount struct {
	// Direct is how many are reached by a plain route.
	Direct int32 `json:"direct"`
	// Tunnelled is how many are reached through a tunnel.
	Tunnelled int32 `json:"tunnelled"`
}

// Problem is something that a user has to mend.
type Problem struct {
	// Kind, Namespace and Name tell the object.
	Kind string `json:"kind"`
	// +optional
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	// Field of the object, such as spec.podCIDRs.
	// +optional
	Field string `json:"field,omitempty"`
	// Reason is one CamelCase word.
	Reason string `json:"reason"`
	// Message is what is wrong.
	Message string `json:"message"`
	// Remedy is what to do next.
	// +optional
	Remedy string `json:"remedy,omitempty"`
}

// NodeNetworkList is a list of NodeNetworks.
//
// +kubebuilder:object:root=true
type NodeNetworkList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []NodeNetwork `json:"items"`
}
