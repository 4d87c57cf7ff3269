package forward

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/fairlead-net/fairlead/model"
)

// site is a server of names on a loopback address of its own, by UDP and TCP.
type site struct {
	at       netip.AddrPort
	accepted atomic.Int64 // connections
	asked    atomic.Int64
}

// listenOn opens a port for both, on an address of 127.0.0.0/8.
func listenOn(t testing.TB, addr string) (net.PacketConn, net.Listener, netip.AddrPort) {
	t.Helper()
	for range 20 {
		listener, err := net.Listen("tcp", net.JoinHostPort(addr, "0"))
		if err != nil {
			t.Fatal(err)
		}
		at := netip.MustParseAddrPort(listener.Addr().String())
		packets, err := net.ListenPacket("udp", at.String())
		if err == nil {
			t.Cleanup(func() { _ = listener.Close(); _ = packets.Close() })
			return packets, listener, at
		}
		_ = listener.Close()
	}
	t.Fatal("no port is free for UDP and TCP")
	return nil, nil, netip.AddrPort{}
}

// newSite serves with a function that answers messages; nil: with nothing.
func newSite(t testing.TB, addr string, udp, tcp func(request []byte) [][]byte) *site {
	t.Helper()
	packets, listener, at := listenOn(t, addr)
	s := &site{at: at}
	go func() {
		buffer := make([]byte, maxMessage)
		for {
			n, from, err := packets.ReadFrom(buffer)
			if err != nil {
				return
			}
			s.asked.Add(1)
			for _, msg := range udp(append([]byte(nil), buffer[:n]...)) {
				_, _ = packets.WriteTo(msg, from)
			}
		}
	}()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.accepted.Add(1)
			go func() { s.serve(conn, tcp) }()
		}
	}()
	return s
}

// serve answers on a connection until it ends, or until an answer is empty.
func (s *site) serve(conn net.Conn, answer func([]byte) [][]byte) {
	defer func() { _ = conn.Close() }()
	for {
		var length [2]byte
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return
		}
		msg := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(conn, msg); err != nil {
			return
		}
		s.asked.Add(1)
		for _, msg := range answer(msg) {
			if msg == nil {
				return
			}
			_, _ = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...))
		}
	}
}

// reply makes an answer to a request with n addresses.
func reply(request []byte, n int, change ...func(*miekg.Msg)) []byte {
	var m miekg.Msg
	if err := m.Unpack(request); err != nil {
		return nil
	}
	m.Extra = nil
	m.Response, m.Compress, m.RecursionAvailable = true, true, true
	if m.Question[0].Qtype == miekg.TypeA {
		for i := range n {
			m.Answer = append(m.Answer, &miekg.A{
				Hdr: miekg.RR_Header{Name: m.Question[0].Name, Rrtype: miekg.TypeA, Class: 1, Ttl: 60},
				A:   net.IPv4(10, 9, byte(i>>8), byte(i)),
			})
		}
	}
	for _, c := range change {
		c(&m)
	}
	wire, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return wire
}

func addresses(n int) func([]byte) [][]byte {
	return func(request []byte) [][]byte { return [][]byte{reply(request, n)} }
}

func nothing([]byte) [][]byte { return nil }

func cutShort(request []byte) [][]byte {
	return [][]byte{reply(request, 0, func(m *miekg.Msg) { m.Truncated = true })}
}

// exchanged asks one upstream by its transport.
func exchanged(t *testing.T, to model.Upstream, d dialing, wait time.Duration) (*answer, error) {
	t.Helper()
	tr := d.connect(to)
	defer tr.close()
	return exchangedBy(t, tr, "www.example", wait)
}

func exchangedBy(t *testing.T, tr transport, name string, wait time.Duration) (*answer, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	q := question(name, typeA)
	a := &ask{name: string(q.Name), qtype: q.Type}
	raw, err := tr.exchange(ctx, a)
	if err != nil {
		return nil, err
	}
	return clean(raw, a, hour)
}

// count is how many records there are in an answer.
func (a *answer) count() int {
	if a == nil {
		return -1
	}
	return len(a.ttls)
}

// certificate is one for a name and an address, and who trusts it.
func certificate(t *testing.T, name, addr string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{name}, IPAddresses: []net.IP{net.ParseIP(addr)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// newTLSSite answers by TLS.
func newTLSSite(t *testing.T, addr string, cert tls.Certificate, answer func([]byte) [][]byte) *site {
	t.Helper()
	listener, err := tls.Listen("tcp", net.JoinHostPort(addr, "0"), &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"dot"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	s := &site{at: netip.MustParseAddrPort(listener.Addr().String())}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.accepted.Add(1)
			go func() { s.serve(conn, answer) }()
		}
	}()
	return s
}

// newHTTPSSite answers by HTTPS.
func newHTTPSSite(t *testing.T, addr string, cert tls.Certificate, serve http.HandlerFunc) netip.AddrPort {
	t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(addr, "0"))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(serve)
	_ = server.Listener.Close()
	server.Listener, server.EnableHTTP2 = listener, true
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	server.Config.ErrorLog = nil
	server.StartTLS()
	t.Cleanup(server.Close)
	return netip.MustParseAddrPort(listener.Addr().String())
}
