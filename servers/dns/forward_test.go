package dns

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// world is a Forwarder that knows some records.
type world struct {
	t       testing.TB
	records string // zone file
	rcode   int
	flags   func(*dns.Msg)
	cached  bool // all of it is known
	wait    chan struct{}
	broken  []byte // given instead

	mu    sync.Mutex
	asked []Question
}

func (w *world) Cached(q Question, into []byte) ([]byte, bool) {
	if !w.cached {
		return into, false
	}
	answer, err := w.Answer(context.Background(), q, into)
	return answer, err == nil
}

func (w *world) Answer(ctx context.Context, q Question, into []byte) ([]byte, error) {
	w.mu.Lock()
	w.asked = append(w.asked, q)
	w.mu.Unlock()
	if w.wait != nil {
		select {
		case <-w.wait:
		case <-ctx.Done():
			return into, ctx.Err()
		}
	}
	if w.rcode < 0 {
		return into, errors.New("nobody answers")
	}
	if w.broken != nil {
		return append(into, w.broken...), nil
	}
	m := new(dns.Msg).SetQuestion(q.Name.String(), q.Type)
	m.Id, m.Response, m.RecursionDesired, m.RecursionAvailable, m.Rcode, m.Compress = 0, true, false, true, w.rcode, true
	for line := range strings.Lines(w.records) {
		r, err := dns.NewRR(line)
		if err != nil {
			w.t.Error(err)
		} else if r.Header().Rrtype == dns.TypeSOA {
			m.Ns = append(m.Ns, r)
		} else {
			m.Answer = append(m.Answer, r)
		}
	}
	if w.flags != nil {
		w.flags(m)
	}
	raw, err := m.Pack()
	return append(into, raw...), err
}

// TestOutside: what a Forwarder says is what the client gets, with its own
// identifier, letters, flags and EDNS.
func TestOutside(t *testing.T) {
	served := servedNow(t)
	w := &world{t: t, records: "www.example.org. 60 IN CNAME a.example.net.\na.example.net. 30 IN A 192.0.2.1\na.example.net. 30 IN A 192.0.2.2"}
	query := new(dns.Msg).SetQuestion("wWw.Example.ORG.", dns.TypeA).SetEdns0(1232, true)
	query.CheckingDisabled = true
	a := &answering{others: &Client{}, counts: &counts{}, q: new(queryOf), r: &reply{}, outside: memory{w}, random: 1}
	if a.message(served, packed(t, query), client, nil) != nil || !a.waits {
		t.Fatal("what is not known at once is not waited for")
	}
	got := answered(t, served, inquiry{w, t.Context()}, client, packed(t, query))
	if want := "NOERROR\nwWw.Example.ORG. 60 IN CNAME a.example.net.\na.example.net. 30 IN A 192.0.2.1\na.example.net. 30 IN A 192.0.2.2"; text(got) != want {
		t.Errorf("%s\nwant\n%s", text(got), want)
	}
	if got.Id != query.Id || got.Authoritative || !got.CheckingDisabled || got.IsEdns0() == nil || !got.IsEdns0().Do() {
		t.Errorf("%v", got)
	}
	if q := w.asked[0]; q.Name != "\x03www\x07example\x03org\x00" || q.Type != dns.TypeA || q.Class != dns.ClassINET || !q.DNSSEC || !q.CheckingDisabled || q.Client != client.addr {
		t.Errorf("asked %+v", q)
	}

	for what, change := range map[string]func(){
		"NXDOMAIN\nauthority ORG. 60 IN SOA a. b. 1 2 3 4 5": func() { w.rcode, w.records = dns.RcodeNameError, "org. 60 IN SOA a. b. 1 2 3 4 5" },
		"SERVFAIL": func() { w.rcode = -1 },
	} {
		code, records := w.rcode, w.records
		change()
		if got := text(answered(t, served, inquiry{w, t.Context()}, client, packed(t, query))); got != what {
			t.Errorf("%s, want %s", got, what)
		}
		w.rcode, w.records = code, records
	}
	for _, broken := range []string{"00", "0000 8000 0000 0000 0000 0000", "0000 8000 0001 0001 0000 0000 <www.example.org> 00 0001"} {
		w.broken = raw(t, broken)
		if got := text(answered(t, served, inquiry{w, t.Context()}, client, packed(t, query))); got != "SERVFAIL" {
			t.Errorf("%s is taken for an answer: %s", broken, got)
		}
	}
}

// queryOf is query, where that is a variable.
type queryOf = query

// TestOutsideTruncated: of an answer that is too long for UDP there is what fits.
func TestOutsideTruncated(t *testing.T) {
	var records strings.Builder
	for i := range 100 {
		records.WriteString("big.example. 60 IN A " + netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}).String() + "\n")
	}
	w := &world{t: t, records: records.String()}
	for _, tcp := range []bool{false, true} {
		got := answered(t, servedNow(t), inquiry{w, t.Context()}, asker{client.addr, tcp}, packed(t, new(dns.Msg).SetQuestion("big.example.", dns.TypeA)))
		if got.Truncated == tcp || (len(got.Answer) == 100) != tcp || len(got.Answer) < 25 {
			t.Errorf("TCP %v: truncated %v with %d records", tcp, got.Truncated, len(got.Answer))
		}
	}
}

// TestExternalName: a Service that stands for a name of the outside has what that
// name has, in the same answer.
func TestExternalName(t *testing.T) {
	const all = `www.example.org. 60 IN CNAME a.example.org.
a.example.org. 30 IN A 192.0.2.1
a.example.org. 30 IN MX 10 mail.example.org.
a.example.org. 30 IN SRV 1 2 3 srv.example.org.
a.example.org. 30 IN TXT "text"
example.org. 30 IN SOA ns.example.org. h.example.org. 1 2 3 4 5`
	const name = "out.default.svc.cluster.local."
	served := servedNow(t)
	w := &world{t: t, records: all}
	got := text(answered(t, served, inquiry{w, t.Context()}, client, packed(t, new(dns.Msg).SetQuestion(name, dns.TypeA))))
	want := "NOERROR\n" + name + " 5 IN CNAME www.example.org.\n" + strings.Replace(all, "example.org. 30 IN SOA", "authority example.org. 30 IN SOA", 1)
	if strings.ReplaceAll(got, "\"", "") != strings.ReplaceAll(want, "\"", "") {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	w.rcode, w.records = dns.RcodeNameError, ""
	if got := text(answered(t, served, inquiry{w, t.Context()}, client, packed(t, new(dns.Msg).SetQuestion(name, dns.TypeA)))); got != "NXDOMAIN\n"+name+" 5 IN CNAME www.example.org." {
		t.Errorf("of a name that is not there: %s", got)
	}
	w.rcode = -1
	if got := text(answered(t, served, inquiry{w, t.Context()}, client, packed(t, new(dns.Msg).SetQuestion(name, dns.TypeA)))); got != "SERVFAIL" {
		t.Errorf("without an answer: %s", got)
	}
	w.rcode = 0
	for _, broken := range []string{
		"0000 8000 0001 0001 0000 0000 <www.example.org> 00 0001 0001 c022 0001 0001 00000000 0000", // a pointer ahead
		"0000 8000 0001 0001 0000 0000 <www.example.org> 00 0001 0001 c00c 0005 0001 00000000 0002 c02d",
		"0000 8000 0001 0001 0000 0000 <www.example.org> 00 0001 0001 c00c 000f 0001 00000000 0001 00",
		"0000 8000 0001 ffff 0000 0000 <www.example.org> 00 0001 0001",
	} {
		w.broken = raw(t, broken)
		if got := text(answered(t, served, inquiry{w, t.Context()}, client, packed(t, new(dns.Msg).SetQuestion(name, dns.TypeA)))); got != "SERVFAIL" {
			t.Errorf("%s is taken for an answer: %s", broken, got)
		}
	}
}

// TestPending: a client that waits for much has its share.
func TestPending(t *testing.T) {
	var p pending
	greedy, other := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	now := time.Now()
	enter := func(client netip.Addr) (n int) {
		for p.enter(client, now) {
			n++
		}
		return n
	}
	if n := enter(greedy); n != clientPending {
		t.Errorf("%d queries of one client are under way, want %d", n, clientPending)
	}
	if n := enter(other); n != clientPending {
		t.Errorf("%d of another, want %d", n, clientPending)
	}
	for i := 0; p.all < maxPending/2; i++ {
		enter(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}))
	}
	for i := range maxPending {
		if n := enter(netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)})); n > crowdedClient {
			t.Fatalf("%d of one, when there is little room", n)
		}
	}
	if p.all != maxPending {
		t.Errorf("%d under way, want %d", p.all, maxPending)
	}
	for client, of := range p.by {
		for range of.under {
			p.leave(client)
		}
	}
	if p.all != 0 {
		t.Errorf("%d are left", p.all)
	}
}

// TestRate: who asks for more than its rate is turned down, also if all of it is
// answered at once, and others are not.
func TestRate(t *testing.T) {
	var p pending
	greedy, other := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	ask := func(client netip.Addr, at time.Time, times int) (n int) {
		for range times {
			if p.enter(client, at) {
				p.leave(client)
				n++
			}
		}
		return n
	}
	now := time.Now()
	if n := ask(greedy, now, 10*clientBurst); n != clientBurst {
		t.Errorf("%d at once, want %d", n, clientBurst)
	}
	if n := ask(other, now, 100); n != 100 {
		t.Errorf("%d of 100 of another", n)
	}
	if n := ask(greedy, now.Add(100*time.Millisecond), 10*clientBurst); n != clientRate/10 {
		t.Errorf("%d after a tenth of a second, want %d", n, clientRate/10)
	}
	// After a rest a share is as new, and need not be kept.
	later := now.Add(time.Minute)
	for i := range manyShares {
		ask(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), later, 1)
	}
	ask(other, later.Add(time.Minute), 1)
	ask(netip.MustParseAddr("10.0.0.3"), later.Add(time.Minute), 1)
	if len(p.by) > 2 {
		t.Errorf("%d shares are kept", len(p.by))
	}
	if n := ask(greedy, later.Add(time.Minute), 10*clientBurst); n != clientBurst {
		t.Errorf("%d at once after a rest, want %d", n, clientBurst)
	}
}

// TestSlow: who asks for a name whose server is slow waits; nobody else does, and
// beyond what one may wait for it is SERVFAIL at once.
func TestSlow(t *testing.T) {
	w := &world{t: t, wait: make(chan struct{})}
	s, at := start(t, w)
	conn := dialUDP(t, at)
	slow := new(dns.Msg).SetQuestion("slow.example.", dns.TypeA)
	for range clientPending + 10 {
		conn.write(packed(t, slow))
	}
	for range 10 {
		if got := conn.read(); got == nil || got.Rcode != dns.RcodeServerFailure {
			t.Fatalf("one query too many: %s", text(got))
		}
	}
	conn.write(packed(t, new(dns.Msg).SetQuestion("web.default.svc.cluster.local.", dns.TypeA)))
	if got := conn.read(); !strings.HasPrefix(text(got), "NOERROR\nweb") {
		t.Errorf("a name of the cluster, meanwhile: %s", text(got))
	}
	close(w.wait)
	for i := range clientPending {
		if got := conn.read(); got == nil || got.Rcode != dns.RcodeSuccess {
			t.Fatalf("answer %d: %s", i, text(got))
		}
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		s.pending.mu.Lock()
		left := s.pending.all
		s.pending.mu.Unlock()
		if left == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d are still under way", left)
		}
	}
}

// TestTurnedDown: who has his share under way is told so by either protocol, counted,
// and still has the names of the cluster.
func TestTurnedDown(t *testing.T) {
	s, at := start(t, &world{t: t, records: "www.example. 60 IN A 192.0.2.1"})
	s.pending.mu.Lock()
	s.pending.all, s.pending.by = clientPending, map[netip.Addr]*share{netip.MustParseAddr("127.0.0.1"): {under: clientPending}}
	s.pending.mu.Unlock()
	for _, network := range []string{"udp", "tcp"} {
		for name, want := range map[string]int{"www.example.": dns.RcodeServerFailure, "web.default.svc.cluster.local.": dns.RcodeSuccess} {
			got, _, err := (&dns.Client{Net: network, Timeout: time.Second}).Exchange(new(dns.Msg).SetQuestion(name, dns.TypeA), at.String())
			if err != nil || got.Rcode != want {
				t.Errorf("%s by %s: %v, %s", name, network, err, text(got))
			}
		}
	}
	if n := s.others.Refused.Load(); n != 2 {
		t.Errorf("%d are counted, want 2", n)
	}
}
