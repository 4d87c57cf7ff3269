package gateway

import (
	"crypto/tls"
	"errors"
	"strings"
)

var errNoCertificate = errors.New("no certificate is for this name")

// newTLS is how connections of TLS begin that speak one of some protocols. There is one
// for all tables, so that the tickets of sessions outlive them.
func (s *Server) newTLS(least uint16, protocols ...string) *tls.Config {
	all := &tls.Config{MinVersion: least, NextProtos: protocols}
	all.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		find := s.table.Load().Certificate
		if find == nil {
			return nil, errNoCertificate
		}
		return find(hello)
	}
	all.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) { return s.asks(hello, all) }
	return all
}

// asks is how a connection begins to whose name a certificate is to be shown. nil: as
// others do.
func (s *Server) asks(hello *tls.ClientHelloInfo, all *tls.Config) (*tls.Config, error) {
	asks := s.table.Load().Asks
	if asks == nil {
		return nil, nil
	}
	authorities := asks(strings.ToLower(strings.TrimSuffix(hello.ServerName, ".")))
	if authorities == nil {
		return nil, nil
	}
	config := all.Clone()
	config.GetConfigForClient = nil
	config.ClientAuth, config.ClientCAs = tls.RequestClientCert, authorities
	config.SessionTicketsDisabled = true // what was shown to another name, or not, is not resumed
	return config, nil
}

// handshake makes the connection one of TLS. The client has as long for it as for
// the head of a request.
func (c *client) handshake() bool {
	conn := tls.Server(c.sock, c.server.tls)
	c.sock.in.by = c.clock.now() + int64(c.server.settings.Header)
	if c.through() {
		return false
	}
	if err := conn.Handshake(); err != nil {
		return false
	}
	c.sock.in.by = 0
	state := conn.ConnectionState()
	c.wire, c.name, c.peer = conn, strings.ToLower(state.ServerName), &Peer{Certificates: state.PeerCertificates}
	if state.NegotiatedProtocol == "h2" {
		c.server.streams.serve(conn, c)
		c.goodbye()
		c.lingers()
		return false
	}
	return true
}

// goodbye ends what this side sends, so that the client knows it for whole.
func (c *client) goodbye() {
	if conn, ok := c.wire.(*tls.Conn); ok {
		_ = conn.CloseWrite()
	}
}
