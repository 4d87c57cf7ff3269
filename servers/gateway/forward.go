package gateway

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/fairlead-net/fairlead/servers/gateway/http1"
)

// introduce writes down what endpoints are told of the client.
func (c *client) introduce() {
	scheme := "http"
	if c.at.Secure {
		scheme = "https"
	}
	b := c.forwarded[:0]
	for _, f := range [][2]string{{"X-Real-IP", c.remote.String()}, {"X-Forwarded-For", c.remote.String()}, {"X-Forwarded-Proto", scheme}, {"X-Forwarded-Scheme", scheme}, {"X-Forwarded-Port", strconv.Itoa(int(c.at.port()))}} {
		b = appendField(b, f[0], f[1])
	}
	c.forwarded = b
}

// learn takes note of what a table says of the client. It costs no memory.
func (c *client) learn(table *Table) {
	c.proxies, c.compress = table.Trusted, table.Compress
	c.trusted = c.trusts(c.remote)
}

// client finds who a trusted proxy says that asks: the last of X-Forwarded-For that
// is no trusted proxy itself.
func (c *client) client() netip.Addr {
	who := c.remote
	for i := len(c.request.Fields()) - 1; i >= 0; i-- {
		f := &c.request.Fields()[i]
		if f.Known != http1.XForwardedFor || f.Hop {
			continue
		}
		for list := c.request.Value(f); len(list) > 0; {
			at := bytes.LastIndexByte(list, ',') + 1
			text := string(bytes.TrimSpace(list[at:]))
			addr, err := netip.ParseAddr(text)
			if with, other := netip.ParseAddrPort(text); other == nil { // as some proxies write it
				addr, err = with.Addr(), nil
			}
			if err != nil {
				return who
			}
			who = addr.Unmap()
			if !c.trusts(who) {
				return who
			}
			list = list[:max(at-1, 0)]
		}
	}
	return who
}

func (c *client) trusts(addr netip.Addr) bool {
	return within(c.proxies, addr)
}

// appendRequest writes the head that an endpoint gets. length is that of the body.
// It is refused if its path is none once it is rewritten.
func (c *client) appendRequest(b []byte, route *Route, length int64, upgrade []byte) ([]byte, *http1.Error) {
	r := &c.request
	if route.Method != "" && string(r.Method) != http.MethodHead {
		b = append(append(b, route.Method...), ' ')
	} else {
		b = append(append(b, r.Method...), ' ')
	}
	if route.Rewrite != nil {
		at := len(b)
		b = route.Rewrite(b, &c.ask)
		target, refused := http1.Rewritten(b[at:])
		if refused != nil {
			return nil, refused
		}
		b = append(b[:at], target...)
	} else {
		b = append(b, r.Path...)
		if r.Asked {
			b = append(append(b, '?'), r.Query...)
		}
	}
	b = append(b, " HTTP/1.1\r\nHost: "...)
	at := len(b)
	if route.Host != nil {
		b = plain(route.Host(b, &c.ask), at)
	}
	if len(b) == at {
		b = appendHost(b, r)
	}
	b = append(b, "\r\n"...)
	edits := &route.Request
	untouched := edits.empty()
	for i := range r.Fields() {
		f := &r.Fields()[i]
		if f.Known != http1.Other && !c.passes(f) || f.Hop || f.Underscore {
			continue
		}
		name := r.Name(f)
		if !untouched && edits.replaces(name) {
			continue
		}
		b = append(append(b, name...), ": "...)
		b = append(edits.value(b, name, r.Value(f), &c.ask), "\r\n"...)
	}
	b = c.appendForwarded(b)
	b = edits.append(b, &c.ask, 0)
	return append(appendFraming(b, length, r.Declared(), upgrade), "\r\n"...), nil
}

// appendFraming says how long a body is, and what the connection is for.
func appendFraming(b []byte, length int64, declared bool, upgrade []byte) []byte {
	switch {
	case length == http1.Chunked:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case length > 0 || declared:
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), length, 10), "\r\n"...)
	}
	if upgrade != nil {
		b = append(append(append(b, "Connection: Upgrade\r\nUpgrade: "...), upgrade...), "\r\n"...)
	}
	return b
}

func appendHost(b []byte, r *http1.Request) []byte {
	b = append(b, r.Host...)
	if len(r.Port) > 0 {
		b = append(append(b, ':'), r.Port...)
	}
	return b
}

// passes tells whether a field of a known name is passed on as it is.
func (c *client) passes(f *http1.Field) bool {
	switch f.Known {
	case http1.Trailer:
		return true
	case http1.Forwarded, http1.XForwarded:
		return c.trusted
	case http1.XForwardedHost, http1.XForwardedPort, http1.XForwardedProto:
		return c.trusted
	}
	return false // of Host, lengths, Expect, X-Request-ID and X-Forwarded-For there is another one
}

// appendForwarded tells of the client, and gives the request an id.
func (c *client) appendForwarded(b []byte) []byte {
	r := &c.request
	if !c.trusted {
		b = append(b, c.forwarded...)
		b = appendHost(append(b, "X-Forwarded-Host: "...), r)
		b = append(b, "\r\n"...)
		return c.appendID(b)
	}
	b = appendField(b, "X-Real-IP", c.ask.Client.String())
	b = append(b, "X-Forwarded-For: "...)
	host, port, proto := false, false, false
	for i := range r.Fields() {
		f := &r.Fields()[i]
		if f.Hop {
			continue
		}
		switch f.Known {
		case http1.XForwardedFor:
			b = append(append(b, r.Value(f)...), ", "...)
		case http1.XForwardedHost:
			host = true
		case http1.XForwardedPort:
			port = true
		case http1.XForwardedProto:
			proto = true
		}
	}
	b = append(c.remote.AppendTo(b), "\r\n"...)
	if !host {
		b = append(appendHost(append(b, "X-Forwarded-Host: "...), r), "\r\n"...)
	}
	if !port {
		b = append(strconv.AppendUint(append(b, "X-Forwarded-Port: "...), uint64(c.at.port()), 10), "\r\n"...)
	}
	if !proto && c.at.Secure {
		b = append(b, "X-Forwarded-Proto: https\r\n"...)
	} else if !proto {
		b = append(b, "X-Forwarded-Proto: http\r\n"...)
	}
	return c.appendID(b)
}

// maxID bounds the id of a request that a client may choose, so that it finds its
// request again in logs.
const maxID = 128

func (c *client) appendID(b []byte) []byte {
	return append(append(append(b, "X-Request-ID: "...), c.id()...), "\r\n"...)
}

// id is that which the client has chosen, or one of its own.
func (c *client) id() []byte {
	for i := range c.request.Fields() {
		f := &c.request.Fields()[i]
		if value := c.request.Value(f); f.Known == http1.XRequestID && !f.Hop && len(value) > 0 && len(value) <= maxID {
			return value
		}
	}
	if r := &c.record; !r.made {
		r.made = true
		var id [16]byte
		binary.LittleEndian.PutUint64(id[:], rand.Uint64())
		binary.LittleEndian.PutUint64(id[8:], rand.Uint64())
		hex.Encode(r.id[:], id[:])
	}
	return c.record.id[:]
}

// replaces tells whether the fields of a name go.
func (e *Edits) replaces(name []byte) bool {
	for _, remove := range e.Remove {
		if len(remove) == len(name) && strings.EqualFold(remove, string(name)) {
			return true
		}
		if all := len(remove) - 1; all > 0 && remove[all] == '*' && len(name) >= all && strings.EqualFold(remove[:all], string(name[:all])) {
			return true
		}
	}
	for i := range e.Set {
		if set := e.Set[i].Name; len(set) == len(name) && strings.EqualFold(set, string(name)) {
			return true
		}
	}
	return false
}

// value appends that of a field, or what it is changed to.
func (e *Edits) value(b, name, value []byte, r *Request) []byte {
	for i := range e.Change {
		if change := &e.Change[i]; len(change.Name) == len(name) && strings.EqualFold(change.Name, string(name)) {
			at := len(b)
			if b = plain(change.To(b, value, r), at); len(b) > at {
				return b
			}
		}
	}
	return append(b, value...)
}

// append writes what comes, of an answer with a status, or of a request.
func (e *Edits) append(b []byte, r *Request, status int) []byte {
	for i := range e.Set {
		if e.Set[i].with(status) {
			b = e.Set[i].append(b, r)
		}
	}
	for i := range e.Add {
		if e.Add[i].with(status) {
			b = e.Add[i].append(b, r)
		}
	}
	return b
}

// also tells whether the fields of a name go, since others of it are for whatever is
// answered.
func also(fields []Field, name []byte) bool {
	for i := range fields {
		if len(fields[i].Name) == len(name) && strings.EqualFold(fields[i].Name, string(name)) {
			return true
		}
	}
	return false
}

// append writes a field, unless it has no value of this request.
func (f *Field) append(b []byte, r *Request) []byte {
	if f.Expand == nil {
		return appendField(b, f.Name, f.Value)
	}
	start := len(b)
	b = append(append(b, f.Name...), ": "...)
	at := len(b)
	if b = plain(f.Expand(b, r), at); len(b) == at {
		return b[:start]
	}
	return append(b, "\r\n"...)
}

// plain takes away what was appended from some byte on, if it is no value of a
// field (RFC 9110, section 5.5): there is never a second line, whatever was made of
// a request.
func plain(b []byte, from int) []byte {
	for _, char := range b[from:] {
		if char < ' ' && char != '\t' || char == 0x7f {
			return b[:from]
		}
	}
	return b
}
