package gateway

import (
	"context"
	"io"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
	"unsafe"
)

// AccessLog writes what was answered, a line for each request. Who answers is never
// kept waiting for whoever reads it, and makes no garbage for it: what cannot be
// written in time is lost, and counted.
type AccessLog struct {
	form   Form
	oneIn  uint32
	shards [8]shard // by core
	full   chan struct{}
	lines  atomic.Uint64
	lost   atomic.Uint64
}

// shard are the lines of the clients of some cores.
type shard struct {
	mu    sync.Mutex
	lines int
	b     []byte
	_     [64]byte
}

// Form is how a line is written.
type Form uint8

// The forms.
const (
	JSON     Form = iota
	Upstream      // the one that ingress-nginx has: upstreaminfo
)

// Bounds of a log.
const (
	maxPending  = 256 << 10 // bytes of a shard that wait to be written
	maxText     = 2 << 10   // bytes of one thing that a client has said
	writeEach   = 100 * time.Millisecond
	logPatience = time.Second // for the last lines, once the context has ended
)

// NewAccessLog returns one that is empty. Of requests that were answered with less
// than 500, it has one in so many; 0: all.
func NewAccessLog(form Form, oneIn int) *AccessLog {
	return &AccessLog{form: form, oneIn: uint32(max(oneIn, 1)), full: make(chan struct{}, 1)}
}

// Counts are how many lines were written, and how many were to be and could not.
func (l *AccessLog) Counts() (written, lost uint64) { return l.lines.Load(), l.lost.Load() }

// take takes in a request that was answered now.
func (l *AccessLog) take(c *client, m *Meter, status int, now int64) {
	if l.oneIn > 1 && status < 500 && rand.Uint32N(l.oneIn) > 0 {
		return
	}
	out := newBuffer()
	defer out.free()
	e := entry{c, m, status, now - c.record.began}
	b := out.b[:0]
	if l.form == JSON {
		b = e.json(b, time.Now())
	} else {
		b = e.upstream(b, time.Now())
	}
	s := &l.shards[c.core%len(l.shards)]
	s.mu.Lock()
	fits := len(s.b)+len(b) <= maxPending
	if fits {
		s.b = append(s.b, b...)
		s.lines++
	}
	full := len(s.b) > maxPending/2
	s.mu.Unlock()
	if !fits {
		l.lost.Add(1)
	}
	if full {
		select {
		case l.full <- struct{}{}:
		default:
		}
	}
}

// Run writes lines until the context ends, and those that there are then. Who reads
// them may have stopped to: it does not wait for him then.
func (l *AccessLog) Run(ctx context.Context, to io.Writer) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.write(ctx, to)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-ended:
	case <-time.After(logPatience):
	}
	return nil
}

func (l *AccessLog) write(ctx context.Context, to io.Writer) {
	ticker := time.NewTicker(writeEach)
	defer ticker.Stop()
	var spare []byte
	for {
		ending := false
		select {
		case <-ticker.C:
		case <-l.full:
		case <-ctx.Done():
			ending = true
		}
		for i := range l.shards {
			s := &l.shards[i]
			s.mu.Lock()
			lines, b := s.lines, s.b
			s.lines, s.b = 0, spare[:0]
			s.mu.Unlock()
			spare = b
			if lines == 0 {
				continue
			}
			if _, err := to.Write(b); err != nil {
				l.lost.Add(uint64(lines))
			} else {
				l.lines.Add(uint64(lines))
			}
		}
		if ending {
			return
		}
	}
}

// entry is a request that was answered.
type entry struct {
	*client
	meter  *Meter
	status int
	took   int64
}

// field is one that the client sent.
func (e *entry) field(name string) []byte {
	value, _ := e.request.Get(name)
	return value
}

// protocol is what the client speaks.
func (e *entry) protocol() string {
	switch {
	case e.stream != nil && e.stream.major == 3:
		return "HTTP/3.0"
	case e.stream != nil:
		return "HTTP/2.0"
	case e.request.Minor == 0:
		return "HTTP/1.0"
	}
	return "HTTP/1.1"
}

// who is the client, as a trusted proxy says, too.
func (e *entry) who() netip.Addr {
	if e.trusted && e.ask.Client.IsValid() {
		return e.ask.Client
	}
	return e.remote
}

// json appends the line as JSON (RFC 8259). Its members only grow.
func (e *entry) json(b []byte, at time.Time) []byte {
	r := &e.record
	b = append(b, `{"time":"`...)
	b = at.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z07:00")
	b = append(e.who().AppendTo(append(b, `","client":"`...)), '"')
	b = member(b, "request_id", text(e.id()))
	b = member(b, "method", text(e.request.Method))
	b = member(b, "scheme", scheme(e.at.Secure))
	b = member(b, "host", text(e.request.Host))
	b = member(b, "target", text(e.request.Target))
	b = member(b, "protocol", e.protocol())
	b = number(b, "status", int64(e.status))
	b = number(b, "request_bytes", e.received())
	b = number(b, "sent_bytes", r.sent)
	b = seconds(append(b, `,"seconds":`...), e.took)
	b = member(b, "referer", text(e.field("referer")))
	b = member(b, "user_agent", text(e.field("user-agent")))
	m := &e.meter.Names
	b = member(b, "namespace", m.Namespace)
	b = member(b, "ingress", m.Ingress)
	b = member(b, "service", m.Service)
	b = member(b, "path", m.Path)
	if r.via != nil {
		b = member(b, "endpoint", r.via.address)
		b = number(b, "tries", int64(len(e.tried))+1)
		if r.from != 0 {
			b = number(b, "endpoint_status", int64(r.from))
			b = seconds(append(b, `,"endpoint_seconds":`...), e.took-(r.asked-r.began))
		}
	}
	return append(b, "}\n"...)
}

func scheme(secure bool) string {
	if secure {
		return "https"
	}
	return "http"
}

// text is bytes as a string, for whoever does not keep it.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// member appends one of text, unless it is empty.
func member(b []byte, name, value string) []byte {
	if len(value) == 0 {
		return b
	}
	b = append(append(append(b, `,"`...), name...), `":"`...)
	return append(appendJSON(b, value), '"')
}

func number(b []byte, name string, n int64) []byte {
	b = append(append(append(b, `,"`...), name...), `":`...)
	return strconv.AppendInt(b, n, 10)
}

func seconds(b []byte, nanos int64) []byte {
	return strconv.AppendFloat(b, float64(nanos/1000)/1e6, 'f', -1, 64)
}

const hexDigits = "0123456789abcdef"

// appendJSON appends what stands in a string, with escapes for all that ends it, or
// a line, and for what is no UTF-8.
func appendJSON(b []byte, value string) []byte {
	cut := len(value) > maxText
	value = value[:min(len(value), maxText)]
	for len(value) > 0 {
		switch char := value[0]; {
		case char == '"' || char == '\\':
			b = append(b, '\\', char)
		case char < ' ' || char == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hexDigits[char>>4], hexDigits[char&15])
		case char < utf8.RuneSelf:
			b = append(b, char)
		default:
			r, n := utf8.DecodeRuneInString(value)
			switch {
			case r == utf8.RuneError && n == 1:
				b = append(b, `\ufffd`...)
			case r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x2029: // some take them for ends of lines
				b = append(b, '\\', 'u', hexDigits[r>>12], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
			default:
				b = append(b, value[:n]...)
			}
			value = value[n:]
			continue
		}
		value = value[1:]
	}
	if cut {
		b = append(b, "…"...)
	}
	return b
}

// upstream appends the line as ingress-nginx does:
//
//	$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent
//	"$http_referer" "$http_user_agent" $request_length $request_time
//	[$proxy_upstream_name] [$proxy_alternative_upstream_name] $upstream_addr
//	$upstream_response_length $upstream_response_time $upstream_status $req_id
//
// of which the user is not told, and of several endpoints the last one is.
func (e *entry) upstream(b []byte, at time.Time) []byte {
	r, m := &e.record, &e.meter.Names
	b = append(e.who().AppendTo(b), " - - ["...)
	b = append(at.AppendFormat(b, "02/Jan/2006:15:04:05 -0700"), `] "`...)
	if len(e.request.Target) > 0 {
		b = append(appendNginx(b, e.request.Method), ' ')
		b = append(appendNginx(b, e.request.Target), ' ')
		b = append(b, e.protocol()...)
	}
	b = strconv.AppendInt(append(b, `" `...), int64(e.status), 10)
	body := max(r.sent-int64(r.head), 0)
	b = strconv.AppendInt(append(b, ' '), body, 10)
	b = append(orDash(append(b, ` "`...), e.field("referer")), `" "`...)
	b = strconv.AppendInt(append(orDash(b, e.field("user-agent")), `" `...), e.received(), 10)
	b = append(millis(append(b, ' '), e.took), " ["...)
	if m.Service != "" {
		b = append(append(append(append(append(b, m.Namespace...), '-'), m.Service...), '-'), m.Port...)
	}
	b = append(b, "] [] "...)
	if r.via == nil {
		b = append(b, "- - - -"...)
	} else {
		b = append(append(b, r.via.address...), ' ')
		if r.from == 0 {
			b = append(b, "- - -"...)
		} else {
			b = strconv.AppendInt(b, body, 10)
			b = millis(append(b, ' '), e.took-(r.asked-r.began))
			b = strconv.AppendInt(append(b, ' '), int64(r.from), 10)
		}
	}
	return append(appendNginx(append(b, ' '), e.id()), '\n')
}

func millis(b []byte, nanos int64) []byte {
	return strconv.AppendFloat(b, float64(nanos/1_000_000)/1e3, 'f', 3, 64)
}

func orDash(b, text []byte) []byte {
	if len(text) == 0 {
		return append(b, '-')
	}
	return appendNginx(b, text)
}

// appendNginx appends with the escapes of nginx's logs.
func appendNginx(b, text []byte) []byte {
	for _, char := range text[:min(len(text), maxText)] {
		if char < ' ' || char > 0x7e || char == '"' || char == '\\' {
			b = append(b, '\\', 'x', "0123456789ABCDEF"[char>>4], "0123456789ABCDEF"[char&15])
		} else {
			b = append(b, char)
		}
	}
	return b
}
