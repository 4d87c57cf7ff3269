package dns

import (
	"net/netip"
	"strings"

	"github.com/fairlead-net/fairlead/plan/dns"
)

// asker is who asks, and how.
type asker struct {
	addr netip.Addr
	tcp  bool
}

// minimalTTL is of the answer to the type ANY about a name of the outside, in
// seconds. It is the same whatever the name has.
const minimalTTL = 3600

// elsewhere writes what a name that is not of the cluster has.
func (a *answering) elsewhere(name dns.Name) state {
	r, q := a.r, a.q
	if q.kind == typeANY {
		r.minimal(name, minimalTTL)
		return complete
	}
	answer, fate := a.find(name)
	switch {
	case fate == later:
		return waiting
	case fate == nowhere && r.counts[inAnswer] == 0:
		r.fail(refused)
	case fate != known:
		r.fail(serverFailure)
	case r.counts[inAnswer] == 0:
		if !r.take(answer) {
			r.fail(serverFailure)
		}
	case !r.splice(answer):
		r.fail(serverFailure)
	}
	return complete
}

// find finds what somebody else says of a name.
func (a *answering) find(name dns.Name) (answer []byte, fate found) {
	a.abroad = true
	a.scratch, fate = a.outside.find(Question{
		Name: name, Type: a.q.kind, Class: a.q.class, DNSSEC: a.q.signatures,
		CheckingDisabled: a.q.flags&flagCD != 0, Client: a.from.addr, TCP: a.from.tcp,
	}, a.scratch[:0])
	return a.scratch, fate
}

// take makes a whole message, in answer to the same question, this reply. It
// returns false if it is none.
func (r *reply) take(message []byte) bool {
	began := headerSize + len(r.q.question())
	if len(message) < began || be.Uint16(message[4:]) != 1 {
		return false
	}
	flags := be.Uint16(message[2:])
	r.rcode = rcode(flags & maskRcode)
	r.flags |= flags & flagTC
	if r.q.signatures || r.q.flags&flagAD != 0 { // RFC 6840, section 5.8
		r.flags |= flags & flagAD
	}
	for i := range r.counts {
		r.counts[i] = be.Uint16(message[6+2*i:])
	}
	// Names in it point at the question, and at each other: it is as long as it was.
	r.b = append(r.b[:began], message[began:]...)
	return len(r.b) <= r.limit || r.shorten(began)
}

// shorten leaves out what does not fit, from a record on.
func (r *reply) shorten(at int) bool {
	wanted := r.counts
	r.counts = [3]uint16{}
	for section := range wanted {
		for range wanted[section] {
			next, ok := recordAt(r.b, at)
			if !ok {
				return false
			}
			if next.next > r.limit {
				r.cut = r.cut || section != inAdditional
				r.b = r.b[:at]
				return true
			}
			r.counts[section]++
			at = next.next
		}
	}
	r.b = r.b[:at]
	return true
}

// splice adds the records of another message, which has the name that the last
// CNAME record leads to.
func (r *reply) splice(message []byte) bool {
	if len(message) < headerSize || be.Uint16(message[4:]) != 1 {
		return false
	}
	at, ok := skipName(message, headerSize)
	if at += 4; !ok || at > len(message) {
		return false
	}
	flags := be.Uint16(message[2:])
	r.rcode = rcode(flags & maskRcode)
	r.flags |= flags & flagTC
	for section := range inAdditional {
		for range be.Uint16(message[6+2*section:]) {
			from, ok := recordAt(message, at)
			if !ok || !r.copy(message, from, section) {
				return false
			}
			at = from.next
		}
	}
	return true
}

// copy writes a record of another message. It returns false if it is not well
// formed.
func (r *reply) copy(message []byte, from record, section int) bool {
	var room [2 * maxName]byte
	owner, _, ok := nameAt(message, from.owner, room[:0])
	if !ok {
		return false
	}
	mark := r.start(dns.Name(strings.Clone(string(owner))), from.kind, from.ttl)
	data := len(r.b)
	before, names := namesIn(from.kind)
	at := from.data + before
	if at > from.next {
		return false
	}
	r.b = append(r.b, message[from.data:at]...)
	for range names {
		name, end, ok := nameAt(message, at, room[:0])
		if !ok || end > from.next {
			return false
		}
		r.b, at = append(r.b, name...), end
	}
	r.b = append(r.b, message[at:from.next]...)
	r.done(mark, data, section)
	return true
}

// namesIn tells what the data of records is made of that may have names with
// pointers (RFC 3597, section 4): so many bytes, then so many names.
func namesIn(kind uint16) (before, names int) {
	switch kind {
	case typeNS, typeCNAME, typePTR, typeDNAME:
		return 0, 1
	case typeSOA:
		return 0, 2
	case typeMX:
		return 2, 1
	case typeSRV:
		return 6, 1
	}
	return 0, 0
}
