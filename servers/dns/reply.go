package dns

import (
	"net/netip"

	"github.com/fairlead-net/fairlead/plan/dns"
)

// reply is a message that is being written: its sections in their order. What
// does not fit is left out, and noted. It is reused, as query is.
type reply struct {
	q     *query
	b     []byte // the message so far
	limit int    // of its size, what finish appends included

	flags  uint16
	rcode  rcode
	counts [3]uint16 // of records: answer, authority, additional
	cut    bool      // a record of the answer or the authority did not fit

	// written is a name that was written whole, and where: the owner of what
	// follows, most likely.
	written   dns.Name
	writtenAt int
}

// The sections that records are in.
const (
	inAnswer = iota
	inAuthority
	inAdditional
)

// begin starts the reply to a query in a buffer, with room for limit bytes. The
// question is repeated as the client wrote it: some tell by its letters that an
// answer is for them.
func (r *reply) begin(q *query, into []byte, limit int) {
	r.q, r.limit, r.rcode, r.cut, r.counts = q, limit, noError, false, [3]uint16{}
	r.written, r.writtenAt = "", 0
	r.flags = flagQR | flagRA | q.flags&(maskOpcode|flagRD|flagCD)
	r.b = append(into[:0], make([]byte, headerSize)...)
	r.b = append(r.b, q.question()...)
	if q.edns {
		r.limit -= optSize
	}
}

// clear takes all records back that were written so far.
func (r *reply) clear() {
	r.b, r.counts, r.cut = r.b[:headerSize+len(r.q.question())], [3]uint16{}, false
	r.written = ""
	r.flags &^= flagAA | flagAD
}

// finish writes the header and the OPT record, and returns the message.
func (r *reply) finish() []byte {
	if r.cut {
		r.flags |= flagTC
	}
	b := r.b
	copy(b, r.q.message[:2])
	be.PutUint16(b[2:], r.flags&^maskRcode|uint16(r.rcode&maskRcode))
	be.PutUint16(b[4:], 0)
	if r.q.length != 0 {
		be.PutUint16(b[4:], 1)
	}
	for i, count := range r.counts {
		be.PutUint16(b[6+2*i:], count)
	}
	if r.q.edns {
		be.PutUint16(b[10:], r.counts[inAdditional]+1)
		b = append(b, 0, 0, typeOPT, ednsSize>>8, ednsSize&0xff, byte(r.rcode>>4), 0, 0, 0, 0, 0)
		if r.q.signatures { // RFC 3225, section 3
			b[len(b)-4] = 0x80
		}
	}
	r.b = b
	return b
}

// fail makes it an answer without records.
func (r *reply) fail(code rcode) {
	r.clear()
	r.rcode = code
}

// start begins a record, and returns where, for done to tell what became of it.
func (r *reply) start(owner dns.Name, kind uint16, ttl uint32) (mark int) {
	mark = len(r.b)
	r.name(owner)
	r.b = append(r.b, byte(kind>>8), byte(kind), 0, classIN,
		byte(ttl>>24), byte(ttl>>16), byte(ttl>>8), byte(ttl), 0, 0)
	return mark
}

// done ends a record whose data begins at an offset. If it does not fit, it is
// taken back. That something of the additional section is missing nobody needs
// to know (RFC 2181, section 9).
func (r *reply) done(mark, data, section int) bool {
	if len(r.b) > r.limit {
		r.b = r.b[:mark]
		if r.writtenAt >= mark {
			r.written = ""
		}
		r.cut = r.cut || section != inAdditional
		return false
	}
	be.PutUint16(r.b[data-2:], uint16(len(r.b)-data))
	r.counts[section]++
	return true
}

// name writes a name, or as much of it as is not in the message already: the
// question's, and the name that was written last, are.
func (r *reply) name(name dns.Name) {
	if name == r.written && r.written != "" {
		r.pointer(r.writtenAt)
		return
	}
	asked := r.q.name()
	began := len(r.b)
	for rest := name; len(rest) > 1; rest = parent(rest) {
		// The question ends in the same bytes; they are labels if its own are cut there.
		if at := len(asked) - len(rest); at >= 0 && asked[at:] == rest && isBoundary(asked, at) {
			r.b = append(r.b, name[:len(name)-len(rest)]...)
			r.pointer(atQuestion + at)
			r.remember(name, began)
			return
		}
	}
	r.whole(name)
}

// whole writes a name without pointers.
func (r *reply) whole(name dns.Name) {
	began := len(r.b)
	r.b = append(r.b, name...)
	r.remember(name, began)
}

func (r *reply) remember(name dns.Name, at int) {
	if at <= maxPointer && name != r.q.name() {
		r.written, r.writtenAt = name, at
	}
}

func (r *reply) pointer(to int) {
	r.b = append(r.b, byte((pointerMark|to)>>8), byte(to))
}

// isBoundary tells whether a label begins at an offset of a name.
func isBoundary(name dns.Name, at int) bool {
	for i := 0; i <= at; i += 1 + int(name[i]) {
		if i == at {
			return true
		}
	}
	return false
}

// address writes an A or AAAA record.
func (r *reply) address(owner dns.Name, addr netip.Addr, ttl uint32, section int) bool {
	if addr.Is4() {
		mark := r.start(owner, typeA, ttl)
		data := len(r.b)
		bytes := addr.As4()
		r.b = append(r.b, bytes[:]...)
		return r.done(mark, data, section)
	}
	mark := r.start(owner, typeAAAA, ttl)
	data := len(r.b)
	bytes := addr.As16()
	r.b = append(r.b, bytes[:]...)
	return r.done(mark, data, section)
}

// pointing writes a record that is a name: CNAME, PTR or NS.
func (r *reply) pointing(owner dns.Name, kind uint16, to dns.Name, ttl uint32) bool {
	mark := r.start(owner, kind, ttl)
	data := len(r.b)
	r.name(to)
	return r.done(mark, data, inAnswer)
}

// service writes a SRV record. Its target is not compressed (RFC 2782).
func (r *reply) service(owner dns.Name, srv *dns.SRV, ttl uint32) bool {
	mark := r.start(owner, typeSRV, ttl)
	data := len(r.b)
	r.b = append(r.b, byte(srv.Priority>>8), byte(srv.Priority), byte(srv.Weight>>8), byte(srv.Weight),
		byte(srv.Port>>8), byte(srv.Port))
	r.whole(srv.Target)
	return r.done(mark, data, inAnswer)
}

// text writes a TXT record of one string, of which 255 bytes are kept.
func (r *reply) text(owner dns.Name, text string, ttl uint32) bool {
	mark := r.start(owner, typeTXT, ttl)
	data := len(r.b)
	text = text[:min(len(text), 255)]
	r.b = append(r.b, byte(len(text)))
	r.b = append(r.b, text...)
	return r.done(mark, data, inAnswer)
}

// minimal answers the type ANY, whatever there is (RFC 8482, section 4.2).
func (r *reply) minimal(owner dns.Name, ttl uint32) bool {
	mark := r.start(owner, typeHINFO, ttl)
	data := len(r.b)
	r.b = append(r.b, "\x07RFC8482\x00"...)
	return r.done(mark, data, inAnswer)
}
