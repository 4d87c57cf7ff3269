package http2

import (
	"strings"

	"golang.org/x/net/http2/hpack"
)

// head makes of the fields of a request, as they come, its text in HTTP/1.1. What
// the text could not say in one way only is malformed (RFC 9113, section 8): all
// else is judged by who reads the text, as if a client had written it.
type head struct {
	text   []byte // of the request: the first line and fields; of trailers: fields
	most   int    // bytes of the text
	fields int    // that there may be more

	trailers  bool
	begun     bool // the first line is written
	malformed string
	long      bool // there is more than may be

	method, scheme, authority, path, protocol string
	seen                                      uint8 // of those, a bit each
	hosts                                     int
	length                                    int64 // that is declared; -1: none
	cookies                                   []byte
}

func (h *head) reset(most, fields int, trailers bool) {
	*h = head{text: h.text[:0], cookies: h.cookies[:0], most: most, fields: fields, trailers: trailers, length: -1}
}

// field takes one.
func (h *head) field(f hpack.HeaderField) {
	if h.malformed != "" || h.long {
		return
	}
	if h.most -= len(f.Name) + len(f.Value) + len(": \r\n"); h.most < 0 {
		h.long = true
		return
	}
	if strings.HasPrefix(f.Name, ":") {
		h.pseudo(f.Name, f.Value)
		return
	}
	if h.fields--; h.fields < 0 {
		h.long = true
		return
	}
	if !h.begun && !h.trailers {
		h.begin()
	}
	switch {
	case !isName(f.Name):
		h.malformed = "the name of a field is no token in lower case"
	case strings.ContainsAny(f.Value, "\r\n\x00"):
		h.malformed = "the value of a field has a line break or NUL"
	default:
		h.known(f.Name, f.Value)
	}
}

// pseudo takes one of the fields that are the first line.
func (h *head) pseudo(name, value string) {
	if h.begun || h.trailers {
		h.malformed = "a pseudo-header follows a field"
		return
	}
	for i := range len(value) {
		if value[i] <= ' ' || value[i] == 0x7f {
			h.malformed = "a pseudo-header has a space or a control character"
			return
		}
	}
	var into *string
	var bit uint8
	switch name {
	case ":method":
		into, bit = &h.method, 1
	case ":scheme":
		into, bit = &h.scheme, 2
	case ":authority":
		into, bit = &h.authority, 4
	case ":path":
		into, bit = &h.path, 8
	case ":protocol":
		into, bit = &h.protocol, 16
	default:
		h.malformed = "there is no such pseudo-header"
		return
	}
	if h.seen&bit != 0 || value == "" {
		h.malformed = "a pseudo-header is there twice, or empty"
		return
	}
	h.seen |= bit
	*into = value
}

// begin writes the first line, and Host.
func (h *head) begin() {
	h.begun = true
	target := h.path
	switch {
	case h.method == "CONNECT" && h.protocol == "":
		if h.scheme != "" || h.path != "" || h.authority == "" {
			h.malformed = "CONNECT has an authority, and nothing else"
			return
		}
		target = h.authority
	case h.method == "" || h.scheme == "" || h.path == "":
		h.malformed = "a pseudo-header is missing"
		return
	case h.scheme != "https" && h.scheme != "http":
		h.malformed = "the scheme is not that of HTTP"
		return
	case h.path[0] != '/' && (h.path != "*" || h.method != "OPTIONS"):
		h.malformed = "the path does not begin with a slash"
		return
	case h.protocol != "":
		if h.method != "CONNECT" || h.protocol != "websocket" || h.authority == "" {
			h.malformed = "a protocol is asked for that is not spoken here"
			return
		}
		h.method = "GET" // as WebSockets begin in HTTP/1.1
	}
	h.text = append(append(append(append(h.text, h.method...), ' '), target...), " HTTP/1.1\r\n"...)
	if h.authority != "" {
		h.write("Host", h.authority)
	}
	if h.protocol != "" {
		h.write("Connection", "Upgrade")
		h.write("Upgrade", h.protocol)
		h.write("Sec-WebSocket-Key", webSocketKey)
	}
}

// webSocketKey is any: that of RFC 6455. What it is answered with, nobody looks at:
// it is there so that caches know that a server speaks the protocol.
const webSocketKey = "dGhlIHNhbXBsZSBub25jZQ=="

// known takes a field, of which some are for connections of HTTP/1.1 only.
func (h *head) known(name, value string) {
	switch name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		h.malformed = "a field is for connections of HTTP/1.1"
	case "te":
		if !strings.EqualFold(value, "trailers") {
			h.malformed = "TE is not trailers"
			return
		}
		h.write(name, value)
	case "host":
		if h.hosts++; h.hosts > 1 || h.authority != "" && !strings.EqualFold(h.authority, value) {
			h.malformed = "Host is not the authority that is asked for"
			return
		}
		if h.authority == "" {
			h.write("Host", value)
		}
	case "content-length":
		n, ok := number(value)
		if !ok || h.length >= 0 && h.length != n {
			h.malformed = "Content-Length is not one number"
			return
		}
		h.length = n
	case "cookie": // in one line again: RFC 9113, section 8.2.3
		if len(h.cookies) > 0 {
			h.cookies = append(h.cookies, "; "...)
		}
		h.cookies = append(h.cookies, value...)
	case "sec-websocket-key":
		if h.protocol == "" {
			h.write(name, value)
		}
	default:
		h.write(name, value)
	}
}

func (h *head) write(name, value string) {
	h.text = append(append(append(append(h.text, name...), ": "...), value...), "\r\n"...)
}

// end writes what is left. Lengths are written by who knows whether all has come.
func (h *head) end(whole bool) {
	if h.trailers || h.long || h.malformed != "" {
		return
	}
	if !h.begun {
		h.begin()
	}
	if len(h.cookies) > 0 {
		h.text = append(append(append(h.text, "Cookie: "...), h.cookies...), "\r\n"...)
	}
	if whole && h.length > 0 && h.malformed == "" {
		h.malformed = "there is no body where Content-Length says that there is one"
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
