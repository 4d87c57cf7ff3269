package dns

import (
	"fmt"
	"net/netip"
	"strings"
)

// Limits of RFC 1035, section 3.1, in bytes. That of a name counts the length of
// each label, and the root.
const (
	maxLabel = 63
	maxName  = 255
)

// ParseName reads a name such as web.default.svc.cluster.local, with or without
// a dot at the end. Escapes are not known: a backslash is one.
func ParseName(text string) (Name, error) {
	wire := make([]byte, 0, len(text)+2)
	for text = strings.TrimSuffix(text, "."); text != ""; {
		label, rest, more := strings.Cut(text, ".")
		if label == "" || len(label) > maxLabel || more && rest == "" {
			return "", fmt.Errorf("%q is not between 1 and %d characters, which a part of a name is", label, maxLabel)
		}
		wire = append(append(wire, byte(len(label))), strings.ToLower(label)...)
		text = rest
	}
	if wire = append(wire, 0); len(wire) > maxName {
		return "", fmt.Errorf("the name has %d bytes, more than %d", len(wire), maxName)
	}
	return Name(wire), nil
}

// String is a name as people write it, with a dot at the end.
func (n Name) String() string {
	if len(n) <= 1 {
		return "."
	}
	var text strings.Builder
	for len(n) > 1 {
		text.WriteString(n.label())
		text.WriteByte('.')
		n = n.parent()
	}
	return text.String()
}

// label is the first one of a name that is not the root.
func (n Name) label() string { return string(n[1 : 1+n[0]]) }

// parent is a name that is not the root without its first label.
func (n Name) parent() Name { return n[1+n[0]:] }

// labels counts them, without the root.
func (n Name) labels() (count int) {
	for ; len(n) > 1; n = n.parent() {
		count++
	}
	return count
}

// child is the name of a label below this one; empty if it would be too long, or
// the label is none.
func (n Name) child(label string) Name {
	if label == "" || len(label) > maxLabel || n == "" || len(n)+1+len(label) > maxName {
		return ""
	}
	return Name(append(append(append(make([]byte, 0, 1+len(label)+len(n)), byte(len(label))), label...), n...))
}

// The domains of reverse names (RFC 1035, section 3.5, and RFC 3596, section 2.5).
const (
	reverse4 = "\x07in-addr\x04arpa\x00"
	reverse6 = "\x03ip6\x04arpa\x00"
)

// reverseOf is the range of addresses whose names lie at or below a reverse name,
// such as 10.0.0.0/8 of 10.in-addr.arpa; invalid if it is the name of none. It
// does not allocate.
func reverseOf(name Name) netip.Prefix {
	const arpa = "\x04arpa\x00"
	if !strings.HasSuffix(string(name), arpa) {
		return netip.Prefix{}
	}
	if rest, ok := strings.CutSuffix(string(name), reverse4); ok {
		return reverse4Of(rest)
	}
	if rest, ok := strings.CutSuffix(string(name), reverse6); ok {
		return reverse6Of(rest)
	}
	return netip.Prefix{}
}

func reverse4Of(rest string) netip.Prefix {
	var parts [4]byte // as they come, the last byte of the address first
	count := 0
	for ; rest != ""; count++ {
		size := int(rest[0])
		if size >= len(rest) || count == len(parts) {
			return netip.Prefix{}
		}
		value, ok := decimal(rest[1 : 1+size])
		if !ok {
			return netip.Prefix{}
		}
		parts[count] = value
		rest = rest[1+size:]
	}
	var addr [4]byte
	for i := range count {
		addr[i] = parts[count-1-i]
	}
	return netip.PrefixFrom(netip.AddrFrom4(addr), 8*count)
}

// decimal reads a byte, which has no zeros in front.
func decimal(text string) (byte, bool) {
	if text == "" || len(text) > 3 || text[0] == '0' && len(text) > 1 {
		return 0, false
	}
	value := 0
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return 0, false
		}
		value = 10*value + int(text[i]-'0')
	}
	return byte(value), value < 256
}

func reverse6Of(rest string) netip.Prefix {
	count := len(rest) / 2 // nibbles, each a label of one character
	if len(rest)%2 != 0 || count > 32 {
		return netip.Prefix{}
	}
	var addr [16]byte
	for i := range count {
		at := 2 * (count - 1 - i)
		value := strings.IndexByte("0123456789abcdef", rest[at+1])
		if rest[at] != 1 || value < 0 {
			return netip.Prefix{}
		}
		addr[i/2] |= byte(value) << (4 * (1 - i%2))
	}
	return netip.PrefixFrom(netip.AddrFrom16(addr), 4*count)
}

// cut is the part of a reverse name that is the name of the range of so many bits
// or, if there is no such, of the next smaller ones.
func cut(name Name, of netip.Prefix, bits int) Name {
	size := 4 // bits of a label
	if of.Addr().Is4() {
		size = 8
	}
	for drop := of.Bits()/size - (bits+size-1)/size; drop > 0; drop-- {
		name = name.parent()
	}
	return name
}
