package forward

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
)

// transport asks one upstream. What it returns answers what was asked (verify),
// and is whole: not truncated. It is asked from many goroutines at once.
type transport interface {
	exchange(ctx context.Context, a *ask) ([]byte, error)
	// reused tells how many exchanges found a connection open, and how many had to
	// open one.
	reused() (hits, misses uint64)
	// close ends all connections, and waits for what reads from them.
	close()
}

// dialing is what transports share.
type dialing struct {
	dialer net.Dialer
	roots  *x509.CertPool // nil: the system's
	mixed  bool
}

// connect makes the transport for an upstream.
func (d dialing) connect(to model.Upstream) transport {
	config := &tls.Config{
		RootCAs: d.roots, ServerName: to.ServerName, MinVersion: tls.VersionTLS12,
		ClientSessionCache: tls.NewLRUClientSessionCache(4),
	}
	if config.ServerName == "" {
		config.ServerName = to.At.Addr().WithZone("").String()
	}
	at := to.At.String()
	dialTCP := func(ctx context.Context) (net.Conn, error) { return d.dialer.DialContext(ctx, "tcp", at) }
	switch to.Transport {
	case model.TLS:
		config.NextProtos = []string{"dot"}
		dialer := &tls.Dialer{NetDialer: &d.dialer, Config: config}
		return newStream(form{pad: true}, func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", at) })
	case model.HTTPS:
		return newDoH(to, dialTCP, config)
	}
	dialUDP := func(ctx context.Context) (net.Conn, error) {
		return d.dialer.DialUDP(ctx, "udp", netip.AddrPort{}, to.At)
	}
	return &datagram{dial: dialUDP, form: form{mixed: d.mixed}, long: newStream(form{}, dialTCP)}
}

// randomID is an identifier that nobody can guess.
func randomID() uint16 {
	var id [2]byte
	_, _ = rand.Read(id[:]) // it never fails
	return binary.BigEndian.Uint16(id[:])
}
