package dns

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// attributing is a Forwarder that says who it is.
type attributing struct{ *world }

func (f attributing) Answer(ctx context.Context, q Question, into []byte) ([]byte, error) {
	if q.Source != nil {
		*q.Source = Source{By: ByUpstream, Upstream: "192.0.2.53:53"}
	}
	return f.world.Answer(ctx, q, into)
}

// TestQueryLog: a line has who asked for what, by which way, who answered and what;
// what could not be a line is counted.
func TestQueryLog(t *testing.T) {
	s := New(attributing{&world{t: t, records: "www.example.org. 60 IN A 192.0.2.1"}}, nil, nil)
	pod := netip.MustParseAddr("10.244.1.7")
	log := NewQueryLog()
	served := servedNow(t)
	served.Log, served.LogOneIn = log, 1
	served.Pods = served.Pods.With(pod, &Client{Namespace: "default", Name: "pod"})
	s.Serve(served)
	var out bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	fast := func(from asker, name string, kind uint16) {
		a := &answering{others: &s.others, counts: &counts{}, q: &query{}, r: &reply{}, outside: memory{s.forward}, random: 1}
		if a.message(served, packed(t, new(dns.Msg).SetQuestion(name, kind)), from, nil) == nil {
			t.Fatalf("%s waits", name)
		}
		log.take(a, time.Now(), nil)
	}
	fast(asker{addr: pod}, "web.default.svc.cluster.local.", dns.TypeA)
	fast(asker{addr: netip.MustParseAddr("127.0.0.1"), tcp: true}, `no"ne.default.svc.cluster.local.`, dns.TypeHTTPS)
	var running sync.WaitGroup
	s.pending.enter(pod, time.Now())
	s.slow(t.Context(), &running, packed(t, new(dns.Msg).SetQuestion("www.example.org.", dns.TypeA)), asker{addr: pod}, func([]byte) {})
	running.Wait()
	full := &answering{others: &s.others, counts: &counts{}, q: &query{}, r: &reply{}, outside: memory{s.forward}, random: 1}
	full.turnDown(served, packed(t, new(dns.Msg).SetQuestion("www.example.net.", dns.TypeA)), asker{addr: pod}, nil)
	log.take(full, time.Now(), nil)
	cancel()
	if err := log.Run(ctx, &out); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`"client":"10.244.1.7","namespace":"default","pod":"pod","name":"web.default.svc.cluster.local.","type":"A","protocol":"udp","rcode":"NOERROR","by":"cluster","seconds":`,
		`"client":"127.0.0.1","name":"no\"ne.default.svc.cluster.local.","type":"HTTPS","protocol":"tcp","rcode":"NXDOMAIN","by":"cluster","seconds":`,
		`"client":"10.244.1.7","namespace":"default","pod":"pod","name":"www.example.org.","type":"A","protocol":"udp","rcode":"NOERROR","by":"upstream","upstream":"192.0.2.53:53","seconds":`,
		`"name":"www.example.net.","type":"A","protocol":"udp","rcode":"SERVFAIL","by":"server","seconds":`,
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	for i := range want {
		if i >= len(lines) || !strings.Contains(lines[i], want[i]) || !strings.Contains(lines[i], `"revision":17`) || !json.Valid([]byte(lines[i])) {
			t.Fatalf("line %d of\n%s\nlacks %s", i, out.String(), want[i])
		}
	}
	if written, lost := log.Counts(); written != 4 || lost != 0 {
		t.Errorf("%d written, %d lost", written, lost)
	}
}

// filled answers queries for a log that nobody writes.
func filled(t testing.TB, queries int, oneIn uint32, name string) *QueryLog {
	log := NewQueryLog()
	served := servedNow(t)
	served.Log, served.LogOneIn = log, oneIn
	a := &answering{others: &Client{}, counts: &counts{}, q: &query{}, r: &reply{}, outside: nobody{}, random: 1}
	message, now := packed(t, new(dns.Msg).SetQuestion(name, dns.TypeA)), time.Now()
	for range queries {
		a.message(served, message, client, nil)
		log.take(a, now, nil)
	}
	return log
}

// TestQueryLogBounds: one of so many is logged, all that fail up to a rate, and
// nobody waits for who does not read.
func TestQueryLogBounds(t *testing.T) {
	const web, fails = "web.default.svc.cluster.local.", "www.example.org."
	if n := len(filled(t, 10_000, 100, web).lines); n < 60 || n > 150 {
		t.Errorf("one in a hundred of 10000: %d", n)
	}
	if n := len(filled(t, 1000, 1_000_000_000, fails).lines); n != failuresEach {
		t.Errorf("of 1000 that fail: %d", n)
	}
	full := filled(t, maxLogged+7, 1, web)
	if _, lost := full.Counts(); len(full.lines) != maxLogged || lost != 7 {
		t.Errorf("%d wait, %d are lost", len(full.lines), lost)
	}
	log, a := NewQueryLog(), &answering{served: &Served{LogOneIn: 1}, client: &Client{}, q: &query{}, r: &reply{}, random: 1}
	for range linesEach + 3 {
		log.take(a, time.Unix(100, 0), nil)
		select {
		case <-log.lines:
		default:
		}
	}
	if _, lost := log.Counts(); lost != 3 {
		t.Errorf("above the rate, %d are lost", lost)
	}
	for text, to := range map[string]io.Writer{"nobody reads": blocks{}, "the reader is gone": broken{}} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		if err := log.Run(ctx, to); err != nil || time.Since(began) > 2*logEndPatience {
			t.Errorf("%s: %v after %s", text, err, time.Since(began))
		}
	}
	var q quota
	second := time.Unix(100, 0)
	if !q.take(second, 1) || q.take(second, 1) || !q.take(second.Add(time.Second), 1) {
		t.Error("a quota is of each second")
	}
}

type blocks struct{}

func (blocks) Write([]byte) (int, error) { select {} }

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, fmt.Errorf("gone") }

// TestQueryLogAllocates: nothing for names of the cluster, whether they are logged
// or not.
func TestQueryLogAllocates(t *testing.T) {
	served := servedNow(t)
	message := packed(t, new(dns.Msg).SetQuestion("web.default.svc.cluster.local.", dns.TypeA))
	a := &answering{others: &Client{}, counts: &counts{}, q: &query{}, r: &reply{}, outside: nobody{}, random: 1}
	into := make([]byte, 0, replyRoom)
	for _, log := range []*QueryLog{nil, NewQueryLog()} {
		served.Log, served.LogOneIn = log, 1
		if n := testing.AllocsPerRun(100, func() {
			a.message(served, message, client, into)
			log.take(a, time.Now(), nil)
		}); n > 0 {
			t.Errorf("logged %v: %v allocations", log != nil, n)
		}
	}
}

// BenchmarkQueryLog is what it costs to answer with a log, and without.
func BenchmarkQueryLog(b *testing.B) {
	message := packed(b, new(dns.Msg).SetQuestion("web.default.svc.cluster.local.", dns.TypeA))
	for _, oneIn := range []uint32{0, 100, 1} {
		b.Run(fmt.Sprintf("oneIn=%d", oneIn), func(b *testing.B) {
			served := servedNow(b)
			if oneIn > 0 {
				served.Log, served.LogOneIn = NewQueryLog(), oneIn
				go served.Log.write(b.Context(), io.Discard)
			}
			a := &answering{others: &Client{}, counts: &counts{}, q: &query{}, r: &reply{}, outside: nobody{}, random: 1}
			into := make([]byte, 0, replyRoom)
			b.ReportAllocs()
			for b.Loop() {
				began := time.Now()
				a.message(served, message, client, into)
				served.Log.take(a, began, nil)
			}
		})
	}
}
