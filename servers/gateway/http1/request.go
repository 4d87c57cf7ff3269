package http1

import (
	"bytes"
	"net/netip"
)

// Form is how a request names what it is about (RFC 9112, section 3.2).
type Form uint8

// The forms.
const (
	Origin    Form = iota // a path
	Absolute              // a URL
	Authority             // host and port, of CONNECT
	Asterisk              // the server itself, of OPTIONS
)

// Request is the head of one. It is reused from one to the next: all that it
// returns lasts as long as the bytes that it was read from, and until Reset.
type Request struct {
	Head
	Method []byte
	Target []byte // as it was written
	Form   Form
	Path   []byte // in its one normal form: see the package
	// Decoded is Path as rules are compared with it: without escapes, and without a
	// slash after a slash. It may have any byte but NUL.
	Decoded []byte
	Query   []byte // without its question mark, which is there if Asked
	Asked   bool
	Host    []byte // in lower case, without a port; empty: HTTP/1.0 may be without
	Port    []byte // of the host, as the client wrote it; may be empty
	// Encoded tells that the path has an escaped slash or backslash, which some
	// applications take for a separator.
	Encoded bool
	Expects bool // the client waits for 100 Continue before it sends the body

	method, target span
	host           span // the value of the field
	begun          bool
	path, lowered  []byte // what was not in its normal form
	decoded        []byte // what is not as it was passed on
}

// Reset makes it ready for the next.
func (r *Request) Reset() {
	r.Head.reset()
	*r = Request{Head: r.Head, path: r.path[:0], lowered: r.lowered[:0], decoded: r.decoded[:0]}
}

// Parse goes on reading a head of which these are the bytes so far, those of
// earlier calls among them. It returns true once the head is whole.
func (r *Request) Parse(text []byte, limits *Limits) (bool, *Error) {
	r.text = text
	for !r.begun {
		s, ok, err := r.line()
		if err != nil {
			return false, err
		}
		if int(s.to-s.from) > limits.Line || !ok && len(text)-int(r.at) >= limits.Line {
			return false, errLongLine
		}
		if !ok {
			return false, nil
		}
		if s.from == 0 && s.to == 0 { // one empty line is ignored: RFC 9112, section 2.2
			continue
		}
		r.begun = true
		if err := r.first(s); err != nil {
			return false, err
		}
	}
	if done, err := r.more(limits); !done {
		return false, err
	}
	if err := r.finish(); err != nil {
		return false, err
	}
	return true, nil
}

// first reads the first line.
func (r *Request) first(s span) *Error {
	text := s.of(r.text)
	m := bytes.IndexByte(text, ' ')
	if m <= 0 || !isMethod(text[:m]) {
		return errRequest
	}
	t := bytes.IndexByte(text[m+1:], ' ')
	if t <= 0 {
		return errRequest
	}
	version := text[m+1+t+1:]
	if len(version) != 8 || string(version[:5]) != "HTTP/" || version[6] != '.' || octets[version[5]]&digit == 0 || octets[version[7]]&digit == 0 {
		return errRequest
	}
	if version[5] != '1' || version[7] > '1' {
		return errVersion
	}
	r.Minor = version[7] - '0'
	r.method = span{s.from, s.from + uint32(m)}
	r.target = span{r.method.to + 1, r.method.to + 1 + uint32(t)}
	if !all(r.target.of(r.text), inTarget) {
		return errPath
	}
	return nil
}

// isMethod tells whether a text is a method as all are that anybody has registered,
// and as nginx takes them: of capital letters, dashes and underscores.
func isMethod(text []byte) bool {
	for _, c := range text {
		if c-'A' >= 26 && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// finish decides on what all of the head says.
func (r *Request) finish() *Error {
	if err := r.Head.finish(); err != nil {
		return err
	}
	r.Method, r.Target = r.method.of(r.text), r.target.of(r.text)
	if err := r.special(); err != nil {
		return err
	}
	if r.hosts == 0 && r.Minor == 1 {
		return errNoHost
	}
	field := r.host.of(r.text)
	authority, rest, err := r.split(field)
	if err != nil {
		return err
	}
	if len(authority) > 0 || r.hosts > 0 {
		if err := r.name(authority); err != nil {
			return err
		}
	}
	if r.Form == Asterisk || r.Form == Authority {
		r.Path, r.Decoded = r.Target, r.Target
		return nil
	}
	path, query, asked := bytes.Cut(rest, []byte{'?'})
	r.Query, r.Asked = query, asked
	if plain(path) {
		r.Path, r.Decoded = path, path
		return nil
	}
	if r.path, r.Encoded, err = normal(r.path, path); err != nil {
		return err
	}
	r.Path, r.Decoded = r.path, r.path
	if bytes.IndexByte(r.path, '%') >= 0 {
		r.decoded = appendDecoded(r.decoded[:0], r.path)
		r.Decoded = r.decoded
	}
	return nil
}

// special looks at the fields that only requests have.
func (r *Request) special() *Error {
	for i := range r.fields {
		f := &r.fields[i]
		switch f.Known {
		case Host:
			r.host = f.value
		case Expect:
			if !isName(r.Value(f), "100-continue") {
				return errExpect
			}
			r.Expects = r.Minor == 1
		case Trailer:
			for name := range elements(r.Value(f)) {
				if k := known(name); k == ContentLength || k == TransferEncoding || k == Trailer {
					return errTrailer
				}
			}
		}
	}
	return nil
}

// split finds out what form the target has, and returns who is asked, and for
// what. Host and URL must name the same.
func (r *Request) split(field []byte) (authority, rest []byte, err *Error) {
	switch {
	case r.Target[0] == '/':
		return field, r.Target, nil
	case string(r.Target) == "*":
		if string(r.Method) != "OPTIONS" {
			return nil, nil, errTarget
		}
		r.Form = Asterisk
		return field, nil, nil
	case string(r.Method) == "CONNECT":
		r.Form, authority = Authority, r.Target
	default:
		r.Form = Absolute
		scheme, after, ok := bytes.Cut(r.Target, []byte("://"))
		if !ok || !isName(scheme, "http") && !isName(scheme, "https") {
			return nil, nil, errTarget
		}
		end := bytes.IndexAny(after, "/?")
		if end < 0 {
			end = len(after)
		}
		authority, rest = after[:end], after[end:]
	}
	if r.hosts > 0 && !bytes.EqualFold(authority, field) {
		return nil, nil, errOtherHost
	}
	if len(authority) == 0 {
		return nil, nil, errHost
	}
	return authority, rest, nil
}

// name reads who is asked.
func (r *Request) name(authority []byte) *Error {
	host, port, ok := cutPort(authority)
	if !ok || len(host) == 0 || len(host) > 255 {
		return errHost
	}
	if host[0] != '[' {
		host = bytes.TrimSuffix(host, []byte{'.'})
		if len(host) == 0 || !all(host, inHost) {
			return errHost
		}
	}
	r.Host, r.Port = host, port
	for i, c := range host {
		if c-'A' < 26 {
			r.lowered = append(r.lowered[:0], host...)
			for ; i < len(host); i++ {
				r.lowered[i] = lower(host[i])
			}
			r.Host = r.lowered
			break
		}
	}
	return nil
}

// cutPort cuts the port off a host, which may be an IPv6 address in brackets.
func cutPort(authority []byte) (host, port []byte, ok bool) {
	colon := bytes.IndexByte(authority, ':')
	if len(authority) > 0 && authority[0] == '[' {
		end := bytes.IndexByte(authority, ']')
		if end < 3 {
			return nil, nil, false
		}
		if addr, err := netip.ParseAddr(string(authority[1:end])); err != nil || !addr.Is6() || addr.Zone() != "" {
			return nil, nil, false
		}
		if end+1 == len(authority) {
			return authority, nil, true
		}
		if colon = end + 1; authority[colon] != ':' {
			return nil, nil, false
		}
	}
	if colon < 0 {
		return authority, nil, true
	}
	port = authority[colon+1:]
	return authority[:colon], port, len(port) <= 5 && all(port, digit)
}

// Idempotent tells whether a request may be sent twice without harm (RFC 9110,
// section 9.2.2).
func (r *Request) Idempotent() bool {
	switch string(r.Method) {
	case "GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE":
		return true
	}
	return false
}
