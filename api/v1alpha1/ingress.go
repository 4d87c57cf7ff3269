package v1alpha1

// Ingress says which Ingresses are served, where the gateway runs, and what their
// status tells.
type Ingress struct {
	// NginxCompatible makes Ingresses of ingress-nginx be served as well: those whose
	// IngressClass has the controller k8s.io/ingress-nginx, and those of class nginx
	// if there is no IngressClass of that name.
	// +optional
	NginxCompatible bool `json:"nginxCompatible,omitempty"`

	// PublishAddresses are what the status of Ingresses tells, in the place of the
	// addresses that are found: those of the load balancer of the gateway, or else
	// those of the nodes that it runs on.
	// +kubebuilder:validation:MaxItems=64
	// +listType=set
	// +optional
	PublishAddresses []PublishAddress `json:"publishAddresses,omitempty"`
}

// PublishAddress is an address of either family, such as 192.0.2.1, or the name of
// a host, such as gateway.example.org, in lower case.
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:XValidation:rule="isIP(self) || self.matches('^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?[.])*[a-z]([-a-z0-9]{0,61}[a-z0-9])?$')",message="must be an address such as 192.0.2.1 or 2001:db8::1, or the name of a host in lower case, such as gateway.example.org"
type PublishAddress string
