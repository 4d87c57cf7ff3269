package gateway

import (
	"crypto/tls"
	"errors"
	"fmt"
	"time"
)

// secure makes a connection to an endpoint one of TLS. The endpoint has as long for
// it as for the connection.
func (u *upstream) secure(config *tls.Config, timeout time.Duration) error {
	conn := tls.Client(u.sock, config)
	by := u.sock.clock.now() + int64(timeout)
	u.sock.in.by, u.sock.out.by = by, by
	if err := conn.Handshake(); err != nil {
		return fmt.Errorf("begin TLS with %s: %w", u.endpoint.address, err)
	}
	u.sock.in.by, u.sock.out.by = 0, 0
	u.tls = conn
	return nil
}

// plain tells whether its bytes are those of its socket.
func (u *upstream) plain() bool { return u.tls == nil && u.sock.far == nil }

// wire is what its bytes are read from and written to.
func (u *upstream) wire() wire {
	if u.tls != nil {
		return u
	}
	return u.sock
}

// Read reads what the endpoint says.
func (u *upstream) Read(into []byte) (int, error) {
	if u.tls != nil {
		return u.tls.Read(into)
	}
	return u.sock.Read(into)
}

// Write writes all of it.
func (u *upstream) Write(from []byte) (int, error) {
	if u.tls != nil {
		return u.tls.Write(from)
	}
	return u.sock.Write(from)
}

// CloseWrite tells the endpoint that no more comes.
func (u *upstream) CloseWrite() error {
	if u.tls != nil {
		return u.tls.CloseWrite()
	}
	return u.sock.CloseWrite()
}

// quiet is that of the socket. Of TLS, something may have been read already.
func (u *upstream) quiet() bool {
	if u.tls == nil {
		return u.sock.quiet()
	}
	if !u.sock.quiet() || u.sock.SetReadDeadline(past()) != nil {
		return false
	}
	var b [1]byte
	n, err := u.tls.Read(b[:])
	return n == 0 && errors.Is(err, errDeadline) && u.sock.SetReadDeadline(time.Time{}) == nil
}
