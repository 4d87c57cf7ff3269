package v1alpha1

// Ingress says which Ingresses are served, where the gateway runs, and what their
// status tells.
type Ingress struct {
	// NginxCompatible makes Ingresses of ingress-nginx be served as well: those whose
	// IngressClass has the controller k8s.io/ingress-nginx, and those of class nginx
	// if there is no IngressClass of that name.
	// +optional
	NginxCompatible bool `json:"nginxCompatible,omitempty"`

	// HTTP3 makes the gateways answer by HTTP/3, too, at the UDP port of the number of
	// HTTPS, and say so to those who come by HTTPS.
	// +optional
	HTTP3 bool `json:"http3,omitempty"`

	// PublishAddresses are what the status of Ingresses tells, in the place of the
	// addresses that are found: those of the load balancer of the gateway, or else
	// those of the nodes that it runs on.
	// +kubebuilder:validation:MaxItems=64
	// +listType=set
	// +optional
	PublishAddresses []PublishAddress `json:"publishAddresses,omitempty"`

	// ACME has certificates ordered for the hosts of Ingresses that ask for them, by the
	// annotation fairlead.io/acme or kubernetes.io/tls-acme. Without it none are.
	// +optional
	ACME *ACME `json:"acme,omitempty"`
}

// ACME is a certificate authority that gives certificates to whoever answers for a
// host, by RFC 8555. It asks hosts by HTTP, at port 80.
//
// +kubebuilder:validation:XValidation:rule="self.termsOfServiceAgreed",message="termsOfServiceAgreed must be true: without an agreement the authority gives no certificates"
type ACME struct {
	// TermsOfServiceAgreed says that you have read the terms of the authority, and agree.
	TermsOfServiceAgreed bool `json:"termsOfServiceAgreed"`

	// Email is who the authority writes to, such as about terms that change.
	// +kubebuilder:validation:MaxLength=254
	// +kubebuilder:validation:XValidation:rule="self == '' || self.matches('^[^@ ,?]+@[^@ ,?]+$')",message="must be an address of mail such as admin@example.org"
	// +optional
	Email string `json:"email,omitempty"`

	// Server is the URL of the authority's directory.
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="isURL(self) && url(self).getScheme() == 'https'",message="must be the URL of a directory, such as https://acme-v02.api.letsencrypt.org/directory"
	// +kubebuilder:default="https://acme-v02.api.letsencrypt.org/directory"
	// +optional
	Server string `json:"server,omitempty"`

	// CABundle has the certificates that the server's own is verified by, in PEM, in the
	// place of those that the public trusts.
	// +kubebuilder:validation:MaxLength=262144
	// +optional
	CABundle string `json:"caBundle,omitempty"`

	// ExternalAccount is the account that the authority knows you by already, if it
	// wants to.
	// +optional
	ExternalAccount *ExternalAccount `json:"externalAccount,omitempty"`
}

// ExternalAccount binds an account of ACME to one that there is already (RFC 8555,
// section 7.3.4).
type ExternalAccount struct {
	// KeyID is what the authority calls the key.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	KeyID string `json:"keyID"`

	// SecretName names a Secret of the namespace fairlead-certificates, whose key "key"
	// has the key, in base64url as the authority gives it.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	SecretName string `json:"secretName"`
}

// PublishAddress is an address of either family, such as 192.0.2.1, or the name of
// a host, such as gateway.example.org, in lower case.
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:XValidation:rule="isIP(self) || self.matches('^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?[.])*[a-z]([-a-z0-9]{0,61}[a-z0-9])?$')",message="must be an address such as 192.0.2.1 or 2001:db8::1, or the name of a host in lower case, such as gateway.example.org"
type PublishAddress string
