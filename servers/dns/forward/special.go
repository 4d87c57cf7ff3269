package forward

import (
	"net/netip"
	"strings"
	"time"

	miekg "github.com/miekg/dns"
)

// Some names mean the same everywhere, and no upstream is to be asked for them.
// All others are asked for, .local and .test too, since sites do have such
// domains.
//
//   - localhost, and what is below it: this machine (RFC 6761, section 6.3), with
//     the reverse names of 127.0.0.0/8 and ::1;
//   - invalid, onion: there is nothing (RFC 6761, section 6.4; RFC 7686);
//   - resolver.arpa: an upstream's answer would be about itself (RFC 9462, section
//     6.4);
//   - on demand, the reverse names of private addresses (RFC 6303).

// specialTTL is for how long such answers are kept.
const specialTTL = time.Hour

var absent = []string{"invalid.", "onion.", "resolver.arpa."}

// privateZones are the reverse names of addresses that many sites have.
var privateZones = append(slash12(), "10.in-addr.arpa.", "168.192.in-addr.arpa.", "254.169.in-addr.arpa.",
	"c.f.ip6.arpa.", "d.f.ip6.arpa.", "8.e.f.ip6.arpa.", "9.e.f.ip6.arpa.", "a.e.f.ip6.arpa.", "b.e.f.ip6.arpa.")

// slash12 are those of 172.16.0.0/12.
func slash12() (zones []string) {
	for i := range byte(16) {
		reverse, _ := miekg.ReverseAddr(netip.AddrFrom4([4]byte{172, 16 + i}).String())
		zones = append(zones, strings.TrimPrefix(reverse, "0.0."))
	}
	return zones
}

// special answers questions of special names; nil: the name is like any other.
func special(a *ask, o *Options) *answer {
	name := nameText(a.name)
	switch {
	case miekg.IsSubDomain("localhost.", name):
		return here(a, name)
	case miekg.IsSubDomain("127.in-addr.arpa.", name), name == loopback6:
		if a.qtype == miekg.TypePTR && (strings.Count(name, ".") == 6 || name == loopback6) {
			return local(a, "arpa.", rcodeSuccess, &miekg.PTR{Ptr: "localhost."})
		}
		return local(a, "127.in-addr.arpa.", rcodeSuccess, nil)
	}
	for _, zone := range absent {
		if miekg.IsSubDomain(zone, name) {
			if zone == "resolver.arpa." {
				return local(a, zone, rcodeSuccess, nil)
			}
			return local(a, zone, rcodeNXDomain, nil)
		}
	}
	if !o.PrivateReverse || !strings.HasSuffix(name, ".arpa.") {
		return nil
	}
	for _, zone := range privateZones {
		if miekg.IsSubDomain(zone, name) {
			return local(a, zone, rcodeNXDomain, nil)
		}
	}
	return nil
}

// loopback6 is the reverse name of ::1.
const loopback6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa."

// here answers for localhost.
func here(a *ask, name string) *answer {
	switch a.qtype {
	case miekg.TypeA:
		return local(a, name, rcodeSuccess, &miekg.A{A: []byte{127, 0, 0, 1}})
	case miekg.TypeAAAA:
		return local(a, name, rcodeSuccess, &miekg.AAAA{AAAA: netip.IPv6Loopback().AsSlice()})
	}
	return local(a, "localhost.", rcodeSuccess, nil)
}

// local is an answer that comes from nobody but us, of one record, or of none in
// a zone.
func local(a *ask, zone string, rcode int, rr miekg.RR) *answer {
	msg := miekg.Msg{Compress: true}
	msg.Response, msg.RecursionAvailable, msg.Rcode = true, true, rcode
	msg.Question = []miekg.Question{{Name: nameText(a.name), Qtype: a.qtype, Qclass: classIN}}
	ttl := uint32(specialTTL / time.Second)
	if rr != nil {
		*rr.Header() = miekg.RR_Header{Name: msg.Question[0].Name, Rrtype: a.qtype, Class: classIN, Ttl: ttl}
		msg.Answer = []miekg.RR{rr}
	} else {
		msg.Ns = []miekg.RR{&miekg.SOA{
			Hdr: miekg.RR_Header{Name: zone, Rrtype: miekg.TypeSOA, Class: classIN, Ttl: ttl},
			Ns:  "localhost.", Mbox: "nobody.invalid.", Serial: 1, Refresh: 3600, Retry: 1200, Expire: 604800, Minttl: ttl,
		}}
	}
	wire, err := msg.Pack()
	if err != nil {
		return nil
	}
	ttls, err := findTTLs(wire)
	if err != nil {
		return nil
	}
	return &answer{wire: wire, ttls: ttls, rcode: uint16(rcode), ttl: specialTTL}
}
