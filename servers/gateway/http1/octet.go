package http1

import "encoding/binary"

// octet is what a byte may be part of.
type octet uint8

// The sets of bytes.
const (
	token      octet = 1 << iota // names of fields, methods (RFC 9110, section 5.6.2)
	unreserved                   // RFC 3986, section 2.3
	inPath                       // as it is: RFC 3986's pchar, without the percent sign
	inTarget                     // anywhere in a target, refused or not by what follows
	escaped                      // of a path: is passed on as %XX
	inHost                       // names of hosts
	digit
	hexadecimal
)

var octets = func() (t [256]octet) {
	set := func(chars string, o octet) {
		for i := range len(chars) {
			t[chars[i]] |= o
		}
	}
	const lower, upper, digits = "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789"
	set(lower+upper+digits+"!#$%&'*+-.^_`|~", token)
	set(lower+upper+digits+"-._~", unreserved|inPath)
	set("!$&'()*+,;=:@", inPath)
	set("\"<>^`{|}[]", escaped)
	set(lower+upper+digits+"-._", inHost)
	set(digits, digit)
	set(digits+"abcdefABCDEF", hexadecimal)
	for c := range t {
		if c >= 0x80 {
			t[c] |= escaped
		}
		if c > ' ' && c != 0x7f && c != '#' {
			t[c] |= inTarget
		}
	}
	return t
}()

func all(text []byte, o octet) bool {
	for _, c := range text {
		if octets[c]&o == 0 {
			return false
		}
	}
	return true
}

// isValue tells whether a text may be the value of a field: visible characters,
// bytes that are not ASCII, spaces and tabs (RFC 9110, section 5.5). It looks at
// eight bytes at once as long as none is below a space, or DEL.
func isValue(text []byte) bool {
	const each = 0x0101010101010101
	for len(text) >= 8 {
		v := binary.LittleEndian.Uint64(text)
		del := v ^ each*0x7f
		if ((v-each*0x20)&^v|(del-each)&^del)&(each*0x80) != 0 && !isValueSlow(text[:8]) {
			return false
		}
		text = text[8:]
	}
	return isValueSlow(text)
}

func isValueSlow(text []byte) bool {
	for _, c := range text {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if c-'A' < 26 {
		c |= 0x20
	}
	return c
}

// isName tells whether a text is a name that is given in lower case.
func isName(text []byte, name string) bool {
	if len(text) != len(name) {
		return false
	}
	for i := range len(name) {
		if lower(text[i]) != name[i] {
			return false
		}
	}
	return true
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}
