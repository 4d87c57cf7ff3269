package gateway

import (
	"net/http"
	"strconv"
)

// answer writes one that needs no backend. It returns whether the connection may
// go on.
func (c *client) answer(a *Answer, keep bool) bool {
	keep = keep && !c.server.draining.Load()
	out := newBuffer()
	defer out.free()
	b := appendStatus(out.b[:0], a.Status, []byte(http.StatusText(a.Status)))
	typed := false
	for i := range a.Fields {
		f := &a.Fields[i]
		b = f.append(b, &c.ask)
		typed = typed || len(f.Name) == len("content-type") && (f.Name[0] == 'C' || f.Name[0] == 'c')
	}
	for i := range c.ask.Also {
		b = c.ask.Also[i].append(b, &c.ask)
	}
	b = append(b, c.offer()...)
	if a.Location != nil {
		b = append(b, "Location: "...)
		at := len(b)
		if b = plain(a.Location(b, &c.ask), at); len(b) == at {
			b = append(b, '/')
		}
		b = append(b, "\r\n"...)
	}
	if len(a.Body) > 0 && !typed {
		b = append(b, "Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"...)
	}
	if a.Status >= 200 && a.Status != http.StatusNoContent && a.Status != http.StatusNotModified {
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), int64(len(a.Body)), 10), "\r\n"...)
	}
	b = c.appendConnection(b, keep)
	b = append(b, "\r\n"...)
	c.answered(a.Status, len(b))
	if string(c.request.Method) != http.MethodHead {
		b = append(b, a.Body...)
	}
	err := c.write(b)
	c.ended(a.Status)
	return keep && err == nil
}

// appendConnection tells the client whether the connection goes on, if it would
// think otherwise.
func (c *client) appendConnection(b []byte, keep bool) []byte {
	switch {
	case !keep:
		return append(b, "Connection: close\r\n"...)
	case c.request.Minor == 0:
		return append(b, "Connection: keep-alive\r\n"...)
	}
	return b
}

func appendStatus(b []byte, status int, reason []byte) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = append(b, byte('0'+status/100), byte('0'+status/10%10), byte('0'+status%10), ' ')
	b = append(b, reason...)
	return append(b, "\r\n"...)
}

func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}
