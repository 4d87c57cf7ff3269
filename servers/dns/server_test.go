package dns

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// start runs a server at a port of 127.0.0.1.
func start(t testing.TB, forward Forwarder) (*Server, netip.AddrPort) {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := free.Addr().(*net.TCPAddr).AddrPort()
	_ = free.Close()
	s := New(forward, nil, slog.New(slog.DiscardHandler))
	s.Serve(servedNow(t))
	s.Listen([]netip.AddrPort{at})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Error("the server does not end")
		}
	})
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if open, _ := s.Listening(); len(open) == 1 {
			return s, at
		}
		if time.Now().After(deadline) {
			t.Fatal("the server does not listen")
		}
	}
}

// wire is a connection to a server.
type wire struct {
	t testing.TB
	net.Conn
}

func dialUDP(t testing.TB, at netip.AddrPort) wire { return dial(t, "udp", at) }

func dial(t testing.TB, network string, at netip.AddrPort) wire {
	t.Helper()
	conn, err := net.Dial(network, at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return wire{t, conn}
}

func (w wire) write(message []byte) {
	w.t.Helper()
	if _, err := w.Write(message); err != nil {
		w.t.Fatal(err)
	}
}

// read returns a datagram; nil if there comes none.
func (w wire) read() *dns.Msg {
	w.t.Helper()
	_ = w.SetReadDeadline(time.Now().Add(5 * time.Second))
	var b [4096]byte
	n, err := w.Read(b[:])
	if err != nil {
		return nil
	}
	m := new(dns.Msg)
	if err := m.Unpack(b[:n]); err != nil {
		w.t.Fatal(err)
	}
	return m
}

// framed is a message as it is sent by TCP.
func framed(message []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...)
}

// next returns a message of TCP; nil at the end.
func (w wire) next() *dns.Msg {
	w.t.Helper()
	_ = w.SetReadDeadline(time.Now().Add(5 * time.Second))
	var length [2]byte
	if _, err := io.ReadFull(w, length[:]); err != nil {
		return nil
	}
	b := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(w, b); err != nil {
		w.t.Fatal(err)
	}
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil {
		w.t.Fatal(err)
	}
	return m
}

// TestPipeline: queries of one connection are answered as they can be; one that
// takes time keeps no other waiting.
func TestPipeline(t *testing.T) {
	w := &world{t: t, wait: make(chan struct{})}
	_, at := start(t, w)
	conn := dial(t, "tcp", at)
	var all []byte
	for i, name := range []string{"slow.example.", "web.default.svc.cluster.local.", "many.default.svc.cluster.local."} {
		query := new(dns.Msg).SetQuestion(name, dns.TypeA)
		query.Id = uint16(i)
		all = append(all, framed(packed(t, query))...)
	}
	conn.write(all[:40]) // in pieces
	time.Sleep(10 * time.Millisecond)
	conn.write(all[40:])
	for _, id := range []uint16{1, 2} {
		if got := conn.next(); got == nil || got.Id != id {
			t.Fatalf("answer %v, want that of query %d", got, id)
		}
	}
	close(w.wait)
	if got := conn.next(); got == nil || got.Id != 0 {
		t.Fatalf("answer %v, want that of the slow query", got)
	}
	conn.write([]byte{0xff, 0xff}) // no query is as long
	if got := conn.next(); got != nil {
		t.Errorf("the connection is still there, and says %s", got)
	}
}

// TestStrangers: who is no client gets nothing, not even a refusal.
func TestStrangers(t *testing.T) {
	s, at := start(t, nil)
	served := *s.served.Load()
	served.Clients = NewRanges([]netip.Prefix{netip.MustParsePrefix("127.0.0.2/32"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8"), {}})
	s.Serve(&served)
	query := packed(t, new(dns.Msg).SetQuestion("web.default.svc.cluster.local.", dns.TypeA))
	stranger := dialUDP(t, at)
	stranger.write(query)
	from, err := (&net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2)}}).Dial("udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	known := wire{t, from}
	known.write(query)
	if got := known.read(); !strings.HasPrefix(text(got), "NOERROR") {
		t.Errorf("a client: %s", text(got))
	}
	_ = stranger.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := stranger.Read(make([]byte, 512)); err == nil {
		t.Errorf("a stranger gets %d bytes", n)
	}
	conn := dial(t, "tcp", at)
	_, _ = conn.Write(framed(query))
	if got := conn.next(); got != nil {
		t.Errorf("a stranger gets, by TCP, %s", text(got))
	}
}

// TestPlaces: one client that opens connections without end closes its own, and
// others go on.
func TestPlaces(t *testing.T) {
	s, at := start(t, nil)
	query := framed(packed(t, new(dns.Msg).SetQuestion("web.default.svc.cluster.local.", dns.TypeA)))
	from, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	other := wire{t, from}
	var opened []wire
	for range 3 * clientPlaces {
		conn := dial(t, "tcp", at)
		conn.write(query)
		if got := conn.next(); got == nil {
			t.Fatal("a new connection has no place")
		}
		opened = append(opened, conn)
	}
	other.write(query)
	if got := other.next(); got == nil {
		t.Error("another client's connection is gone")
	}
	s.places.mu.Lock()
	all := s.places.all
	s.places.mu.Unlock()
	if all != clientPlaces+1 {
		t.Errorf("%d connections, want %d", all, clientPlaces+1)
	}
	if got := opened[0].next(); got != nil {
		t.Error("the oldest connection is still there")
	}
	newest := opened[len(opened)-1]
	newest.write(query)
	if got := newest.next(); got == nil {
		t.Error("the newest connection is gone")
	}
}

// TestListen: addresses come and go while others are answered.
func TestListen(t *testing.T) {
	s, at := start(t, nil)
	ask := func(at netip.AddrPort) string {
		m, _, err := (&dns.Client{Timeout: time.Second}).Exchange(new(dns.Msg).SetQuestion("web.default.svc.cluster.local.", dns.TypeA), at.String())
		if err != nil {
			return "nothing"
		}
		return dns.RcodeToString[m.Rcode]
	}
	six := netip.AddrPortFrom(netip.MustParseAddr("::1"), at.Port())
	other := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.9"), at.Port())
	taken, err := net.Listen("tcp", other.String())
	if err != nil {
		t.Fatal(err)
	}
	s.Listen([]netip.AddrPort{at, six, other, netip.MustParseAddrPort("192.0.2.1:10053")}) // the last is nobody's yet
	wait := func(what string, done func(open, missing []netip.AddrPort) bool) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); !done(s.Listening()); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal(what)
			}
		}
	}
	wait("three addresses are not open", func(open, missing []netip.AddrPort) bool {
		return len(open) == 3 && len(missing) == 1 && missing[0] == other
	})
	if got := ask(six); got != "NOERROR" {
		t.Errorf("at ::1: %s", got)
	}
	_ = taken.Close()
	wait("an address that became free is not open", func(open, _ []netip.AddrPort) bool { return len(open) == 4 })
	s.Listen([]netip.AddrPort{six})
	wait("addresses that are not wanted are open", func(open, _ []netip.AddrPort) bool { return len(open) == 1 })
	if got := ask(at); got != "nothing" {
		t.Errorf("at an address that is not wanted any more: %s", got)
	}
	if got := ask(six); got != "NOERROR" {
		t.Errorf("at ::1, still: %s", got)
	}
}

// TestLastOfTCP: what is asked by TCP when a server ends is answered, and a
// connection that asks nothing does not keep it.
func TestLastOfTCP(t *testing.T) {
	s, at := start(t, nil)
	all := make([]wire, 20)
	for i := range all {
		all[i] = dial(t, "tcp", at)
	}
	s.Listen(nil)
	query := packed(t, new(dns.Msg).SetQuestion("web.default.svc.cluster.local.", dns.TypeA))
	for i := range all[1:] {
		all[i].write(framed(query))
	}
	for i := range all[1:] {
		if got := all[i].next(); !strings.HasPrefix(text(got), "NOERROR") {
			t.Fatalf("connection %d: %s", i, text(got))
		}
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if open, _ := s.Listening(); len(open) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it listens on")
		}
	}
}
