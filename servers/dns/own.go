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

const healthLabel = dns.Name("\x09" + HealthName)

// hostmasterLabel begins the name of who looks after a zone (RFC 1035, section
// 3.3.13). Nobody reads his mail.
const hostmasterLabel = "\x0ahostmaster"

// own answers for the apex of a zone, and for HealthName, and tells whether it
// did.
func (a *answering) own(name dns.Name, records *dns.Records) bool {
	origin, kind := a.served.Zone.Origin, a.q.kind
	switch {
	case name == a.authority && kind == typeSOA:
		a.soa(inAnswer)
	case name == a.authority && kind == typeNS:
		a.nameServer(name)
	case len(name) == len(origin)+len(healthLabel) && name[:len(healthLabel)] == healthLabel && kind == typeTXT:
		a.health(name)
	case len(name) == len(origin)+len(healthLabel) && name[:len(healthLabel)] == healthLabel:
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

// soa writes the SOA record of the zone that the name is in. Its TTL, and the
// minimum in it, are for how long a negative answer holds.
func (a *answering) soa(section int) {
	r, zone := a.r, a.served.Zone
	mark := r.start(a.authority, typeSOA, zone.TTL)
	data := len(r.b)
	r.name(zone.NS)
	r.b = append(r.b, hostmasterLabel...)
	r.name(zone.Origin)
	for _, value := range [...]uint32{zone.Serial, soaRefresh, soaRetry, soaExpire, zone.TTL} {
		r.b = be.AppendUint32(r.b, value)
	}
	r.done(mark, data, section)
}

// nameServer writes the NS record, and the addresses of what it names.
func (a *answering) nameServer(apex dns.Name) {
	r, zone := a.r, a.served.Zone
	if !r.pointing(apex, typeNS, zone.NS, zone.TTL) {
		return
	}
	if records := zone.Lookup(zone.NS); records != nil {
		for _, addr := range records.Addrs {
			r.address(zone.NS, addr, zone.TTL, inAdditional)
		}
	}
}
