package forward

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
)

// ask is one question to upstreams. Nothing else of a client's query leaves the
// node: neither its EDNS options nor its identifier.
type ask struct {
	name   string // on the wire, in lower case
	qtype  uint16
	do, cd bool
	local  bool   // it is not to ask others (RD is not set)
	trace  *Trace // nil: nobody wants to know
}

// ednsSize is the longest answer taken over UDP: what passes anywhere without
// being fragmented (DNS flag day 2020).
const ednsSize = 1232

// padTo is the block that encrypted queries are padded to (RFC 8467, section
// 4.1), so that their length says nothing.
const padTo = 128

// form is how a question is written for one transport.
type form struct {
	plain bool // without EDNS, for servers that do not know it
	mixed bool // letters in random case ("0x20"), which an answer has to repeat
	pad   bool
}

// pack writes the question as a message. The identifier is the transport's.
func (a *ask) pack(id uint16, f form) []byte {
	msg := make([]byte, headerLen, headerLen+len(a.name)+4+11+4+padTo)
	flags := uint16(flagRD | flagAD)
	if a.local {
		flags &^= flagRD
	}
	if a.cd {
		flags |= flagCD
	}
	binary.BigEndian.PutUint16(msg, id)
	binary.BigEndian.PutUint16(msg[2:], flags)
	msg[5] = 1
	msg = append(msg, a.name...)
	if f.mixed {
		mixCase(msg[headerLen:])
	}
	msg = binary.BigEndian.AppendUint16(msg, a.qtype)
	msg = binary.BigEndian.AppendUint16(msg, classIN)
	if f.plain {
		return msg
	}
	msg[11] = 1
	msg = append(msg, 0, 0, typeOPT, ednsSize>>8, ednsSize&0xff, 0, 0, 0, 0, 0, 0)
	opt := len(msg) - 11
	if a.do {
		msg[opt+7] = 0x80
	}
	if f.pad {
		blank := (padTo - (len(msg)+4)%padTo) % padTo
		msg[opt+10] = byte(4 + blank) // always less than 256
		msg = append(msg, 0, 12, 0, byte(blank))
		msg = append(msg, make([]byte, blank)...)
	}
	return msg
}

// mixCase gives each letter a random case. The generator is the runtime's,
// which is seeded by the kernel and cannot be predicted from its output.
func mixCase(name []byte) {
	bits := rand.Uint64()
	for i, c := range name {
		if i%64 == 63 {
			bits = rand.Uint64()
		}
		if 'a' <= c && c <= 'z' && bits>>(i%64)&1 == 1 {
			name[i] = c &^ 0x20
		}
	}
}

// What an answer may be found to be before anything of it is believed.
var (
	errNotOurs = errors.New("it is no answer to what was asked")
	errCase    = errors.New("it does not repeat the case of the letters that were asked")
)

// verify tells whether a message is the answer to a request: the identifier,
// the question, and that it is an answer at all. Answers that say nothing but
// that the request was not understood may leave the question out, as servers
// do that do not know EDNS.
func verify(request, response []byte) error {
	if len(response) < headerLen || response[0] != request[0] || response[1] != request[1] {
		return errNotOurs
	}
	flags := binary.BigEndian.Uint16(response[2:])
	if flags&flagQR == 0 || flags&opcodeBits != 0 {
		return errNotOurs
	}
	switch binary.BigEndian.Uint16(response[4:]) {
	case 0:
		rcode := flags & rcodeBits
		if len(response) == headerLen && (rcode == rcodeFormat || rcode == rcodeNotImpl) {
			return nil
		}
		return errNotOurs
	case 1:
	default:
		return errNotOurs
	}
	end, ok := nameEnd(request, headerLen)
	if !ok || len(response) < end+4 || !sameName(request[headerLen:end], response[headerLen:end]) ||
		string(request[end:end+4]) != string(response[end:end+4]) {
		return errNotOurs
	}
	if string(request[headerLen:end]) != string(response[headerLen:end]) {
		return errCase
	}
	return nil
}

func rcodeOf(msg []byte) uint16 { return binary.BigEndian.Uint16(msg[2:]) & rcodeBits }

func truncated(msg []byte) bool { return binary.BigEndian.Uint16(msg[2:])&flagTC != 0 }
