package gateway

import (
	"bytes"
	"crypto/tls"
	"errors"
	"strings"
	"time"
)

// overheard is a connection whose first message of TLS is read, and never answered.
type overheard struct {
	*sock
	heard bytes.Buffer
}

// Read keeps what it reads.
func (o *overheard) Read(into []byte) (int, error) {
	n, err := o.sock.Read(into)
	o.heard.Write(into[:n])
	return n, err
}

// Write answers nothing.
func (o *overheard) Write(from []byte) (int, error) { return len(from), nil }

var errHeard = errors.New("the name is known")

// passPatience is for how long a connection that is passed through may be silent.
const passPatience = 10 * time.Minute

// through reads whom a client wants to speak TLS with. If that is a backend itself, it
// leads the client there, and returns true once all is over. Else the bytes wait to be
// read again.
func (c *client) through() bool {
	find := c.server.table.Load().Passes
	if find == nil {
		return false
	}
	var backend *Backend
	o := &overheard{sock: c.sock}
	_ = tls.Server(o, &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		backend = find(strings.ToLower(strings.TrimSuffix(hello.ServerName, ".")))
		return nil, errHeard
	}}).Handshake()
	if backend == nil {
		c.sock.early = o.heard.Bytes()
		return false
	}
	c.sock.in.by = 0
	a := &attempt{route: &Route{}, backend: backend, timeouts: DefaultTimeouts(), retry: defaultRetry, tries: min(backend.size(), defaultRetry.Tries), fresh: true}
	u, _, _ := c.connect(a)
	if u == nil {
		return true // there are no words to say why
	}
	if _, err := u.Write(o.heard.Bytes()); err == nil {
		c.tunnel(u, passPatience)
	}
	c.server.end(u)
	return true
}
