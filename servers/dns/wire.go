package dns

import (
	"encoding/binary"

	"github.com/fairlead-net/fairlead/plan/dns"
)

// Types of records (RFC 1035, section 3.2.2, and IANA's registry of DNS parameters).
const (
	typeA     = 1
	typeNS    = 2
	typeCNAME = 5
	typeSOA   = 6
	typePTR   = 12
	typeHINFO = 13
	typeMX    = 15
	typeTXT   = 16
	typeAAAA  = 28
	typeSRV   = 33
	typeDNAME = 39
	typeOPT   = 41
	typeTKEY  = 249
	typeTSIG  = 250
	typeIXFR  = 251
	typeAXFR  = 252
	typeMAILB = 253
	typeMAILA = 254
	typeANY   = 255
)

// Classes.
const (
	classIN  = 1
	classANY = 255
)

// rcode is what became of a query (RFC 1035, section 4.1.1; RFC 6891, section 9).
type rcode uint16

const (
	noError        rcode = 0
	formatError    rcode = 1
	serverFailure  rcode = 2
	nameError      rcode = 3 // NXDOMAIN
	notImplemented rcode = 4
	refused        rcode = 5
	badVersion     rcode = 16
)

// String is as Prometheus and people know it.
func (r rcode) String() string {
	switch r {
	case noError:
		return "NOERROR"
	case formatError:
		return "FORMERR"
	case serverFailure:
		return "SERVFAIL"
	case nameError:
		return "NXDOMAIN"
	case notImplemented:
		return "NOTIMP"
	case refused:
		return "REFUSED"
	case badVersion:
		return "BADVERS"
	}
	return "other"
}

// Bits of the second word of a header.
const (
	flagQR     = 1 << 15 // it is a response
	flagAA     = 1 << 10 // of the server that owns the name
	flagTC     = 1 << 9  // something is missing
	flagRD     = 1 << 8  // others may be asked
	flagRA     = 1 << 7  // others can be asked
	flagAD     = 1 << 5  // validated
	flagCD     = 1 << 4  // is not to be validated
	maskOpcode = 0xf << 11
	maskRcode  = 0xf
)

// Sizes, in bytes.
const (
	headerSize  = 12
	optSize     = 11   // an OPT record without options
	maxLabel    = 63   // RFC 1035, section 2.3.4
	maxName     = 255  // on the wire, likewise
	plainSize   = 512  // what a client without EDNS takes by UDP (RFC 1035, section 4.2.1)
	ednsSize    = 1232 // what is sent by UDP at most, so that no path has to fragment (DNS flag day 2020)
	maxMessage  = 65535
	pointerMark = 0xc000 // of a name that goes on elsewhere (RFC 1035, section 4.1.4)
	maxPointer  = 0x3fff
	atQuestion  = headerSize // where the name of the question begins
)

var be = binary.BigEndian

// skipName returns where a name ends that begins at an offset, without following
// pointers, and false if it does not end in the message.
func skipName(message []byte, at int) (int, bool) {
	for length := 0; at < len(message); {
		label := int(message[at])
		switch {
		case label == 0:
			return at + 1, true
		case label&0xc0 == 0xc0:
			return at + 2, at+2 <= len(message)
		case label > maxLabel:
			return 0, false
		}
		at += 1 + label
		if length += 1 + label; length > maxName {
			return 0, false
		}
	}
	return 0, false
}

// record is one resource record of a message: where its parts are.
type record struct {
	owner      int // offset of its name
	kind       uint16
	class      uint16
	ttl        uint32
	data, next int // offsets of its data, and of what follows it
}

// recordAt reads the record that begins at an offset, and false if it is not all
// there.
func recordAt(message []byte, at int) (record, bool) {
	end, ok := skipName(message, at)
	if !ok || end+10 > len(message) {
		return record{}, false
	}
	r := record{
		owner: at, kind: be.Uint16(message[end:]), class: be.Uint16(message[end+2:]),
		ttl: be.Uint32(message[end+4:]), data: end + 10,
	}
	r.next = r.data + int(be.Uint16(message[end+8:]))
	return r, r.next <= len(message)
}

// maxPointers bounds how often a name goes on elsewhere. One that is as long as a
// name can be, and has a pointer after each label, has no more.
const maxPointers = 126

// nameAt appends the name at an offset to into, in lower case, with all pointers
// followed, and returns where it ends in the message. It returns false if it is
// none: of a pointer that does not lead backwards, for instance.
func nameAt(message []byte, at int, into []byte) (name []byte, end int, ok bool) {
	began := len(into)
	for pointers := 0; at < len(message); {
		label := int(message[at])
		switch {
		case label == 0:
			if end == 0 {
				end = at + 1
			}
			into = append(into, 0)
			return into, end, len(into)-began <= maxName
		case label&0xc0 == 0xc0:
			if at+2 > len(message) {
				return into, 0, false
			}
			if end == 0 {
				end = at + 2
			}
			to := int(be.Uint16(message[at:]) & maxPointer)
			if pointers++; to >= at || pointers > maxPointers {
				return into, 0, false
			}
			at = to
			continue
		case label > maxLabel || at+1+label > len(message) || len(into)-began+1+label >= maxName:
			return into, 0, false
		}
		into = append(into, byte(label))
		for _, c := range message[at+1 : at+1+label] {
			into = append(into, lower(c))
		}
		at += 1 + label
	}
	return into, 0, false
}

// lower is the small letter of a large one of ASCII, which are the same in names
// (RFC 4343).
func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}

// parent is a name without its first label; the root has none, and is returned.
func parent(name dns.Name) dns.Name {
	if len(name) <= 1 {
		return name
	}
	return name[1+name[0]:]
}
