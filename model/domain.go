package model

import (
	"iter"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Resolved are the names that lead to an address, of those that cluster policies
// allow connections to: as the DNS server of this node has told its pods, and for
// as long as that holds. It is immutable.
type Resolved struct {
	Names []string // in lower case, without a dot at the end; sorted
	// Lapsed are names that have led here, likewise: connections that were made then
	// go on, and there are no new ones.
	Lapsed []string
}

// Equal tells whether nothing differs.
func (r *Resolved) Equal(other *Resolved) bool {
	return slices.Equal(r.Names, other.Names) && slices.Equal(r.Lapsed, other.Lapsed)
}

// Resolution is what a DNS server is about to tell somebody: that a name has these
// addresses.
type Resolution struct {
	Name      string       `json:"name"` // in lower case, without a dot at the end
	Addresses []netip.Addr `json:"addresses"`
	TTL       uint32       `json:"ttl"` // seconds
}

// ResolutionGrace is for how long an address is kept beyond the TTL of the answer
// that had it: who has just been told it may not have called yet.
const ResolutionGrace = time.Minute

// Domains finds out which patterns a name fits. The zero value has none; it is
// immutable once it is made.
type Domains struct {
	all   []string
	known map[string]struct{} // exact names, and .example.com for *.example.com
}

// NewDomains makes the set of some patterns: names in lower case without a dot at
// the end, or *. and such a name, which means all below it and not itself.
func NewDomains(patterns []string) *Domains {
	d := &Domains{all: slices.Compact(slices.Sorted(slices.Values(patterns))), known: map[string]struct{}{}}
	for _, pattern := range d.all {
		d.known[strings.TrimPrefix(pattern, "*")] = struct{}{}
	}
	return d
}

// All are the patterns, sorted. They are not the caller's to change.
func (d *Domains) All() []string {
	if d == nil {
		return nil
	}
	return d.all
}

// Matches are the patterns that a name fits.
func (d *Domains) Matches(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		if d == nil {
			return
		}
		for text := range SuffixesOf(name) {
			if _, ok := d.known[text]; !ok {
				continue
			}
			if text != name {
				text = "*" + text
			}
			if !yield(text) {
				return
			}
		}
	}
}

// Fits tells whether a name fits any pattern.
func (d *Domains) Fits(name string) bool {
	for range d.Matches(name) {
		return true
	}
	return false
}

// SuffixesOf are the texts by which patterns that a name fits may be found: the name
// itself, and for *.example.com, .example.com.
func SuffixesOf(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		if !yield(name) {
			return
		}
		for i := range len(name) {
			if name[i] == '.' && i > 0 && !yield(name[i:]) {
				return
			}
		}
	}
}

// FitsDomain tells whether a name fits a pattern.
func FitsDomain(pattern, name string) bool {
	if below, wild := strings.CutPrefix(pattern, "*"); wild {
		return len(name) > len(below) && strings.HasSuffix(name, below)
	}
	return pattern == name
}

// DomainsOf are the patterns of all peers of cluster policies.
func DomainsOf(policies Map[string, *ClusterPolicy]) *Domains {
	var all []string
	for _, policy := range policies.All() {
		for _, rule := range policy.Rules[Egress] {
			for i := range rule.Peers {
				if domain := rule.Peers[i].Domain; domain != "" {
					all = append(all, domain)
				}
			}
		}
	}
	return NewDomains(all)
}
