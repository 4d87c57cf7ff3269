package forward

import (
	"encoding/binary"
	"errors"

	"github.com/fairlead-net/fairlead/servers/dns"
)

// What of a message has a fixed place (RFC 1035, section 4.1.1).
const (
	headerLen  = 12
	maxMessage = 65535
	maxName    = 255

	flagQR = 1 << 15
	flagTC = 1 << 9
	flagRD = 1 << 8
	flagRA = 1 << 7
	flagAD = 1 << 5
	flagCD = 1 << 4

	opcodeBits = 0x7800
	rcodeBits  = 0x000f
)

// Types, classes and codes that are treated in a way of their own.
const (
	typeANY = 255
	typeOPT = 41
	classIN = 1

	rcodeSuccess  = 0
	rcodeFormat   = 1
	rcodeServFail = 2
	rcodeNXDomain = 3
	rcodeNotImpl  = 4
	rcodeRefused  = 5
	rcodeYXDomain = 6
)

// nameEnd returns where a name ends that is written out, without pointers, as
// names in questions are.
func nameEnd(msg []byte, at int) (end int, ok bool) {
	start := at
	for at < len(msg) {
		length := int(msg[at])
		at++
		if length == 0 {
			return at, at-start <= maxName
		}
		if length > 63 {
			return 0, false
		}
		at += length
	}
	return 0, false
}

// skipName returns where a name ends that may end in a pointer, which is not
// followed; -1 if it is not whole.
func skipName(msg []byte, at int) int {
	for at < len(msg) {
		length := int(msg[at])
		switch {
		case length == 0:
			return at + 1
		case length >= 0xc0:
			if at+2 > len(msg) {
				return -1
			}
			return at + 2
		case length > 63:
			return -1
		}
		at += 1 + length
	}
	return -1
}

var errNotWhole = errors.New("the message is not whole")

// findTTLs returns where the records of a message have their TTLs.
func findTTLs(msg []byte) ([]uint16, error) {
	if len(msg) < headerLen || len(msg) > maxMessage {
		return nil, errNotWhole
	}
	at, whole := nameEnd(msg, headerLen)
	if !whole {
		return nil, errNotWhole
	}
	at += 4
	records := int(binary.BigEndian.Uint16(msg[6:])) + int(binary.BigEndian.Uint16(msg[8:])) + int(binary.BigEndian.Uint16(msg[10:]))
	if records > len(msg)/11 {
		return nil, errNotWhole
	}
	ttls := make([]uint16, 0, records)
	for range records {
		if at = skipName(msg, at); at < 0 || at+10 > len(msg) {
			return nil, errNotWhole
		}
		ttls = append(ttls, uint16(at+4))
		at += 10 + int(binary.BigEndian.Uint16(msg[at+8:]))
		if at > len(msg) {
			return nil, errNotWhole
		}
	}
	return ttls, nil
}

// key is what answers are told apart by: the name, the type, and whether the
// client wants signatures (DO) and unchecked answers (CD).
type key [maxName + 3]byte

// Bits of the last byte of a key.
const (
	keyDO = 1 << iota
	keyCD
)

// keyOf writes a question's key into a place, so that lookups need no memory.
func keyOf(q dns.Question, into *key) []byte {
	n := copy(into[:maxName], q.Name)
	binary.BigEndian.PutUint16(into[n:], q.Type)
	into[n+2] = 0
	if q.DNSSEC {
		into[n+2] |= keyDO
	}
	if q.CheckingDisabled {
		into[n+2] |= keyCD
	}
	return into[:n+3]
}

// askOf is what is asked upstream for a key.
func askOf(key string) *ask {
	n := len(key) - 3
	return &ask{
		name:  key[:n],
		qtype: uint16(key[n])<<8 | uint16(key[n+1]),
		do:    key[n+2]&keyDO != 0,
		cd:    key[n+2]&keyCD != 0,
	}
}

// sameName tells whether two names on the wire differ in their case at most.
// The lengths of labels are below the letters.
func sameName(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c |= 0x20
	}
	return c
}
