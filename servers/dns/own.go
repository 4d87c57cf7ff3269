package dns

import (
	"strconv"

	"github.com/fairlead-net/fairlead/plan/dns"
)

// HealthName is the label, below the cluster's domain, of the name that tells
// whether this server answers, and from what: its TXT record is
// "revision=" and the revision of the agent's snapshot. No Service, namespace or
// pod can have it. It is answered by the same loop as all others, so that who asks
// for it learns of a loop that hangs.
const HealthName = "_fairlead"

// Names below the origin that the server has by itself. Whoever looks after a
// zone, and the server of it, have a name by RFC 1035, section 3.3.13; they are
// those that clients know of CoreDNS.
const (
	healthLabel     = dns.Name("\x09" + HealthName)
	serverLabels    = dns.Name("\x02ns\x03dns")
	hostmasterLabel = dns.Name("\x0ahostmaster")
)

// maxOwn is the length of the longest of them.
const maxOwn = len(hostmasterLabel)

// own answers for the apex, and for HealthName, and tells whether it did.
func (a *answering) own(name dns.Name, records *dns.Records) bool {
	origin, kind, r := a.served.Zone.Origin, a.q.kind, a.r
	switch labels := name[:len(name)-len(origin)]; {
	case labels == "" && kind == typeSOA:
		a.soa(inAnswer)
	case labels == "" && kind == typeNS:
		a.nameServer(name)
	case labels == "" && records == nil: // it exists all the same
		if kind == typeANY {
			r.minimal(name, a.served.Zone.TTL)
		} else {
			a.missing(noError)
		}
	case labels == healthLabel && kind == typeTXT:
		a.health(name)
	case labels == healthLabel:
		a.missing(noError)
	default:
		return false
	}
	return true
}

func (a *answering) health(name dns.Name) {
	mark := a.r.start(name, typeTXT, 0)
	data := len(a.r.b)
	a.r.b = append(a.r.b, 0)
	a.r.b = append(a.r.b, "revision="...)
	a.r.b = strconv.AppendUint(a.r.b, a.served.Revision, 10)
	a.r.b[data] = byte(len(a.r.b) - data - 1)
	a.r.done(mark, data, inAnswer)
}

// Times of the SOA record, in seconds. Nobody transfers the zone, so that they
// only have to be sensible (RFC 1912, section 2.2).
const (
	soaRefresh = 7200
	soaRetry   = 1800
	soaExpire  = 86400
)

// soa writes the zone's SOA record. Its TTL, and the minimum in it, are for how
// long a negative answer holds.
func (a *answering) soa(section int) {
	r, zone := a.r, a.served.Zone
	mark := r.start(zone.Origin, typeSOA, zone.TTL)
	data := len(r.b)
	r.b = append(r.b, serverLabels...)
	r.origin(zone.Origin)
	r.b = append(r.b, hostmasterLabel...)
	r.origin(zone.Origin)
	for _, value := range [...]uint32{a.served.Serial, soaRefresh, soaRetry, soaExpire, zone.TTL} {
		r.b = be.AppendUint32(r.b, value)
	}
	r.done(mark, data, section)
}

// nameServer writes the NS record, and the addresses of what it names.
func (a *answering) nameServer(origin dns.Name) {
	r, zone := a.r, a.served.Zone
	mark := r.start(origin, typeNS, zone.TTL)
	data := len(r.b)
	target := serverLabels + zone.Origin // allocates: it is asked for seldom
	r.name(target)
	r.done(mark, data, inAnswer)
	if records := zone.Lookup(target); records != nil {
		for _, addr := range records.Addrs {
			r.address(target, addr, zone.TTL, inAdditional)
		}
	}
}

// origin writes the zone's name, which the message has already unless the question
// is elsewhere.
func (r *reply) origin(origin dns.Name) {
	r.name(origin)
}
