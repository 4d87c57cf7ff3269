package model

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// DNSOptions say how the names of the cluster are served, and who is asked for
// all others.
type DNSOptions struct {
	Zone    string     // of the cluster, lower case, without a dot at the end
	TTL     uint32     // of its records, in seconds, up to 3600
	Service ServiceKey // whose ClusterIPs pods send their queries to
	// PodNames makes pods have names made of their addresses, such as
	// 10-0-0-1.default.pod.cluster.local.
	PodNames bool
	// NoCompletion leaves it to clients to try one domain of their search path
	// after the other.
	NoCompletion bool
	// Upstreams are asked for names outside of the cluster; empty: those of the
	// node's resolv.conf.
	Upstreams []Upstream
	// Ordered asks the first upstream that is well, in the order given; else it is
	// the one that answers fastest.
	Ordered bool
	Stubs   []StubDomain // sorted by zone, which are all different
	Cache   CacheOptions
	// LogOneIn is of how many queries one is logged: 1 stands for all, 0 for none.
	LogOneIn uint32 `json:",omitempty"`
}

// Equal tells whether nothing differs.
func (o *DNSOptions) Equal(other *DNSOptions) bool {
	return o.Zone == other.Zone && o.TTL == other.TTL && o.Service == other.Service && o.PodNames == other.PodNames &&
		o.NoCompletion == other.NoCompletion && o.Ordered == other.Ordered && o.Cache == other.Cache && o.LogOneIn == other.LogOneIn &&
		slices.Equal(o.Upstreams, other.Upstreams) && slices.EqualFunc(o.Stubs, other.Stubs, StubDomain.Equal)
}

// StubDomain is a domain that others are asked about than about the rest.
type StubDomain struct {
	Zone      string // lower case, without a dot at the end
	Upstreams []Upstream
}

// Equal tells whether nothing differs.
func (d StubDomain) Equal(other StubDomain) bool {
	return d.Zone == other.Zone && slices.Equal(d.Upstreams, other.Upstreams)
}

// CacheOptions bound what is kept of the answers of upstreams. Times are in
// seconds.
type CacheOptions struct {
	Bytes          int64
	MaxTTL         uint32 // of an answer, whatever it says itself; 0: nothing is kept
	MaxNegativeTTL uint32 // of an answer that there is no such name or record; 0: it is not kept
	MaxStale       uint32 // for how long after its end an answer is given while no upstream answers (RFC 8767); 0: never
}

// DefaultDNS is how a cluster's names are served that says nothing: as kubeadm
// and the kubelets of most clusters have it.
func DefaultDNS() DNSOptions {
	return DNSOptions{
		Zone: "cluster.local", TTL: 5, Service: ServiceKey{Namespace: "kube-system", Name: "kube-dns"},
		Cache: CacheOptions{Bytes: 16 << 20, MaxTTL: 3600, MaxNegativeTTL: 30, MaxStale: 86400},
	}
}

// Upstream is a server of names outside of the cluster.
type Upstream struct {
	Transport Transport
	At        netip.AddrPort
	// ServerName is whom the certificate is of; empty: of the address.
	ServerName string
	Path       string // of HTTPS, beginning with a slash
}

// Transport is how a server of names is asked.
type Transport string

// The transports.
const (
	Plain Transport = ""      // UDP, and TCP for what is too long for it (RFC 7766)
	TLS   Transport = "tls"   // RFC 7858
	HTTPS Transport = "https" // RFC 8484
)

// port is where servers are, if nothing else is said.
func (t Transport) port() uint16 {
	switch t {
	case TLS:
		return 853
	case HTTPS:
		return 443
	}
	return 53
}

// dohPath is where most servers are asked by HTTPS.
const dohPath = "/dns-query"

// ParseUpstream reads an upstream such as 192.0.2.1, [2001:db8::1]:5353,
// tls://192.0.2.1 or https://192.0.2.1/dns-query. After a number sign comes whom
// the certificate is of: tls://192.0.2.1#dns.example. A name in the place of the
// address would have to be looked up by those who look up names.
func ParseUpstream(text string) (to Upstream, err error) {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		scheme, rest = string(Plain), text
	} else if to.Transport = Transport(scheme); to.Transport != TLS && to.Transport != HTTPS {
		return Upstream{}, fmt.Errorf("%q is neither an address nor tls:// or https:// with one", text)
	}
	rest, to.ServerName, ok = strings.Cut(rest, "#")
	if ok && (to.Transport == Plain || !isHost(to.ServerName)) {
		return Upstream{}, fmt.Errorf("%q: after # comes the name in a certificate, with tls:// and https:// alone", text)
	}
	if to.Transport == HTTPS {
		if to.Path = dohPath; strings.Contains(rest, "/") {
			rest, to.Path, _ = strings.Cut(rest, "/")
			to.Path = "/" + to.Path
		}
		if u, err := url.Parse(to.Path); err != nil || u.Path != to.Path {
			return Upstream{}, fmt.Errorf("%q: %s is not a path", text, to.Path)
		}
	}
	if to.At, err = parseAt(rest, to.Transport.port()); err != nil {
		return Upstream{}, fmt.Errorf("%q: %w", text, err)
	}
	return to, nil
}

// parseAt reads an address with or without a port.
func parseAt(text string, port uint16) (netip.AddrPort, error) {
	at, err := netip.ParseAddrPort(text)
	if err != nil {
		if strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]") {
			text = text[1 : len(text)-1]
		}
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return at, fmt.Errorf("%q is not an IP address, with or without a port", text)
		}
		at = netip.AddrPortFrom(addr, port)
	}
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	if at.Port() == 0 || at.Addr().IsUnspecified() || at.Addr().IsMulticast() {
		return at, errors.New("no server can be at this address")
	}
	return at, nil
}

// isHost tells whether a text is the name of a host: letters, digits, hyphens and
// dots.
func isHost(text string) bool {
	return text != "" && len(text) <= 253 && strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.") == ""
}

// String is what ParseUpstream reads, with what it left out.
func (u Upstream) String() string {
	text := u.At.String() + u.Path
	if u.Transport != Plain {
		text = string(u.Transport) + "://" + text
	}
	if u.ServerName != "" {
		text += "#" + u.ServerName
	}
	return text
}
