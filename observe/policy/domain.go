package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
	plan "github.com/fairlead-net/fairlead/plan/policy"
)

// What names in policies lead to, each node learns from what its pods ask. To say
// what policies mean for them, each name is given addresses that stand for its own:
// such as nobody has.
var standIns = [len(model.Families)]netip.Addr{
	model.IPv4: netip.MustParseAddr("240.0.0.1"), // RFC 1112, section 4
	model.IPv6: netip.MustParseAddr("100::1"),    // RFC 6666
}

// standIn is that of a name by its number, from 0.
func standIn(number int, family model.Family) netip.Addr {
	bytes := standIns[family].AsSlice()
	bytes[len(bytes)-3] = byte(number >> 8)
	bytes[len(bytes)-2] = byte(number)
	addr, _ := netip.AddrFromSlice(bytes)
	return addr
}

// withStandIns are snapshots in which each name of any policy leads to somewhere, and
// the names, sorted.
func withStandIns(from []*model.Snapshot) (to []*model.Snapshot, domains []string) {
	for _, s := range from {
		domains = append(domains, model.DomainsOf(s.ClusterPolicies).All()...)
	}
	slices.Sort(domains)
	domains = slices.Compact(domains)
	resolved := model.Map[netip.Addr, *model.Resolved]{}
	for i, domain := range domains {
		if domain[0] == '*' {
			domain = "?" + domain[1:] // no name that there is
		}
		for _, family := range model.Families {
			resolved = resolved.With(standIn(i, family), &model.Resolved{Names: []string{domain}})
		}
	}
	for _, s := range from {
		next := *s
		next.Resolved = resolved
		to = append(to, &next)
	}
	return to, domains
}

// addDomains adds the names that policies tell from other addresses.
func (s *survey) addDomains(domains []string) {
	for i, domain := range domains {
		u := &unit{pods: 2, groups: make([][len(model.Families)]plan.Group, len(s.worlds))}
		for _, family := range model.Families {
			addr := standIn(i, family)
			u.example[family], u.has[family] = addr, true
			for i, w := range s.worlds {
				u.groups[i][family] = w.plan.GroupOf(plan.Subject{}, addr)
			}
		}
		s.workloads = append(s.workloads, &Workload{Name: domain, units: []*unit{u}})
	}
}

// ofDomain begins what people call a name of the outside.
const ofDomain = "domain/"

// DomainOf is the name of the outside that somebody means by an end; empty: it is no
// such name.
func DomainOf(end string) string {
	name, ok := strings.CutPrefix(end, ofDomain)
	if !ok {
		return ""
	}
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

// end finds to whom a connection is. A name of the outside is at the addresses that
// it was found to have, and the snapshot has them from then on.
func (f *finder) end(q *Query) (End, error) {
	name := DomainOf(q.To)
	if name == "" {
		return f.find(q.To)
	}
	if len(q.Addresses) == 0 {
		return End{}, &Untold{fmt.Sprintf("the addresses of %s are not known", name), "see whether it can be found from here: getent ahosts " + name}
	}
	s := *f.Snapshot
	s.Resolved = model.Map[netip.Addr, *model.Resolved]{}
	for _, addr := range q.Addresses {
		s.Resolved = s.Resolved.With(addr, &model.Resolved{Names: []string{name}})
	}
	f.Snapshot = &s
	return End{Kind: Outside, Name: name, Addresses: q.Addresses}, nil
}

// namedElsewhere says, of an address of the outside, that names may lead to it.
func (e *Explanation) namedElsewhere(s *model.Snapshot) []string {
	domains := model.DomainsOf(s.ClusterPolicies).All()
	switch {
	case e.To.Kind != Outside || len(domains) == 0:
		return nil
	case slices.ContainsFunc(e.To.Addresses, func(addr netip.Addr) bool { return addr.String() == e.To.Name }):
		return []string{fmt.Sprintf("policies allow names (%s), whose addresses each node learns from what its pods ask for; ask with --to %sNAME", some(domains, ", "), ofDomain)}
	}
	return []string{"its addresses are as they were found from here; pods may be told others, and what counts is what they are told"}
}
