package http2

import (
	"hash/maphash"
	"strconv"

	"golang.org/x/net/http2/hpack"
)

// tableSize is that of either dynamic table, in HPACK's bytes: its default.
const tableSize = 4096

// encoder writes the fields of answers (RFC 7541). It keeps in the table what
// answers repeat, and writes all else as it is: Huffman's code would save a fifth of
// that, and cost more time than all the rest.
type encoder struct {
	most, used int
	entries    []entry // the oldest first
	resized    bool    // the next block has to say so
	least      int     // the smallest size since the last block
	seed       maphash.Seed
	lowered    []byte
}

type entry struct {
	hash        uint64
	name, value string
}

func (e *entry) size() int { return len(e.name) + len(e.value) + 32 }

func newEncoder() encoder {
	return encoder{most: tableSize, least: tableSize, seed: maphash.MakeSeed()}
}

// resize sets how large the table may be.
func (e *encoder) resize(most int) {
	e.most, e.resized, e.least = most, true, min(e.least, most)
	e.evict(0)
}

// evict makes room for an entry.
func (e *encoder) evict(size int) {
	gone := 0
	for gone < len(e.entries) && e.used+size > e.most {
		e.used -= e.entries[gone].size()
		gone++
	}
	e.entries = append(e.entries[:0], e.entries[gone:]...)
}

// begin begins a block.
func (e *encoder) begin(b []byte) []byte {
	if !e.resized {
		return b
	}
	if e.least < e.most { // RFC 7541, section 4.2: it was smaller meanwhile
		e.entries, e.used = e.entries[:0], 0
		b = append(b, 0x20) // some take a second one for a mistake unless nothing is left
	}
	b = appendInteger(b, 0x20, 5, e.most)
	e.resized, e.least = false, e.most
	return b
}

// status writes the first field of an answer.
func (e *encoder) status(b []byte, status int) []byte {
	switch status {
	case 200:
		return append(b, 0x88)
	case 204:
		return append(b, 0x89)
	case 206:
		return append(b, 0x8a)
	case 304:
		return append(b, 0x8b)
	case 400:
		return append(b, 0x8c)
	case 404:
		return append(b, 0x8d)
	case 500:
		return append(b, 0x8e)
	}
	return strconv.AppendInt(append(b, 0x08, 3), int64(status), 10)
}

// field writes one.
func (e *encoder) field(b, name, value []byte) []byte {
	e.lowered = appendLower(e.lowered[:0], name)
	name = e.lowered
	index, repeats := static(name)
	if repeats && len(name)+len(value)+32 <= e.most/4 {
		return e.indexed(b, name, value, index)
	}
	first := byte(0x00) // without indexing
	if string(name) == "set-cookie" {
		first = 0x10 // and nobody after us may
	}
	return appendLiteral(b, first, 4, index, name, value)
}

// indexed writes a field that is in the table, or comes into it.
func (e *encoder) indexed(b, name, value []byte, index int) []byte {
	var h maphash.Hash
	h.SetSeed(e.seed)
	_, _ = h.Write(name)
	_ = h.WriteByte(':')
	_, _ = h.Write(value)
	sum := h.Sum64()
	for i := len(e.entries) - 1; i >= 0; i-- {
		if x := &e.entries[i]; x.hash == sum && x.name == string(name) && x.value == string(value) {
			return appendInteger(b, 0x80, 7, staticEntries+len(e.entries)-i)
		}
	}
	added := entry{sum, string(name), string(value)}
	e.evict(added.size())
	e.entries = append(e.entries, added)
	e.used += added.size()
	return appendLiteral(b, 0x40, 6, index, name, value)
}

// appendLiteral appends a field that is in no table, but for its name perhaps.
func appendLiteral(b []byte, first byte, bits, index int, name, value []byte) []byte {
	b = appendInteger(b, first, bits, index)
	if index == 0 {
		b = append(appendInteger(b, 0, 7, len(name)), name...)
	}
	return append(appendInteger(b, 0, 7, len(value)), value...)
}

// appendInteger appends a number, the first bits of which follow some others.
func appendInteger(b []byte, first byte, bits, n int) []byte {
	most := 1<<bits - 1
	if n < most {
		return append(b, first|byte(n))
	}
	b = append(b, first|byte(most))
	for n -= most; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

func appendLower(b, name []byte) []byte {
	for _, c := range name {
		if c-'A' < 26 {
			c |= 0x20
		}
		b = append(b, c)
	}
	return b
}

// staticEntries is how many the static table has.
const staticEntries = 61

// static finds a name of answers in the static table, and tells whether its values
// are those that come again.
func static(name []byte) (index int, repeats bool) {
	switch string(name) {
	case "accept-ranges":
		return 18, true
	case "access-control-allow-origin":
		return 20, true
	case "age":
		return 21, false
	case "cache-control":
		return 24, true
	case "content-disposition":
		return 25, false
	case "content-encoding":
		return 26, true
	case "content-language":
		return 27, true
	case "content-length":
		return 28, false
	case "content-range":
		return 30, false
	case "content-type":
		return 31, true
	case "date":
		return 33, true // for a second
	case "etag":
		return 34, false
	case "expires":
		return 36, false
	case "last-modified":
		return 44, false
	case "link":
		return 45, false
	case "location":
		return 46, false
	case "retry-after":
		return 53, false
	case "server":
		return 54, true
	case "set-cookie":
		return 55, false
	case "strict-transport-security":
		return 56, true
	case "vary":
		return 59, true
	case "www-authenticate":
		return 61, true
	case "content-security-policy", "x-content-type-options", "x-frame-options", "x-powered-by", "referrer-policy", "grpc-status", "alt-svc":
		return 0, true
	}
	return 0, false
}

// newDecoder returns what reads the fields of a client.
func newDecoder(longest int, field func(hpack.HeaderField)) *hpack.Decoder {
	d := hpack.NewDecoder(tableSize, field)
	d.SetMaxStringLength(longest)
	return d
}
