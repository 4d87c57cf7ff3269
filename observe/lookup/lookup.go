package lookup

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead-net/fairlead/plan/dns"
)

// Question is what the DNS server of a node is asked: what becomes of it if a
// client looks for a name.
type Question struct {
	Client       netip.Addr
	Name         string
	Types        []string // such as A and AAAA, which most programs ask for; some
	Resolver     Resolver
	NoCompletion bool // as if the Network said so
	Anew         bool // what is kept of upstreams' answers is not used
}

// Resolver is what a pod's specification says of its resolver.
type Resolver struct {
	// None says that nothing of the cluster's is in its resolv.conf (dnsPolicy None).
	None        bool
	Nameservers []string // besides the cluster's, behind it
	Search      []string // likewise
	NDots       int      // dots that a name has to have to be tried as it is first; -1: not said
}

// Bounds of a question.
const (
	mostTypes  = 8
	mostSearch = 32 // as of resolvers
	mostNDots  = 15 // resolv.conf(5)
)

// Values are the question as a query of HTTP.
func (q *Question) Values() url.Values {
	v := url.Values{"client": {q.Client.String()}, "name": {q.Name}, "type": q.Types}
	if q.Resolver.None {
		v.Set("policy", "None")
	}
	v["nameserver"], v["search"] = q.Resolver.Nameservers, q.Resolver.Search
	if q.Resolver.NDots >= 0 {
		v.Set("ndots", strconv.Itoa(q.Resolver.NDots))
	}
	if q.NoCompletion {
		v.Set("completion", "false")
	}
	if q.Anew {
		v.Set("cache", "false")
	}
	return v
}

// ReadQuestion is its inverse. All but the client and the name may be left out.
func ReadQuestion(v url.Values) (q Question, err error) {
	if q.Client, err = netip.ParseAddr(v.Get("client")); err != nil {
		return q, fmt.Errorf("client: who asks, such as client=10.244.0.5: %w", err)
	}
	q.Client = q.Client.Unmap()
	if q.Name, err = CheckName(v.Get("name")); err != nil {
		return q, fmt.Errorf("name: %w", err)
	}
	if q.Types = v["type"]; len(q.Types) == 0 {
		q.Types = []string{"A", "AAAA"}
	}
	if len(q.Types) > mostTypes {
		return q, fmt.Errorf("type: %d of them are more than %d", len(q.Types), mostTypes)
	}
	q.Resolver = Resolver{None: v.Get("policy") == "None", Nameservers: v["nameserver"], Search: v["search"], NDots: -1}
	if v.Has("ndots") {
		if q.Resolver.NDots, err = strconv.Atoi(v.Get("ndots")); err != nil || q.Resolver.NDots < 0 {
			return q, fmt.Errorf("ndots: %q is no number of dots", v.Get("ndots"))
		}
	}
	q.NoCompletion, q.Anew = v.Get("completion") == "false", v.Get("cache") == "false"
	return q, nil
}

// CheckName returns a name as it may be asked for, or why nobody can have it.
func CheckName(name string) (string, error) {
	if name == "" {
		return "", fmt.Errorf("it is empty")
	}
	if strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == '\\' || r > '~' }) {
		return "", fmt.Errorf("%q has characters that are in no name of a host; one in another script is written xn--…", name)
	}
	if name == "." {
		return name, nil
	}
	if _, err := dns.ParseName(name); err != nil {
		return "", err
	}
	return name, nil
}

// Path is where a resolver looks for names that are not written in full.
type Path struct {
	Search []string `json:"search"` // domains, in their order, without a dot at the end
	NDots  int      `json:"ndots"`
}

// Cluster is what a server knows of where it is.
type Cluster struct {
	Zone      string   // the cluster's domain
	Namespace string   // of the pod that asks; empty: it is none that the server knows
	Search    []string // the node's own path
}

// kubeletNDots is what kubelets write.
const kubeletNDots = 5

// PathOf is what a kubelet writes into the resolv.conf of a pod.
func PathOf(r Resolver, c Cluster) Path {
	path := Path{Search: []string{}, NDots: 1}
	domains := []string{}
	if !r.None {
		path.NDots = kubeletNDots
		zone := strings.TrimSuffix(c.Zone, ".")
		if c.Namespace != "" {
			domains = append(domains, c.Namespace+".svc."+zone)
		}
		domains = append(append(domains, "svc."+zone, zone), c.Search...)
	}
	for _, domain := range append(domains, r.Search...) {
		if domain = strings.ToLower(strings.TrimSuffix(domain, ".")); domain != "" && !slices.Contains(path.Search, domain) && len(path.Search) < mostSearch {
			path.Search = append(path.Search, domain)
		}
	}
	if r.NDots >= 0 {
		path.NDots = min(r.NDots, mostNDots)
	}
	return path
}

// Candidates are what is asked for, one after the other until something is found,
// each with a dot at the end.
func (p Path) Candidates(name string) (all []string) {
	if full, ok := strings.CutSuffix(name, "."); ok {
		return []string{full + "."}
	}
	for _, domain := range p.Search {
		full := name + "." + domain
		if _, err := dns.ParseName(full); err == nil {
			all = append(all, full+".")
		}
	}
	if strings.Count(name, ".") >= p.NDots {
		return append([]string{name + "."}, all...)
	}
	return append(all, name+".")
}
