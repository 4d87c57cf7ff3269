// Package dns plans the names of the cluster: what the zone of its Services
// holds, as Kubernetes' specification of DNS-based service discovery 1.1.0 says.
// It is pure. Who answers is servers/dns, on every node.
package dns

import (
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
)

// Name is a domain name as it is on the wire (RFC 1035, section 3.1), in lower
// case, with the root's empty label at its end: "\x03foo\x00". It is the key of
// lookups, so that a query needs no decoding.
type Name string

// Zone is all that is known below the cluster's domain, and the reverse names of
// the addresses in it. It is immutable.
type Zone struct {
	Origin Name // the cluster's domain
	TTL    uint32
	// NS is the only name server of the zone, and the primary one in its SOA: the
	// name of the Service that queries go to.
	NS Name
	// Serial is that of the SOA: the revision of the snapshot that the zone last
	// changed with.
	Serial uint32

	names   model.Map[Name, *Records]
	reverse model.Map[netip.Addr, *Records]
	own     ranges
	empty   *Records

	made
}

// Records are what one name has. It is immutable. One without any exists all the
// same (RFC 8020): the name of something that lies above others.
type Records struct {
	Addrs []netip.Addr // A and AAAA
	SRV   []SRV
	PTR   []Name
	CNAME Name // empty: none; else there is nothing else
	TXT   []string
}

// SRV is one place where a service is (RFC 2782).
type SRV struct {
	Target           Name
	Port             uint16
	Priority, Weight uint16
}

// Lookup returns what a name has, and nil if there is no such name. It neither
// allocates nor locks. Whether a name that is not there is the zone's to deny,
// or somebody else's, Authority tells.
func (z *Zone) Lookup(name Name) *Records {
	if of := reverseOf(name); of.IsValid() {
		if !of.IsSingleIP() {
			if z.own.holds(of) < 0 {
				return nil
			}
			return z.empty
		}
		records, _ := z.reverse.Get(of.Addr())
		return records
	}
	records, _ := z.names.Get(name)
	return records
}

// Within tells whether a name is the cluster's domain, or below it.
func (z *Zone) Within(name Name) bool {
	for len(name) > len(z.Origin) {
		name = name[1+name[0]:]
	}
	return name == z.Origin
}

// Authority returns the zone that a name is in, if it is one of those that are
// the cluster's own: its domain, or the reverse names of a range of addresses.
// It is a part of the name itself, and the owner of the SOA. False: what the name
// is, others say. It does not allocate.
func (z *Zone) Authority(name Name) (Name, bool) {
	if z.Within(name) {
		return z.Origin, true
	}
	of := reverseOf(name)
	if !of.IsValid() {
		return "", false
	}
	if bits := z.own.holds(of); bits >= 0 {
		return cut(name, of, bits), true
	}
	if of.IsSingleIP() {
		if _, ok := z.reverse.Get(of.Addr()); ok {
			return name, true
		}
	}
	return "", false
}
