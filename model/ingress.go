package model

import "slices"

// IngressKey names an Ingress.
type IngressKey struct{ Namespace, Name string }

func (k IngressKey) String() string { return k.Namespace + "/" + k.Name }

// HTTPIngress is an Ingress: it leads requests from outside of the cluster to Services, by host and path
// (networking.k8s.io/v1).
type HTTPIngress struct {
	IngressKey
	Created int64  // seconds since 1970; of two that claim a path, the older one has it
	Class   string // name of its IngressClass; empty: that of the cluster's default
	// Default takes what no rule does; nil: nobody.
	Default *IngressBackend
	Rules   []IngressRule
	TLS     []IngressTLS
	// Annotations are those that say how requests are treated, sorted by key.
	Annotations []Annotation
}

// IngressRule is what becomes of requests to a host.
type IngressRule struct {
	Host  string // such as www.example.org or *.example.org, in lower case; empty: all
	Paths []IngressPath
}

// IngressPath leads one path, or all below it.
type IngressPath struct {
	Path    string
	Type    PathType
	Backend IngressBackend
}

// PathType is how a path is compared.
type PathType uint8

// The types.
const (
	PathImplementation PathType = iota // ImplementationSpecific: as the controller does
	PathExact
	PathPrefix // by its elements
)

func (t PathType) String() string {
	return [...]string{"ImplementationSpecific", "Exact", "Prefix"}[t]
}

// IngressBackend is a port of a Service in the namespace of the Ingress.
type IngressBackend struct {
	Service  string
	Port     uint16 // 0: PortName says it
	PortName string
	Resource string // KIND/NAME of what is no Service; then all else is empty
}

// IngressTLS says which certificate hosts have.
type IngressTLS struct {
	Hosts  []string // in lower case; none: all of the Ingress
	Secret string   // in the namespace of the Ingress; empty: the default certificate
}

// Annotation is one of an object.
type Annotation struct{ Key, Value string }

// Equal tells whether nothing differs.
func (i *HTTPIngress) Equal(other *HTTPIngress) bool {
	if (i.Default == nil) != (other.Default == nil) || i.Default != nil && *i.Default != *other.Default {
		return false
	}
	return i.IngressKey == other.IngressKey && i.Created == other.Created && i.Class == other.Class &&
		slices.Equal(i.Annotations, other.Annotations) &&
		slices.EqualFunc(i.Rules, other.Rules, func(a, b IngressRule) bool {
			return a.Host == b.Host && slices.Equal(a.Paths, b.Paths)
		}) &&
		slices.EqualFunc(i.TLS, other.TLS, func(a, b IngressTLS) bool {
			return a.Secret == b.Secret && slices.Equal(a.Hosts, b.Hosts)
		})
}

// IngressClass says which controller serves the Ingresses of a class.
type IngressClass struct {
	Name       string
	Controller string
	Default    bool // of Ingresses that name none
}

// IngressOptions say which Ingresses are served, and how.
type IngressOptions struct {
	// NginxCompatible serves those of the controller of ingress-nginx, too.
	NginxCompatible bool
	// HTTP3 serves requests by HTTP/3, too.
	HTTP3 bool
	// PublishAddresses are what their status tells, in the place of what is found:
	// addresses, and names of hosts in lower case. None: what is found.
	PublishAddresses []string
	ACME             ACMEOptions
}

// ACMEOptions say who certificates are ordered from. The zero value: nobody.
type ACMEOptions struct {
	Server   string // URL of its directory; empty: no certificates are ordered
	Email    string // may be empty
	CABundle string // PEM, which the server is verified by; empty: what the public trusts
	// KeyID and KeySecret are of an account that the authority knows already: what it
	// calls the key, and the name of the Secret that has it. Empty: there is none.
	KeyID, KeySecret string
}

// LetsEncrypt is the directory of Let's Encrypt.
const LetsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

// Equal tells whether nothing differs.
func (o *IngressOptions) Equal(other *IngressOptions) bool {
	return o.NginxCompatible == other.NginxCompatible && o.HTTP3 == other.HTTP3 && o.ACME == other.ACME && slices.Equal(o.PublishAddresses, other.PublishAddresses)
}
