package v1alpha1

// DNS says how the names of the cluster are served, and who is asked for all
// others.
//
// +kubebuilder:validation:XValidation:rule="!has(self.stubDomains) || !has(self.zone) || self.stubDomains.all(s, s.zone != self.zone && !s.zone.endsWith('.' + self.zone))",message="a stub domain may not be the cluster's own zone, or in it"
type DNS struct {
	// Zone is the domain of the cluster: what its kubelets have as clusterDomain.
	// +kubebuilder:default="cluster.local"
	// +optional
	Zone Domain `json:"zone,omitempty"`

	// TTL is for how long clients may keep an answer about the cluster, in seconds:
	// 0 to 3600.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=3600
	// +kubebuilder:default=5
	// +optional
	TTL *int32 `json:"ttl,omitempty"`

	// Service is the one that pods send their queries to: that of the address that
	// kubelets have as clusterDNS.
	// +kubebuilder:default={}
	// +optional
	Service DNSService `json:"service,omitempty"`

	// PodNames is whether pods have names made of their addresses, such as
	// 10-0-0-1.default.pod.cluster.local: disabled; or verified, those of pods that
	// there are. Each node then keeps all pods of the cluster a second time.
	// +kubebuilder:validation:Enum=disabled;verified
	// +kubebuilder:default=disabled
	// +optional
	PodNames string `json:"podNames,omitempty"`

	// Completion makes a node try out the search path of a pod that asks for a name
	// outside of the cluster, so that it need not ask for each domain of it.
	// +kubebuilder:default=true
	// +optional
	Completion *bool `json:"completion,omitempty"`

	// Upstreams are servers of names outside of the cluster. By default they are
	// those of each node's own resolv.conf.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	// +optional
	Upstreams []Upstream `json:"upstreams,omitempty"`

	// Select is which upstream is asked: the fastest of those that are well, or the
	// first of them, ordered as they are given.
	// +kubebuilder:validation:Enum=fastest;ordered
	// +kubebuilder:default=fastest
	// +optional
	Select string `json:"select,omitempty"`

	// StubDomains are domains that other servers are asked about.
	// +kubebuilder:validation:MaxItems=64
	// +listType=map
	// +listMapKey=zone
	// +optional
	StubDomains []StubDomain `json:"stubDomains,omitempty"`

	// Cache bounds what each node keeps of answers from outside of the cluster.
	// +kubebuilder:default={}
	// +optional
	Cache DNSCache `json:"cache,omitempty"`

	// QueryLog makes each DNS server log queries, as lines of JSON in the log of its
	// pod.
	// +kubebuilder:default={}
	// +optional
	QueryLog DNSQueryLog `json:"queryLog,omitempty"`
}

// DNSService names the Service of cluster DNS.
type DNSService struct {
	// Namespace is that of the Service.
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:default="kube-system"
	// +optional
	Namespace string `json:"namespace,omitempty"`

	// Name is that of the Service.
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:default="kube-dns"
	// +optional
	Name string `json:"name,omitempty"`
}

// StubDomain is a domain that other servers are asked about.
type StubDomain struct {
	// Zone is the domain. Names in it go to these servers, unless they are in a
	// longer one.
	Zone Domain `json:"zone"`

	// Upstreams are the servers.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	Upstreams []Upstream `json:"upstreams"`
}

// DNSCache bounds what is kept of answers from outside of the cluster.
type DNSCache struct {
	// Mebibytes are what it may take of memory.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4096
	// +kubebuilder:default=16
	// +optional
	Mebibytes int32 `json:"mebibytes,omitempty"`

	// MaxTTL is for how long an answer is kept, in seconds, if it does not say less
	// itself. With 0 nothing is kept.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=604800
	// +kubebuilder:default=3600
	// +optional
	MaxTTL *int32 `json:"maxTTL,omitempty"`

	// MaxNegativeTTL is the same for answers that there is no such name, or no such
	// record of it.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10800
	// +kubebuilder:default=30
	// +optional
	MaxNegativeTTL *int32 `json:"maxNegativeTTL,omitempty"`

	// MaxStale is for how long after its end an answer is still given, in seconds,
	// while no upstream answers. With 0 it never is.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=604800
	// +kubebuilder:default=86400
	// +optional
	MaxStale *int32 `json:"maxStale,omitempty"`
}

// DNSQueryLog is which queries are logged.
type DNSQueryLog struct {
	// OneIn is of how many queries one is logged, by chance: 1 is all of them, 100
	// one in a hundred. Those that fail are logged besides, some in a second. With 0
	// none are.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000000
	// +kubebuilder:default=0
	// +optional
	OneIn int32 `json:"oneIn,omitempty"`
}

// Upstream is a server of names: an address with or without a port, asked by UDP
// and TCP; tls:// and an address, by DNS over TLS; https://, an address and perhaps
// a path, by DNS over HTTPS. After a number sign comes the name in the server's
// certificate, if it is not the address.
// +kubebuilder:validation:MaxLength=256
// +kubebuilder:validation:XValidation:rule="self.matches('^((tls|https)://)?([0-9]{1,3}([.][0-9]{1,3}){3}|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*|[[][0-9A-Fa-f:.]+[]])(:[0-9]{1,5})?(/[^#?]*)?(#[A-Za-z0-9.-]+)?$')",message="must be an address with or without a port, such as 192.0.2.1, [2001:db8::1]:5353, tls://192.0.2.1#dns.example or https://192.0.2.1/dns-query"
type Upstream string

// Domain is a name such as cluster.local, in lower case.
// +kubebuilder:validation:MaxLength=200
// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9])?([.][a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9])?)*$')",message="must be a domain in lower case, such as example.com"
type Domain string
