package policy

import (
	"fmt"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// domains finds the peers that are names. It is immutable.
type domains struct {
	peers map[string][]*peers // by what model.SuffixesOf finds
}

func newDomains(all []*peers) *domains {
	d := &domains{peers: map[string][]*peers{}}
	for _, p := range all {
		if key := p.domain; key != "" {
			if key[0] == '*' {
				key = key[1:]
			}
			d.peers[key] = append(d.peers[key], p)
		}
	}
	return d
}

// of are the peers that one of some names is, with repetitions.
func (d *domains) of(names []string) (all []*peers) {
	if len(d.peers) == 0 {
		return nil
	}
	for _, name := range names {
		for text := range model.SuffixesOf(name) {
			all = append(all, d.peers[text]...)
		}
	}
	return all
}

// findResolved looks again at the addresses whose names changed.
func (c *computation) findResolved() {
	for change := range model.Diff(c.before.from.Resolved, c.snapshot.Resolved) {
		c.touched[change.Key] = struct{}{}
	}
}

// planDomains looks again at the addresses that have one of some names, which
// came or went as peers.
func (c *computation) planDomains(changed []*peers) {
	c.domains = newDomains(c.allPeers())
	by := newDomains(changed)
	for addr, resolved := range c.snapshot.Resolved.All() {
		if len(by.of(resolved.Names)) > 0 {
			c.touched[addr] = struct{}{}
		}
	}
}

// unheard tells whether no DNS server of this node answers, so that nobody learns
// what names lead to.
func (c *computation) unheard() bool {
	if c.snapshot.Network == nil {
		return false
	}
	if _, ok := c.snapshot.Services.Get(c.snapshot.Network.DNS.Service); !ok {
		return true
	}
	absent := false
	for _, is := range c.snapshot.NameServers {
		if is == model.NameServerWell {
			return false
		}
		absent = absent || is == model.NameServerAbsent || is == model.NameServerHung
	}
	return absent
}

func (c *computation) zone() string {
	if c.snapshot.Network == nil {
		return ""
	}
	return c.snapshot.Network.DNS.Zone
}

// nameless are names that lead nowhere: all, if there is no DNS server, and those of
// the cluster.
func (p *profile) nameless(unheard bool, zone string) (problems []model.Problem) {
	for _, policy := range p.clusters {
		for i, rule := range policy.Rules[model.Egress] {
			problem := model.Problem{Kind: "ClusterNetworkPolicy", Name: policy.Name, Field: fmt.Sprintf("spec.egress[%d].to", i)}
			for _, peer := range rule.Peers {
				switch domain := peer.Domain; {
				case domain == "":
				case zone != "" && strings.HasSuffix("."+domain, "."+zone):
					problem.Reason = "NameOfCluster"
					problem.Message = domain + " is a name of the cluster, and names mean addresses outside of it alone: this allows nothing"
					problem.Remedy = "choose the pods that it leads to, by namespaces or pods"
					problems = append(problems, problem)
				case unheard:
					problem.Reason = "NamesNotHeard"
					problem.Message = fmt.Sprintf("no DNS server of Fairlead answers on this node, so that it does not learn what %s leads to: this allows nothing new here", domain)
					problem.Remedy = "kubectl apply --server-side -f deploy/dns.yaml; see what becomes of it: kubectl -n kube-system get pods -o wide -l app.kubernetes.io/name=fairlead-dns"
					problems = append(problems, problem)
				}
			}
		}
	}
	return problems
}
