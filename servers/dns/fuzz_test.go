package dns

import (
	"encoding/binary"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// seeds are messages of all sorts.
func seeds(t testing.TB) (all [][]byte) {
	t.Helper()
	for _, name := range []string{"web.default.svc.cluster.local.", "_http._tcp.many.default.svc.cluster.local.", "out.default.svc.cluster.local.", "20.0.96.10.in-addr.arpa.", "example.org.", "."} {
		for _, kind := range []uint16{dns.TypeA, dns.TypeSRV, dns.TypePTR, dns.TypeANY, dns.TypeTXT} {
			m := new(dns.Msg).SetQuestion(name, kind)
			m.SetEdns0(1232, true)
			all = append(all, packed(t, m))
		}
	}
	for _, text := range []string{
		"abcd 0100 0001 0000 0000 0000 c00c 0001 0001",
		"abcd 0100 0001 0000 0000 0000 " + strings.Repeat("0161", 126) + "00 0001 0001",
		"abcd 0100 0001 0000 0000 0001 <a> 00 0001 0001 00 0029 0200 00010000 0006 fde9 0002 abcd",
		"0000 8000 0001 0002 0000 0000 <www.example.org> 00 0001 0001 c00c 0005 0001 00000000 0002 c010 c010 0001 0001 00000000 0004 01020304",
		"0000 8000 0001 0001 0001 0000 <www.example.org> 00 0001 0001 c00c 000f 0001 00000000 0004 000a c00c c014 0006 0001 00000000 0018 c00c c00c 00000001 00000002 00000003 00000004 00000005",
	} {
		all = append(all, raw(t, text))
	}
	return all
}

// checkAnswer fails if an answer is none to a message.
func checkAnswer(t *testing.T, message, reply []byte, limit int) {
	t.Helper()
	answer := new(dns.Msg)
	if err := answer.Unpack(reply); err != nil {
		t.Fatalf("%v: %x, to %x", err, reply, message)
	}
	if len(reply) > limit || !answer.Response || answer.Id != binary.BigEndian.Uint16(message) {
		t.Fatalf("%d bytes of %d: %x, to %x", len(reply), limit, reply, message)
	}
	if len(message) < headerSize || message[2]&0x80 != 0 {
		t.Fatalf("%x is answered", message)
	}
}

// FuzzMessage: whatever is sent, there is a well-formed answer within the client's
// limit, or none.
func FuzzMessage(f *testing.F) {
	for _, seed := range seeds(f) {
		f.Add(seed)
	}
	served := servedNow(f)
	a := &answering{others: &Client{}, counts: &counts{}, q: new(query), r: &reply{}, outside: memory{echo{}}, random: 1}
	f.Fuzz(func(t *testing.T, message []byte) {
		for _, tcp := range []bool{false, true} {
			reply := a.message(served, message, asker{client.addr, tcp}, nil)
			if a.waits {
				t.Fatalf("%x: what is known is waited for", message)
			}
			limit := ednsSize
			if tcp {
				limit = maxMessage
			}
			if reply != nil {
				checkAnswer(t, message, reply, limit)
			}
		}
	})
}

// echo is a Forwarder that knows an address of every name, whatever is in it.
type echo struct{ Forwarder }

func (echo) Cached(q Question, into []byte) ([]byte, bool) {
	into = append(into, 0, 0, 0x80, 0, 0, 1, 0, 1, 0, 0, 0, 0)
	into = append(into, q.Name...)
	into = be.AppendUint16(be.AppendUint16(into, q.Type), q.Class)
	return append(into, 0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 192, 0, 2, 1), true
}

// FuzzUpstream: whatever a Forwarder returns, the client's answer is well formed
// as far as this server wrote it, and ends.
func FuzzUpstream(f *testing.F) {
	for _, seed := range seeds(f) {
		f.Add(seed)
	}
	served := servedNow(f)
	w := &world{t: f, cached: true}
	a := &answering{others: &Client{}, counts: &counts{}, q: new(query), r: &reply{}, outside: memory{w}, random: 1}
	external := packed(f, new(dns.Msg).SetQuestion("out.default.svc.cluster.local.", dns.TypeA))
	plain := packed(f, new(dns.Msg).SetQuestion("www.example.org.", dns.TypeA))
	f.Fuzz(func(t *testing.T, upstream []byte) {
		w.broken = append([]byte{}, upstream...)
		for _, tcp := range []bool{false, true} {
			reply := a.message(served, external, asker{client.addr, tcp}, nil)
			limit := plainSize
			if tcp {
				limit = maxMessage
			}
			if len(reply) > limit || len(reply) < headerSize {
				t.Fatalf("%d bytes of %d", len(reply), limit)
			}
			for at, section := len(external), 0; section < 3; section++ {
				for range be.Uint16(reply[6+2*section:]) {
					r, ok := recordAt(reply, at)
					if !ok {
						t.Fatalf("records of %x are not all there", reply)
					}
					if _, _, ok := nameAt(reply, r.owner, nil); !ok {
						t.Fatalf("a record of %x has no name", reply)
					}
					at = r.next
				}
			}
			if reply := a.message(served, plain, asker{client.addr, tcp}, nil); len(reply) > limit || len(reply) < headerSize {
				t.Fatalf("%d bytes of %d", len(reply), limit)
			}
		}
	})
}

// TestGarbage: a server that gets garbage from all sides goes on answering, by UDP
// and by TCP.
func TestGarbage(t *testing.T) {
	_, at := start(t, nil)
	udp := dialUDP(t, at)
	garbage := append(seeds(t), make([]byte, 65000), []byte(strings.Repeat("\xff", 1400)), []byte(strings.Repeat("\x01a", 30000)), nil)
	for _, message := range garbage {
		_, _ = udp.Write(message)
		conn, err := net.Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(message) // without a length
		_ = conn.Close()
		if len(message) > maxMessage {
			continue
		}
		if conn, err = net.Dial("tcp", at.String()); err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(framed(message))
		_ = conn.SetReadDeadline(time.Now().Add(time.Millisecond))
		_, _ = conn.Read(make([]byte, 1))
		_ = conn.Close()
	}
	fresh := dialUDP(t, at)
	fresh.write(packed(t, new(dns.Msg).SetQuestion("web.default.svc.cluster.local.", dns.TypeA)))
	if got := fresh.read(); !strings.HasPrefix(text(got), "NOERROR") {
		t.Errorf("by UDP: %s", text(got))
	}
	conn := dial(t, "tcp", at)
	conn.write(framed(packed(t, new(dns.Msg).SetQuestion("web.default.svc.cluster.local.", dns.TypeA))))
	if got := conn.next(); !strings.HasPrefix(text(got), "NOERROR") {
		t.Errorf("by TCP: %s", text(got))
	}
}
