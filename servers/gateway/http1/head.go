package http1

import "bytes"

// Limits bound a head. What exceeds them is refused before more of it is read.
type Limits struct {
	Line   int // of the first line, bytes
	Head   int // of all of it, bytes
	Fields int
}

// Usual are limits that suit most: those of browsers' cookies and of long URLs.
func Usual() Limits { return Limits{Line: 8 << 10, Head: 32 << 10, Fields: 128} }

// How long a body is, if it is not a number of bytes.
const (
	Chunked    int64 = -1
	UntilClose int64 = -2 // of responses only
)

type span struct{ from, to uint32 }

func (s span) of(text []byte) []byte { return text[s.from:s.to] }

// Field is one line of a head.
type Field struct {
	name, value span
	Known       Known
	Hop         bool // for this connection only: it is not passed on
	Underscore  bool // its name has one, which some applications take for a dash
}

// Head is what requests and responses have in common.
type Head struct {
	text   []byte
	at     uint32 // where the line begins that is read next
	looked int    // up to where there is no end of that line
	fields []Field

	Minor   uint8 // the version is 1.Minor
	Length  int64 // of the body: bytes, Chunked or UntilClose
	Persist bool  // the sender keeps the connection after this message
	Options Options

	hosts, lengths, codings, upgrades uint8
	upgrade                           span
}

// Options are what Connection says.
type Options uint8

// The options.
const (
	Close Options = 1 << iota
	Keep
	Upgrading
	naming // of fields
)

func (h *Head) reset() {
	*h = Head{fields: h.fields[:0]}
}

// Size is how many bytes the head has. The body, or the next message, follows.
func (h *Head) Size() int { return int(h.at) }

// Declared tells whether there is a Content-Length.
func (h *Head) Declared() bool { return h.lengths > 0 }

// Fields are all of them, in their order. They last as long as the bytes.
func (h *Head) Fields() []Field { return h.fields }

// Name is that of a field, as it was written.
func (h *Head) Name(f *Field) []byte { return f.name.of(h.text) }

// Value is that of a field, without the space around it.
func (h *Head) Value(f *Field) []byte { return f.value.of(h.text) }

// Get finds the first field of a name, given in lower case, that is passed on.
func (h *Head) Get(name string) (value []byte, ok bool) {
	for i := range h.fields {
		if f := &h.fields[i]; !f.Hop && isName(h.Name(f), name) {
			return h.Value(f), true
		}
	}
	return nil, false
}

// UpgradeTo is the protocol that the sender would rather speak, or nil.
func (h *Head) UpgradeTo() []byte {
	if h.upgrades == 0 || h.Options&Upgrading == 0 {
		return nil
	}
	return h.upgrade.of(h.text)
}

// line returns the next whole line, without its end.
func (h *Head) line() (s span, ok bool, err *Error) {
	i := bytes.IndexByte(h.text[h.looked:], '\n')
	if i < 0 {
		h.looked = len(h.text)
		return span{}, false, nil
	}
	end := uint32(h.looked + i)
	if end == h.at || h.text[end-1] != '\r' {
		return span{}, false, errLineEnd
	}
	s = span{h.at, end - 1}
	h.at = end + 1
	h.looked = int(h.at)
	return s, true, nil
}

// more reads fields up to the empty line. It returns false if that has not come.
func (h *Head) more(limits *Limits) (bool, *Error) {
	for {
		s, ok, err := h.line()
		if err != nil {
			return false, err
		}
		if int(h.at) > limits.Head || !ok && len(h.text) >= limits.Head {
			return false, errLongHead
		}
		if !ok {
			return false, nil
		}
		if s.from == s.to {
			return true, nil
		}
		if len(h.fields) == limits.Fields {
			return false, errManyFields
		}
		if err := h.field(s); err != nil {
			return false, err
		}
	}
}

// field reads one.
func (h *Head) field(s span) *Error {
	text := h.text[s.from:s.to]
	if text[0] == ' ' || text[0] == '\t' {
		return errFold
	}
	n, underscore := 0, false
	for n < len(text) && octets[text[n]]&token != 0 {
		underscore = underscore || text[n] == '_'
		n++
	}
	if n == 0 || n == len(text) || text[n] != ':' {
		return errName
	}
	from, to := n+1, len(text)
	for from < to && (text[from] == ' ' || text[from] == '\t') {
		from++
	}
	for to > from && (text[to-1] == ' ' || text[to-1] == '\t') {
		to--
	}
	value := text[from:to]
	if !isValue(value) {
		return errValue
	}
	f := Field{name: span{s.from, s.from + uint32(n)}, value: span{s.from + uint32(from), s.from + uint32(to)}, Known: known(text[:n]), Underscore: underscore}
	f.Hop = f.Known.hop()
	h.fields = append(h.fields, f)
	return h.meaning(&f, value)
}

// meaning takes note of a field that says something about the message itself.
func (h *Head) meaning(f *Field, value []byte) *Error {
	switch f.Known {
	case Host:
		if h.hosts++; h.hosts > 1 {
			return errTwoHosts
		}
	case ContentLength:
		if h.lengths++; h.lengths > 1 {
			return errTwoLengths
		}
		n, ok := number(value)
		if !ok {
			return errLength
		}
		h.Length = n
	case TransferEncoding:
		if h.codings++; h.codings > 1 {
			return errTwoCodings
		}
		if !isName(value, "chunked") {
			return errCoding
		}
	case Connection:
		h.connection(value)
	case Upgrade:
		if h.upgrades++; h.upgrades > 1 {
			return errUpgrade
		}
		h.upgrade = f.value
	}
	return nil
}

// number reads a length of up to 18 digits, which fit.
func number(value []byte) (n int64, ok bool) {
	if len(value) == 0 || len(value) > 18 || !all(value, digit) {
		return 0, false
	}
	for _, c := range value {
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// connection takes note of options. Fields are struck out once all have come.
func (h *Head) connection(value []byte) {
	for option := range elements(value) {
		switch {
		case isName(option, "close"):
			h.Options |= Close
		case isName(option, "keep-alive"):
			h.Options |= Keep
		case isName(option, "upgrade"):
			h.Options |= Upgrading
		case !all(option, token): // others may read a "close" in it
			h.Options |= Close | naming
		default:
			h.Options |= naming
		}
	}
}

// elements are those of a list that are not empty (RFC 9110, section 5.6.1).
func elements(value []byte) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(value) > 0 {
			element, rest, _ := bytes.Cut(value, []byte{','})
			value = rest
			if element = bytes.Trim(element, " \t"); len(element) > 0 && !yield(element) {
				return
			}
		}
	}
}

// finish decides on what only all fields together say.
func (h *Head) finish() *Error {
	if h.codings > 0 {
		switch {
		case h.lengths > 0:
			return errBoth
		case h.Minor == 0:
			return errCodingIn10
		}
		h.Length = Chunked
	}
	h.Persist = h.Options&Close == 0 && (h.Minor == 1 || h.Options&Keep != 0)
	if h.Options&naming == 0 {
		return nil
	}
	for i := range h.fields {
		if h.fields[i].Known != Connection {
			continue
		}
		for option := range elements(h.Value(&h.fields[i])) {
			if err := h.strike(option); err != nil {
				return err
			}
		}
	}
	return nil
}

// strike marks the fields of a name as those of this connection.
func (h *Head) strike(name []byte) *Error {
	switch known(name) {
	case Host, ContentLength, TransferEncoding:
		return errConnection
	}
	for i := range h.fields {
		if f := &h.fields[i]; bytes.EqualFold(h.Name(f), name) {
			f.Hop = true
		}
	}
	return nil
}
