package dns

import (
	"unsafe"

	"github.com/fairlead-net/fairlead/plan/dns"
)

// query is what matters of a message that a client sent. It is reused from one to
// the next, so that reading costs no memory.
type query struct {
	message     []byte // as it came
	flags       uint16
	kind, class uint16 // what is asked for
	edns        bool   // the client knows EDNS
	signatures  bool   // DO: wants DNSSEC's records
	size        int    // of the answer by UDP that it takes, in bytes

	lower  [maxName]byte // the name in lower case
	length int           // of the name; 0: there is no question
}

// fate is what becomes of a message once it is read.
type fate uint8

const (
	ignore fate = iota // there is nothing that could be answered
	refuse             // it is answered with an rcode alone
	answer             // it is a question
)

// read takes a message apart. Nothing of it is trusted: what does not belong into
// a query is refused with the rcode that is returned.
//
//   - What has no header, or is a response, is ignored: two servers would answer
//     each other for ever.
//   - One question is asked for (RFC 9619).
//   - Compression is of no use in the first name of a message.
func (q *query) read(message []byte) (fate, rcode) {
	q.message, q.length, q.edns, q.signatures, q.size = message, 0, false, false, plainSize
	if len(message) < headerSize {
		return ignore, noError
	}
	q.flags = be.Uint16(message[2:])
	if q.flags&flagQR != 0 {
		return ignore, noError
	}
	if q.flags&maskOpcode != 0 {
		return refuse, notImplemented
	}
	if be.Uint16(message[4:]) != 1 || be.Uint16(message[6:]) != 0 {
		return refuse, formatError
	}
	at, ok := q.readName(message)
	if !ok || at+4 > len(message) {
		q.length = 0
		return refuse, formatError
	}
	q.kind, q.class = be.Uint16(message[at:]), be.Uint16(message[at+2:])
	return q.readRest(message, at+4)
}

// readName reads the question's name, and returns where it ends.
func (q *query) readName(message []byte) (end int, ok bool) {
	at := headerSize
	for at < len(message) {
		label := int(message[at])
		if label > maxLabel || at+1+label > len(message) || at-headerSize+1+label > maxName {
			return 0, false
		}
		q.lower[at-headerSize] = byte(label)
		for i := at + 1; i <= at+label; i++ {
			q.lower[i-headerSize] = lower(message[i])
		}
		at += 1 + label
		if label == 0 {
			q.length = at - headerSize
			return at, true
		}
	}
	return 0, false
}

// maxExtra bounds the records of a query that are not its question. One of EDNS
// and one of a signature is what there is.
const maxExtra = 4

// readRest reads the sections after the question, of which only the OPT record
// matters.
func (q *query) readRest(message []byte, at int) (fate, rcode) {
	authority, additional := int(be.Uint16(message[8:])), int(be.Uint16(message[10:]))
	if authority+additional > maxExtra {
		return refuse, formatError
	}
	version := byte(0)
	for i := range authority + additional {
		r, ok := recordAt(message, at)
		if !ok {
			return refuse, formatError
		}
		at = r.next
		if r.kind != typeOPT {
			continue
		}
		// One at most, of the root, in the last section (RFC 6891, section 6.1.1).
		if q.edns || i < authority || message[r.owner] != 0 || !wellFormedOptions(message[r.data:r.next]) {
			return refuse, formatError
		}
		q.edns, q.signatures = true, r.ttl&0x8000 != 0
		q.size = min(max(int(r.class), plainSize), ednsSize)
		version = byte(r.ttl >> 16)
	}
	if version != 0 {
		return refuse, badVersion
	}
	return answer, noError
}

// wellFormedOptions tells whether EDNS options are as long as they say. What they
// are does not matter: those that a server does not know, it ignores (RFC 6891,
// section 6.1.2), and this one knows none.
func wellFormedOptions(options []byte) bool {
	for len(options) > 0 {
		if len(options) < 4 || len(options) < 4+int(be.Uint16(options[2:])) {
			return false
		}
		options = options[4+int(be.Uint16(options[2:])):]
	}
	return true
}

// name is what is asked for. It lasts until the next read.
func (q *query) name() dns.Name {
	return dns.Name(unsafe.String(&q.lower[0], q.length))
}

// question is where the question is in the message, as the client wrote it.
func (q *query) question() []byte {
	if q.length == 0 {
		return nil
	}
	return q.message[headerSize : headerSize+q.length+4]
}
