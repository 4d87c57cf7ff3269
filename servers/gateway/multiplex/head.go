package multiplex

import "strings"

// Head makes of the fields of a request, as they come, its text in HTTP/1.1. What
// the text could not say in one way only is malformed (RFC 9113, section 8, and RFC
// 9114, section 4, which ask for the same): all else is judged by who reads the text,
// as if a client had written it. Reset makes it ready, Field takes the fields in
// their order, and End comes last.
type Head struct {
	Text      []byte // of the request: the first line and fields; of trailers: fields
	Malformed string // what is wrong; empty: nothing
	Long      bool   // there is more than may be
	Length    int64  // of the body, in bytes, as it is declared; -1: it is not
	Method    string
	Protocol  string // that CONNECT asks for (RFC 8441)

	most     int // bytes of the text
	fields   int // that there may be more
	trailers bool
	begun    bool // the first line is written

	scheme, authority, path string
	seen                    uint8 // of pseudo-headers, a bit each
	hosts                   int
	cookies                 []byte
}

// Reset makes it ready for a head of at most so many bytes and fields, or for
// trailers.
func (h *Head) Reset(most, fields int, trailers bool) {
	*h = Head{Text: h.Text[:0], cookies: h.cookies[:0], most: most, fields: fields, trailers: trailers, Length: -1}
}

// Field takes one, its name as it came.
func (h *Head) Field(name, value string) {
	if h.Malformed != "" || h.Long {
		return
	}
	if h.most -= len(name) + len(value) + len(": \r\n"); h.most < 0 {
		h.Long = true
		return
	}
	if strings.HasPrefix(name, ":") {
		h.pseudo(name, value)
		return
	}
	if h.fields--; h.fields < 0 {
		h.Long = true
		return
	}
	if !h.begun && !h.trailers {
		h.begin()
	}
	switch {
	case !isName(name):
		h.Malformed = "the name of a field is no token in lower case"
	case strings.ContainsAny(value, "\r\n\x00"):
		h.Malformed = "the value of a field has a line break or NUL"
	default:
		h.known(name, value)
	}
}

// pseudo takes one of the fields that are the first line.
func (h *Head) pseudo(name, value string) {
	if h.begun || h.trailers {
		h.Malformed = "a pseudo-header follows a field"
		return
	}
	for i := range len(value) {
		if value[i] <= ' ' || value[i] == 0x7f {
			h.Malformed = "a pseudo-header has a space or a control character"
			return
		}
	}
	var into *string
	var bit uint8
	switch name {
	case ":method":
		into, bit = &h.Method, 1
	case ":scheme":
		into, bit = &h.scheme, 2
	case ":authority":
		into, bit = &h.authority, 4
	case ":path":
		into, bit = &h.path, 8
	case ":protocol":
		into, bit = &h.Protocol, 16
	default:
		h.Malformed = "there is no such pseudo-header"
		return
	}
	if h.seen&bit != 0 || value == "" {
		h.Malformed = "a pseudo-header is there twice, or empty"
		return
	}
	h.seen |= bit
	*into = value
}

// begin writes the first line, and Host.
func (h *Head) begin() {
	h.begun = true
	target := h.path
	switch {
	case h.Method == "CONNECT" && h.Protocol == "":
		if h.scheme != "" || h.path != "" || h.authority == "" {
			h.Malformed = "CONNECT has an authority, and nothing else"
			return
		}
		target = h.authority
	case h.Method == "" || h.scheme == "" || h.path == "":
		h.Malformed = "a pseudo-header is missing"
		return
	case h.scheme != "https" && h.scheme != "http":
		h.Malformed = "the scheme is not that of HTTP"
		return
	case h.path[0] != '/' && (h.path != "*" || h.Method != "OPTIONS"):
		h.Malformed = "the path does not begin with a slash"
		return
	case h.Protocol != "":
		if h.Method != "CONNECT" || h.Protocol != "websocket" || h.authority == "" {
			h.Malformed = "a protocol is asked for that is not spoken here"
			return
		}
		h.Method = "GET" // as WebSockets begin in HTTP/1.1
	}
	h.Text = append(append(append(append(h.Text, h.Method...), ' '), target...), " HTTP/1.1\r\n"...)
	if h.authority != "" {
		h.write("Host", h.authority)
	}
	if h.Protocol != "" {
		h.write("Connection", "Upgrade")
		h.write("Upgrade", h.Protocol)
		h.write("Sec-WebSocket-Key", webSocketKey)
	}
}

// webSocketKey is any: that of RFC 6455. What it is answered with, nobody looks at:
// it is there so that caches know that a server speaks the protocol.
const webSocketKey = "dGhlIHNhbXBsZSBub25jZQ=="

// known takes a field, of which some are for connections of HTTP/1.1 only.
func (h *Head) known(name, value string) {
	switch name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		h.Malformed = "a field is for connections of HTTP/1.1"
	case "te":
		if !strings.EqualFold(value, "trailers") {
			h.Malformed = "TE is not trailers"
			return
		}
		h.write(name, value)
	case "host":
		if h.hosts++; h.hosts > 1 || h.authority != "" && !strings.EqualFold(h.authority, value) {
			h.Malformed = "Host is not the authority that is asked for"
			return
		}
		if h.authority == "" {
			h.write("Host", value)
		}
	case "content-length":
		n, ok := number(value)
		if !ok || h.Length >= 0 && h.Length != n {
			h.Malformed = "Content-Length is not one number"
			return
		}
		h.Length = n
	case "cookie": // in one line again: RFC 9113, section 8.2.3
		if len(h.cookies) > 0 {
			h.cookies = append(h.cookies, "; "...)
		}
		h.cookies = append(h.cookies, value...)
	case "sec-websocket-key":
		if h.Protocol == "" {
			h.write(name, value)
		}
	default:
		h.write(name, value)
	}
}

func (h *Head) write(name, value string) {
	h.Text = append(append(append(append(h.Text, name...), ": "...), value...), "\r\n"...)
}

// End writes what is left; whole tells that no body follows. Lengths are written by who knows whether all has come.
func (h *Head) End(whole bool) {
	if h.trailers || h.Long || h.Malformed != "" {
		return
	}
	if !h.begun {
		h.begin()
	}
	if len(h.cookies) > 0 {
		h.Text = append(append(append(h.Text, "Cookie: "...), h.cookies...), "\r\n"...)
	}
	if whole && h.Length > 0 && h.Malformed == "" {
		h.Malformed = "there is no body where Content-Length says that there is one"
	}
}

// number reads a length of up to 18 digits, which fit.
func number(text string) (n int64, ok bool) {
	for i := range len(text) {
		if text[i]-'0' > 9 {
			return 0, false
		}
		n = n*10 + int64(text[i]-'0')
	}
	return n, len(text) > 0 && len(text) <= 18
}

// isName tells whether a text is a token without capital letters.
func isName(text string) bool {
	for i := range len(text) {
		if !inName[text[i]] {
			return false
		}
	}
	return len(text) > 0
}

var inName = func() (t [256]bool) {
	for _, c := range "abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~" {
		t[c] = true
	}
	return t
}()
