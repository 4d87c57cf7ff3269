package forward

import (
	"fmt"
	"strings"
	"testing"
	"time"

	miekg "github.com/miekg/dns"

	planned "github.com/fairlead-net/fairlead/plan/dns"
	"github.com/fairlead-net/fairlead/servers/dns"
)

var hour = lifetimes{max: time.Hour, negative: time.Hour}

// TestClean: what is kept of what upstreams say. Records are in the text form of
// zone files; the sections are separated by lines of their own.
func TestClean(t *testing.T) {
	for _, test := range []struct {
		name, asked    string
		do             bool
		rcode          int
		answer, ns     []string
		want, wantNS   []string
		ttl            int
		refusedBecause string
	}{
		{
			name: "an address", asked: "www.example. A",
			answer: []string{"WWW.example. 60 A 10.0.0.1", "www.example. 50 A 10.0.0.2"}, ns: []string{"example. 9 NS ns.example."},
			want: []string{"www.example. 60 A 10.0.0.1", "www.example. 50 A 10.0.0.2"}, ttl: 50,
		},
		{
			name: "records of others are left out", asked: "www.example. A",
			answer: []string{"www.example. 60 A 10.0.0.1", "bank.example. 86400 A 10.6.6.6", "www.example. 60 MX 5 mx.example."},
			want:   []string{"www.example. 60 A 10.0.0.1"}, ttl: 60,
		},
		{
			name: "aliases, in any order", asked: "a.example. A",
			answer: []string{"c.example. 30 A 10.0.0.1", "b.example. 20 CNAME c.example.", "a.example. 60 CNAME B.example."},
			want:   []string{"a.example. 60 CNAME B.example.", "b.example. 20 CNAME c.example.", "c.example. 30 A 10.0.0.1"}, ttl: 20,
		},
		{
			name: "an alias that leads nowhere", asked: "a.example. A", rcode: rcodeNXDomain,
			answer: []string{"a.example. 60 CNAME b.other."}, ns: []string{"other. 30 SOA ns.other. m.other. 1 2 3 4 10"},
			want: []string{"a.example. 60 CNAME b.other."}, wantNS: []string{"other. 10 SOA ns.other. m.other. 1 2 3 4 10"}, ttl: 10,
		},
		{
			name: "the alias itself", asked: "a.example. CNAME",
			answer: []string{"a.example. 60 CNAME b.example.", "b.example. 60 A 10.0.0.1"},
			want:   []string{"a.example. 60 CNAME b.example."}, ttl: 60,
		},
		{
			name: "a circle", asked: "a.example. A", refusedBecause: "circle",
			answer: []string{"a.example. 60 CNAME b.example.", "b.example. 60 CNAME a.example."},
		},
		{
			name: "an alias of itself", asked: "a.example. A", refusedBecause: "circle",
			answer: []string{"a.example. 60 CNAME a.example."},
		},
		{name: "a long chain", asked: "c0.example. A", answer: aliases(maxChain), refusedBecause: "more than"},
		{name: "a chain", asked: "c0.example. A", answer: aliases(maxChain - 1), want: aliases(maxChain - 1), ttl: 60},
		{
			name: "DNAME", asked: "x.a.example. A",
			answer: []string{"a.example. 90 DNAME b.example.", "x.a.example. 60 CNAME x.b.example.", "x.b.example. 60 A 10.0.0.1", "c.example. 60 DNAME d.example."},
			want:   []string{"a.example. 90 DNAME b.example.", "x.a.example. 60 CNAME x.b.example.", "x.b.example. 60 A 10.0.0.1"}, ttl: 60,
		},
		{
			name: "an answer to something else", asked: "www.example. A", refusedBecause: "another question",
			answer: []string{"bank.example. 60 A 10.6.6.6"},
		},
		{
			name: "a record and no such name", asked: "www.example. A", rcode: rcodeNXDomain, refusedBecause: "both",
			answer: []string{"www.example. 60 A 10.0.0.1"},
		},
		{
			name: "a referral", asked: "www.example. A", refusedBecause: "refers",
			ns: []string{"example. 60 NS ns.example."},
		},
		{
			name: "SOA of somebody else", asked: "www.example. A", rcode: rcodeNXDomain,
			ns: []string{"other. 3600 SOA ns.other. m.other. 1 2 3 4 3600"}, ttl: 5,
		},
		{
			name: "signatures for who wants them", asked: "www.example. A", do: true,
			answer: []string{"www.example. 60 A 10.0.0.1", "www.example. 60 RRSIG A 13 2 60 20300101000000 20200101000000 1 example. aGFsbG8=", "www.example. 60 RRSIG MX 13 2 60 20300101000000 20200101000000 1 example. aGFsbG8="},
			ns:     []string{"b.example. 40 NSEC d.example. A"},
			want:   []string{"www.example. 60 A 10.0.0.1", "www.example. 60 RRSIG A 13 2 60 20300101000000 20200101000000 1 example. aGFsbG8="},
			wantNS: []string{"b.example. 40 NSEC d.example. A"}, ttl: 40,
		},
		{
			name: "and for nobody else", asked: "www.example. A",
			answer: []string{"www.example. 60 A 10.0.0.1", "www.example. 60 RRSIG A 13 2 60 20300101000000 20200101000000 1 example. aGFsbG8="},
			ns:     []string{"b.example. 40 NSEC d.example. A"},
			want:   []string{"www.example. 60 A 10.0.0.1"}, ttl: 60,
		},
		{
			name: "a TTL below zero", asked: "www.example. A",
			answer: []string{"www.example. 4294967295 A 10.0.0.1"}, want: []string{"www.example. 0 A 10.0.0.1"}, ttl: 0,
		},
		{
			name: "a long TTL", asked: "www.example. A",
			answer: []string{"www.example. 604800 A 10.0.0.1"}, want: []string{"www.example. 3600 A 10.0.0.1"}, ttl: 3600,
		},
		{
			name: "a type with names and parameters", asked: "www.example. HTTPS",
			answer: []string{`www.example. 60 HTTPS 1 Other.example. alpn="h2,h3" ipv4hint="10.0.0.1"`},
			want:   []string{`www.example. 60 HTTPS 1 Other.example. alpn="h2,h3" ipv4hint="10.0.0.1"`}, ttl: 60,
		},
		{
			name: "a type that nobody knows", asked: "www.example. TYPE65280",
			answer: []string{`www.example. 60 CLASS1 TYPE65280 \# 4 0a000001`}, want: []string{`www.example. 60 CLASS1 TYPE65280 \# 4 0a000001`}, ttl: 60,
		},
		{name: "SERVFAIL", asked: "www.example. A", rcode: rcodeServFail, answer: []string{"www.example. 60 A 10.0.0.1"}, ttl: 5},
	} {
		t.Run(test.name, func(t *testing.T) {
			name, kind, _ := strings.Cut(test.asked, " ")
			qtype, known := miekg.StringToType[kind]
			if !known {
				qtype = 65280
			}
			q := question(name, qtype)
			a := &ask{name: string(q.Name), qtype: q.Type, do: test.do}
			raw := respond(a, func(m *miekg.Msg) {
				m.Rcode, m.Answer, m.Ns = test.rcode, records(t, test.answer), records(t, test.ns)
				m.Extra = records(t, []string{"bank.example. 60 A 10.6.6.6"})
				m.SetEdns0(4096, true)
			})
			got, err := clean(raw, a, hour)
			if test.refusedBecause != "" {
				if err == nil || !strings.Contains(err.Error(), test.refusedBecause) {
					t.Fatalf("got %v and %v", got, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var m miekg.Msg
			if err := m.Unpack(got.wire); err != nil {
				t.Fatal(err)
			}
			want := fmt.Sprint(records(t, test.want), records(t, test.wantNS), []miekg.RR(nil))
			if fmt.Sprint(m.Answer, m.Ns, m.Extra) != want || got.ttl != time.Duration(test.ttl)*time.Second || m.Rcode != test.rcode {
				t.Errorf("%s\nwant %s for %d s", &m, want, test.ttl)
			}
			if len(got.ttls) != len(m.Answer)+len(m.Ns) {
				t.Errorf("%d TTLs in\n%s", len(got.ttls), &m)
			}
		})
	}
}

// aliases are a chain of n, with an address at its end.
func aliases(n int) (lines []string) {
	for i := range n {
		lines = append(lines, fmt.Sprintf("c%d.example. 60 CNAME c%d.example.", i, i+1))
	}
	return append(lines, fmt.Sprintf("c%d.example. 60 A 10.0.0.1", n))
}

func records(t *testing.T, lines []string) (all []miekg.RR) {
	t.Helper()
	for _, line := range lines {
		rr, err := miekg.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, rr)
	}
	return all
}

// TestVerify: what is no answer to a request.
func TestVerify(t *testing.T) {
	q := question("www.example", typeA)
	request := (&ask{name: string(q.Name), qtype: q.Type}).pack(0x1234, form{})
	good := append([]byte(nil), request[:headerLen+len(q.Name)+4]...)
	good[2], good[11] = 0x81, 0
	if err := verify(request, good); err != nil {
		t.Fatal(err)
	}
	change := func(at int, to byte) []byte {
		msg := append([]byte(nil), good...)
		msg[at] = to
		return msg
	}
	for name, msg := range map[string][]byte{
		"another identifier": change(0, 0x99),
		"a query":            change(2, 0x01),
		"another opcode":     change(2, 0xa1),
		"two questions":      change(5, 2),
		"no question":        change(5, 0),
		"another name":       change(headerLen+1, 'x'),
		"another type":       change(headerLen+len(q.Name)+1, 28),
		"another class":      change(headerLen+len(q.Name)+3, 3),
		"nothing":            nil,
		"half a header":      good[:6],
		"half a question":    good[:len(good)-3],
		"a compressed name":  append(append([]byte(nil), good[:headerLen]...), 0xc0, 12, 0, 1, 0, 1),
	} {
		if verify(request, msg) == nil {
			t.Errorf("%s is taken for an answer", name)
		}
	}
	if err := verify(request, change(headerLen+1, 'W')); err != errCase {
		t.Errorf("another case: %v", err)
	}
	short := append([]byte(nil), good[:headerLen]...)
	short[3], short[5] = rcodeFormat, 0
	if err := verify(request, short); err != nil {
		t.Errorf("FORMERR without the question: %v", err)
	}
}

// FuzzClean: whatever an upstream sends, it is refused, or becomes an answer that
// is a message, of the question, with its TTLs where they are said to be.
func FuzzClean(f *testing.F) {
	q := question("www.example", typeA)
	a := &ask{name: string(q.Name), qtype: q.Type, do: true}
	for _, lines := range [][]string{
		{"www.example. 60 A 10.0.0.1"},
		{"www.example. 60 CNAME b.example.", "b.example. 60 A 10.0.0.1"},
		{"www.example. 60 RRSIG A 13 2 60 20300101000000 20200101000000 1 example. aGFsbG8="},
		{"example. 60 DNAME other.", "www.example. 60 CNAME www.other."},
	} {
		f.Add(respond(a, func(m *miekg.Msg) {
			for _, line := range lines {
				rr, _ := miekg.NewRR(line)
				m.Answer = append(m.Answer, rr)
			}
			m.Compress = true
			m.SetEdns0(1232, true)
		}))
	}
	f.Add(respond(a, func(m *miekg.Msg) {
		m.Rcode = rcodeNXDomain
		soa, _ := miekg.NewRR("example. 60 SOA ns.example. m.example. 1 2 3 4 5")
		m.Ns = []miekg.RR{soa}
	}))
	// A SOA without anything in it, which the library reads, and packs as what it
	// does not read.
	f.Add([]byte("\x00\x01\x810\x00\x01\x00\x00\x00\x01\x00\x00\x03www\aexample\x00\x00\x01\x00\x01\x00\x00\x06\x00\x010000\x00\x00"))
	request := a.pack(1, form{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if verify(request, raw) != nil {
			return
		}
		got, err := clean(raw, a, hour)
		if err != nil {
			return
		}
		var m miekg.Msg
		if err := m.Unpack(got.wire); err != nil {
			t.Fatalf("the answer is no message: %v", err)
		}
		if string(got.wire[headerLen:headerLen+len(a.name)]) != a.name || len(m.Extra) > 0 || got.ttl > time.Hour {
			t.Fatalf("kept for %s is %v", got.ttl, &m)
		}
		told := got.tell([]byte("before"), 0, true)
		if err := m.Unpack(told[len("before"):]); err != nil {
			t.Fatalf("what is told is no message: %v", err)
		}
		for _, rr := range append(m.Answer, m.Ns...) {
			if rr.Header().Ttl != uint32(staleTTL/time.Second) {
				t.Fatalf("a TTL was not found: %v", rr)
			}
		}
	})
}

// FuzzFindTTLs: no message is read past its end.
func FuzzFindTTLs(f *testing.F) {
	f.Add([]byte("\x00\x00\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x0a\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		ttls, err := findTTLs(msg)
		if err == nil {
			(&answer{wire: msg, ttls: ttls}).tell(nil, time.Second, false)
		}
	})
}

// FuzzName: whatever a name is made of, its answer repeats it byte by byte, whether
// an upstream has given it or nobody was asked.
func FuzzName(f *testing.F) {
	for _, name := range []string{"www.example.", ".", "localhost.", "a\\.b.invalid.", "\\000\\255.example.", "8.8.8.8.in-addr.arpa."} {
		f.Add([]byte(question(name, typeA).Name), uint16(typeA))
	}
	marks := newMarks()
	f.Fuzz(func(t *testing.T, name []byte, qtype uint16) {
		end, ok := nameEnd(name, 0)
		if !ok || end != len(name) || qtype == typeOPT {
			return
		}
		for i := range name {
			name[i] = lower(name[i])
		}
		q := dns.Question{Name: planned.Name(name), Type: qtype, Class: classIN}
		a := &ask{name: string(name), qtype: qtype}
		marks.isMark(a.name)
		var k key
		if back := askOf(string(keyOf(q, &k))); back.name != a.name || back.qtype != qtype {
			t.Fatalf("asked is %q %d", back.name, back.qtype)
		}
		asked := a.pack(7, form{pad: true})
		response := append([]byte(nil), asked[:headerLen+len(name)+4]...)
		response[2], response[3], response[11] = 0x81, 0x83, 0
		if err := verify(asked, response); err != nil {
			t.Fatal(err)
		}
		got, err := clean(response, a, hour)
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		for _, got := range []*answer{got, special(a, &Options{PrivateReverse: true}), silence(a, time.Second)} {
			if got != nil && string(got.wire[headerLen:headerLen+len(name)]) != string(name) {
				t.Fatalf("asked for %q, told of %q", name, got.wire)
			}
		}
	})
}
