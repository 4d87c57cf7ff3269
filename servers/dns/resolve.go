package dns

import (
	"context"

	"github.com/fairlead-net/fairlead/plan/dns"
)

// outside finds what names outside of the cluster have. It appends a whole
// message, as Forwarder says.
type outside interface {
	find(q Question, into []byte) (answer []byte, fate found)
}

// found is what became of a question to the outside.
type found uint8

const (
	known   found = iota // there is an answer
	later                // it has to be asked for, which takes time
	failed               // there is none
	nowhere              // nobody can be asked
)

// answering writes one answer. It is reused.
type answering struct {
	served    *Served
	counts    *counts
	class     class // of the name that is asked for
	q         *query
	r         *reply
	others    *Client // who is no pod of this node
	client    *Client // who asks
	from      asker
	outside   outside
	random    uint32                           // chooses which of several records is the first
	waits     bool                             // the last message is answered once somebody was asked, or told
	abroad    bool                             // somebody else knows a part of the answer
	completed bool                             // the name that was asked for stands for another, of its search
	turned    bool                             // too much of the client is under way
	gate      Gate                             // of answers from outside; nil: they need none
	wait      context.Context                  // for the gate; nil: it is not waited for
	room      [maxName]byte                    // for a name
	scratch   []byte                           // for what is found outside
	seen      func(name dns.Name, exists bool) // see Trial; nil: nobody wants to know
	// authority is the zone that the name of the moment is in: the cluster's domain,
	// or one of reverse names.
	authority dns.Name
}

// maxChain bounds how many names a name may stand for, one after the other.
const maxChain = 8

// resolve writes the answer to a question, and returns false if somebody has to
// be asked who is not here: nothing of the answer counts then.
func (a *answering) resolve() bool {
	q, r := a.q, a.r
	a.class = ofOutside
	switch {
	case a.served.Zone == nil:
		r.rcode = serverFailure
		return true
	case q.kind == typeOPT || q.kind == 0:
		r.rcode = formatError
		return true
	case q.kind == typeMAILA || q.kind == typeMAILB:
		r.rcode = notImplemented
		return true
	case q.class != classIN || q.kind == typeAXFR || q.kind == typeIXFR || q.kind == typeTKEY || q.kind == typeTSIG:
		r.rcode = refused
		return true
	}
	name := q.name()
	for range maxChain {
		next, done := a.link(name)
		if done != chained {
			return done == complete
		}
		name = next
	}
	r.fail(serverFailure)
	return true
}

// state is how far an answer is.
type state uint8

const (
	chained  state = iota // the name stands for another one
	complete              // all is written
	waiting               // somebody has to be asked
	denied                // there is no such name
)

// link writes what one name of a chain has, the first of which is the question's.
func (a *answering) link(name dns.Name) (next dns.Name, _ state) {
	zone := a.served.Zone
	authority, ours := zone.Authority(name)
	if !ours {
		return "", a.elsewhere(name)
	}
	if a.r.counts[inAnswer] == 0 {
		a.r.flags |= flagAA
		if a.class = ofReverse; authority == zone.Origin {
			a.class = ofCluster
		}
	}
	a.authority = authority
	records := zone.Lookup(name)
	a.saw(name, records)
	if a.own(name, records) {
		return "", complete
	}
	switch {
	case records == nil:
		if next, done := a.complete(name); done != denied {
			return next, done
		}
		a.missing(nameError)
		return "", complete
	case records.CNAME == "" || a.q.kind == typeCNAME || a.q.kind == typeANY:
		a.records(name, records)
		return "", complete
	}
	a.r.pointing(name, typeCNAME, records.CNAME, zone.TTL)
	return records.CNAME, chained
}

// records writes those of the type that is asked for.
func (a *answering) records(name dns.Name, records *dns.Records) {
	r, ttl, before := a.r, a.served.Zone.TTL, a.r.counts[inAnswer]
	switch a.q.kind {
	case typeA, typeAAAA:
		a.addresses(name, records, a.q.kind, inAnswer)
	case typeSRV:
		a.services(name, records)
	case typePTR:
		for i := range records.PTR {
			r.pointing(name, typePTR, records.PTR[i], ttl)
		}
	case typeTXT:
		for i := range records.TXT {
			r.text(name, records.TXT[i], ttl)
		}
	case typeCNAME:
		if records.CNAME != "" {
			r.pointing(name, typeCNAME, records.CNAME, ttl)
		}
	case typeANY:
		r.minimal(name, ttl)
	}
	if r.counts[inAnswer] == before && !r.cut {
		a.missing(noError)
	}
}

// addresses writes A or AAAA records, beginning with any of them, so that
// clients, which take the first, are spread over all.
func (a *answering) addresses(name dns.Name, records *dns.Records, kind uint16, section int) {
	all := records.Addrs
	for i, at := 0, a.any(len(all)); i < len(all); i++ {
		if all[at].Is4() == (kind == typeA) && !a.r.address(name, all[at], a.served.Zone.TTL, section) {
			return
		}
		if at++; at == len(all) {
			at = 0
		}
	}
}

// services writes SRV records, and the addresses of their targets as far as there
// is room.
func (a *answering) services(name dns.Name, records *dns.Records) {
	all := records.SRV
	from := a.any(len(all))
	for i := range all {
		if !a.r.service(name, &all[(from+i)%len(all)], a.served.Zone.TTL) {
			return
		}
	}
	for i := range all {
		target := all[(from+i)%len(all)].Target
		if i > 0 && target == all[(from+i-1)%len(all)].Target {
			continue // another port of the same
		}
		of := a.served.Zone.Lookup(target)
		if of == nil {
			continue
		}
		for _, addr := range of.Addrs {
			if !a.r.address(target, addr, a.served.Zone.TTL, inAdditional) {
				return
			}
		}
	}
}

// any is one of n, by chance.
func (a *answering) any(n int) int {
	if n < 2 {
		return 0
	}
	a.random ^= a.random << 13 // Marsaglia, "Xorshift RNGs", 2003
	a.random ^= a.random >> 17
	a.random ^= a.random << 5
	return int(a.random % uint32(n))
}

// missing says that a zone of the cluster lacks a name, or what is asked of it, and
// for how long that may be remembered (RFC 2308).
func (a *answering) missing(code rcode) {
	if a.served.Old {
		a.r.fail(serverFailure)
		return
	}
	a.r.rcode = code
	a.soa(inAuthority)
}
