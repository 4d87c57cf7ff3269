package forward

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/fairlead-net/fairlead/model"
)

const patient = 5 * time.Second

// TestLies: what is no answer is not taken for one, and the one that is comes
// through, if there is any.
func TestLies(t *testing.T) {
	id := func(m *miekg.Msg) { m.Id++ }
	evil := func(m *miekg.Msg) { m.Answer[0].(*miekg.A).A = net.IPv4(6, 6, 6, 6) }
	other := func(m *miekg.Msg) { m.Question[0].Name = "xyz.example." } // as long
	for _, test := range []struct {
		name     string
		udp, tcp func([]byte) [][]byte
		want     int // records; -1: no answer
	}{
		{"the truth", addresses(2), nothing, 2},
		{"a wrong identifier first", func(q []byte) [][]byte { return [][]byte{reply(q, 1, id, evil), reply(q, 2)} }, nothing, 2},
		{"a wrong question first, as long", func(q []byte) [][]byte { return [][]byte{reply(q, 1, other, evil), reply(q, 2)} }, nothing, 2},
		{"garbage first", func(q []byte) [][]byte { return [][]byte{{}, {1}, q, make([]byte, 600), reply(q, 2)} }, nothing, 2},
		{"many guesses", func(q []byte) [][]byte {
			guesses := make([][]byte, 50)
			for i := range guesses {
				guesses[i] = reply(q, 1, func(m *miekg.Msg) { m.Id += uint16(1 + i) }, evil)
			}
			return append(guesses, reply(q, 1, evil))
		}, addresses(3), 3},
		{"nothing but garbage", func([]byte) [][]byte { return [][]byte{make([]byte, 2000)} }, nothing, -1},
		{"too long for UDP", cutShort, addresses(3), 3},
		{"a giant by UDP", addresses(400), addresses(3), 3},
		{"a giant by TCP", cutShort, addresses(4090), 4090},
		{"truncated by TCP too", cutShort, cutShort, 0},
		{"garbage by TCP", cutShort, func([]byte) [][]byte { return [][]byte{make([]byte, 500)} }, -1},
		{"another answer by TCP", cutShort, func(q []byte) [][]byte { return [][]byte{reply(q, 1, other)} }, -1},
		{"TCP ends", cutShort, func([]byte) [][]byte { return [][]byte{nil} }, -1},
		{"EDNS is not understood", func(q []byte) [][]byte {
			if q[11] == 0 {
				return addresses(2)(q)
			}
			msg := append([]byte(nil), q[:headerLen]...)
			msg[2], msg[3], msg[5], msg[11] = 0x81, 0x81, 0, 0
			return [][]byte{msg}
		}, nothing, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSite(t, "127.0.0.53", test.udp, test.tcp)
			wait := patient
			if test.want < 0 {
				wait = 200 * time.Millisecond
			}
			got, err := exchanged(t, model.Upstream{At: s.at}, dialing{}, wait)
			if got.count() != test.want {
				t.Errorf("got %d records, %v; want %d", got.count(), err, test.want)
			}
		})
	}
}

// TestOtherSource: an answer from another address or port is not heard at all.
func TestOtherSource(t *testing.T) {
	packets, _, at := listenOn(t, "127.0.0.54")
	stranger, err := net.ListenPacket("udp", "127.0.0.55:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stranger.Close() }()
	go func() {
		buffer := make([]byte, maxMessage)
		for {
			n, from, err := packets.ReadFrom(buffer)
			if err != nil {
				return
			}
			for range 2 * maxForged {
				_, _ = stranger.WriteTo(reply(buffer[:n], 1), from)
			}
			_, _ = packets.WriteTo(reply(buffer[:n], 2), from)
		}
	}()
	if got, err := exchanged(t, model.Upstream{At: at}, dialing{}, patient); got.count() != 2 {
		t.Errorf("got %d records, %v", got.count(), err)
	}
}

// TestPortsAndIdentifiersAreRandom: neither is used in an order that could be
// guessed.
func TestPortsAndIdentifiersAreRandom(t *testing.T) {
	packets, _, at := listenOn(t, "127.0.0.53")
	var ports, ids []int
	const n = 200
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, maxMessage)
		for range n {
			size, from, err := packets.ReadFrom(buffer)
			if err != nil {
				return
			}
			ports = append(ports, from.(*net.UDPAddr).Port)
			ids = append(ids, int(buffer[0])<<8|int(buffer[1]))
			_, _ = packets.WriteTo(reply(buffer[:size], 1), from)
		}
	}()
	tr := dialing{}.connect(model.Upstream{At: at})
	defer tr.close()
	for range n {
		if _, err := exchangedBy(t, tr, "www.example", patient); err != nil {
			t.Fatal(err)
		}
	}
	<-done
	for what, all := range map[string][]int{"ports": ports, "identifiers": ids} {
		different, near := map[int]bool{}, 0
		for i, v := range all {
			different[v] = true
			if i > 0 && v-all[i-1] < 16 && v-all[i-1] > -16 {
				near++
			}
		}
		if len(different) < n*9/10 || near > n/10 {
			t.Errorf("%s: %d different of %d, %d near the last: %v", what, len(different), n, near, all)
		}
	}
}

// TestMixedCase: an answer that does not repeat the letters goes by TCP.
func TestMixedCase(t *testing.T) {
	var seen sync.Map
	s := newSite(t, "127.0.0.53", func(q []byte) [][]byte {
		var m miekg.Msg
		_ = m.Unpack(q)
		seen.Store(m.Question[0].Name, true)
		if m.Question[0].Name != strings.ToLower(m.Question[0].Name) && strings.HasPrefix(strings.ToLower(m.Question[0].Name), "forgets") {
			return [][]byte{reply(q, 1, func(m *miekg.Msg) { m.Question[0].Name = strings.ToLower(m.Question[0].Name) })}
		}
		return addresses(2)(q)
	}, addresses(3))
	tr := dialing{mixed: true}.connect(model.Upstream{At: s.at})
	defer tr.close()
	for range 10 {
		if got, err := exchangedBy(t, tr, "repeats.the.letters.of.a.question.example", patient); got.count() != 2 {
			t.Errorf("got %d records, %v", got.count(), err)
		}
	}
	if got, err := exchangedBy(t, tr, "forgets.the.letters.of.a.question.example", patient); got.count() != 3 {
		t.Errorf("got %d records, %v", got.count(), err)
	}
	different := 0
	seen.Range(func(any, any) bool { different++; return true })
	if different < 10 {
		t.Errorf("%d spellings of 11", different)
	}
}

// TestTCPIsReused: many queries share connections, get their own answers in any
// order, and survive that the server ends connections.
func TestTCPIsReused(t *testing.T) {
	cert, roots := certificate(t, "dns.example", "127.0.0.53")
	s := newTLSSite(t, "127.0.0.53", cert, addresses(2))
	tr := dialing{roots: roots}.connect(model.Upstream{Transport: model.TLS, At: s.at, ServerName: "dns.example"})
	defer tr.close()
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			if got, err := exchangedBy(t, tr, fmt.Sprintf("w%d.example", i), patient); got.count() != 2 {
				t.Errorf("got %d records, %v", got.count(), err)
			}
		})
	}
	all.Wait()
	if n := s.accepted.Load(); n < 1 || n > maxPipes {
		t.Errorf("%d connections for 200 queries", n)
	}
	hits, misses := tr.reused()
	if hits+misses != 200 {
		t.Errorf("%d hits, %d misses", hits, misses)
	}
}

// TestConnectionEnds: a server may end connections after each answer, or before
// one.
func TestConnectionEnds(t *testing.T) {
	cert, roots := certificate(t, "dns.example", "127.0.0.53")
	s := newTLSSite(t, "127.0.0.53", cert, func(q []byte) [][]byte { return [][]byte{reply(q, 2), nil} })
	tr := dialing{roots: roots}.connect(model.Upstream{Transport: model.TLS, At: s.at})
	defer tr.close()
	for i := range 50 {
		if got, err := exchangedBy(t, tr, "www.example", patient); got.count() != 2 {
			t.Fatalf("query %d: got %d records, %v", i, got.count(), err)
		}
	}
}

// TestCertificates: only the server that is meant is asked.
func TestCertificates(t *testing.T) {
	cert, roots := certificate(t, "dns.example", "127.0.0.53")
	s := newTLSSite(t, "127.0.0.53", cert, addresses(2))
	other := newTLSSite(t, "127.0.0.56", cert, addresses(2))
	for _, test := range []struct {
		name string
		to   model.Upstream
		d    dialing
		want int
	}{
		{"by name", model.Upstream{Transport: model.TLS, At: s.at, ServerName: "dns.example"}, dialing{roots: roots}, 2},
		{"by address", model.Upstream{Transport: model.TLS, At: s.at}, dialing{roots: roots}, 2},
		{"another name", model.Upstream{Transport: model.TLS, At: s.at, ServerName: "other.example"}, dialing{roots: roots}, -1},
		{"another address", model.Upstream{Transport: model.TLS, At: other.at}, dialing{roots: roots}, -1},
		{"not trusted", model.Upstream{Transport: model.TLS, At: s.at, ServerName: "dns.example"}, dialing{}, -1},
	} {
		got, err := exchanged(t, test.to, test.d, patient)
		if got.count() != test.want {
			t.Errorf("%s: got %d records, %v", test.name, got.count(), err)
		}
	}
}

// TestHTTPS: RFC 8484, and servers that do not follow it.
func TestHTTPS(t *testing.T) {
	cert, roots := certificate(t, "dns.example", "127.0.0.53")
	dns := func(w http.ResponseWriter, r *http.Request) {
		query, _ := io.ReadAll(r.Body)
		if r.Method != http.MethodPost || r.ProtoMajor != 2 || r.Header.Get("Content-Type") != messageType ||
			query[0] != 0 || query[1] != 0 || len(query)%padTo != 0 {
			http.Error(w, fmt.Sprintf("%s %s %d bytes", r.Method, r.Proto, len(query)), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", messageType)
		n := 2
		if r.URL.Path == "/giant" {
			n = 4090
		}
		_, _ = w.Write(reply(query, n))
	}
	at := newHTTPSSite(t, "127.0.0.53", cert, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/dns-query", "/giant":
			dns(w, r)
		case "/elsewhere":
			http.Redirect(w, r, "/dns-query", http.StatusTemporaryRedirect)
		case "/html":
			_, _ = w.Write([]byte("<html>"))
		case "/endless":
			w.Header().Set("Content-Type", messageType)
			for range 100 {
				_, _ = w.Write(make([]byte, 4096))
			}
		default:
			http.NotFound(w, r)
		}
	})
	for path, want := range map[string]int{"": 2, "/dns-query": 2, "/giant": 4090, "/elsewhere": -1, "/html": -1, "/endless": -1, "/nowhere": -1} {
		to := model.Upstream{Transport: model.HTTPS, At: at, ServerName: "dns.example", Path: path}
		got, err := exchanged(t, to, dialing{roots: roots}, patient)
		if got.count() != want {
			t.Errorf("%s: got %d records, %v", path, got.count(), err)
		}
	}
	tr := dialing{roots: roots}.connect(model.Upstream{Transport: model.HTTPS, At: at})
	defer tr.close()
	for range 20 {
		if _, err := exchangedBy(t, tr, "www.example", patient); err != nil {
			t.Fatal(err)
		}
	}
	if hits, misses := tr.reused(); hits != 19 || misses != 1 {
		t.Errorf("%d hits, %d misses", hits, misses)
	}
}

// TestNobodyListens: it is known at once, by UDP too.
func TestNobodyListens(t *testing.T) {
	packets, listener, at := listenOn(t, "127.0.0.53")
	_ = packets.Close()
	_ = listener.Close()
	for _, transport := range []model.Transport{model.Plain, model.TLS, model.HTTPS} {
		_, err := exchanged(t, model.Upstream{Transport: transport, At: at}, dialing{}, patient)
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q: %v", transport, err)
		}
	}
}
