package gateway

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"
)

// metered is a Router that has its requests counted.
type metered struct {
	hosts
	meter *Meter
	quiet bool
}

func (m metered) Route(r *Request) (*Route, *Backend) {
	route, backend := m.hosts.Route(r)
	if route != nil {
		r.Meter, r.Quiet = m.meter, m.quiet
	}
	return route, backend
}

// upTo is how many are no more than a bound.
func upTo(h Histogram, bound float64) uint64 { return h.UpTo[slices.Index(h.Bounds, bound)] }

// counted returns METHOD STATUS COUNT of a meter, sorted, once there are so many:
// what is answered is counted after.
func counted(t *testing.T, m *Meter, want int) (all []string) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		all = nil
		sum := 0
		for _, s := range SeriesOf(m) {
			all = append(all, fmt.Sprintf("%s %s %d", s.Method, s.Status, s.Took.Count))
			sum += int(s.Took.Count)
		}
		if sum >= want || time.Now().After(deadline) {
			slices.Sort(all)
			return all
		}
	}
}

// TestMeter: requests are counted by method and status, with their bytes; those that
// no route takes, or that are none, by themselves. What a client makes up is one.
func TestMeter(t *testing.T) {
	up := backend(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(2 * time.Millisecond)
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		if r.URL.Path == "/odd" {
			w.WriteHeader(299)
		}
		_, _ = w.Write(body)
	})
	table := one(&Route{}, up)
	meter := &Meter{Names: Names{Host: "a"}}
	table.Router = metered{hosts: table.Router.(hosts), meter: meter}
	server, at := start(t, Settings{Measure: true}, table)
	p := dial(t, at)
	large := strings.Repeat("x", 200_000)
	received, sent := map[string]int{}, map[string]int{}
	for _, c := range []struct{ method, text string }{
		{"GET", get}, {"GET", get}, {"BREW", "BREW / HTTP/1.1\r\nHost: a\r\n\r\n"}, {"STEEP", "STEEP / HTTP/1.1\r\nHost: a\r\n\r\n"},
		{"POST", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + large}, {"PUT", "PUT /odd HTTP/1.1\r\nHost: a\r\n\r\n"},
	} {
		p.send(c.text)
		received[c.method] += len(c.text)
		head, err := p.Reader.Peek(1)
		if err != nil || head[0] != 'H' {
			t.Fatal(err)
		}
		before := countingReader{Reader: p.Reader}
		sent[c.method] += before.message(t)
	}
	p.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n")
	if response, _ := p.answer("GET"); response.StatusCode != 404 {
		t.Error(response.Status)
	}
	p.send("nonsense\r\n\r\n")
	if response, _ := p.answer("GET"); response.StatusCode != 400 {
		t.Error(response.Status)
	}
	if got, want := counted(t, meter, 6), []string{"GET 200 2", "POST 200 1", "PUT 2xx 1", "other 200 2"}; !slices.Equal(got, want) {
		t.Errorf("of the route %q, want %q", got, want)
	}
	if got, want := counted(t, server.Others(), 2), []string{"GET 404 1", "other 400 1"}; !slices.Equal(got, want) {
		t.Errorf("of no route %q, want %q", got, want)
	}
	for _, s := range SeriesOf(meter) {
		if s.Method != "other" && (int(s.RequestSize.Sum) != received[s.Method] || int(s.AnswerSize.Sum) != sent[s.Method]) {
			t.Errorf("%s: bytes %v and %v, want %d and %d", s.Method, s.RequestSize.Sum, s.AnswerSize.Sum, received[s.Method], sent[s.Method])
		}
		if each := s.Took.Sum / float64(s.Took.Count); each < 0.002 || each > 5 || s.Answered.Sum > s.Took.Sum || s.Answered.Count != s.Took.Count {
			t.Errorf("%s: took %v, and endpoints %v", s.Method, s.Took, s.Answered)
		}
		if upTo(s.Took, 0.001) != 0 || upTo(s.Took, 60) != s.Took.Count {
			t.Errorf("%s: buckets %v", s.Method, s.Took.UpTo)
		}
	}
	if connects := ConnectsOf(meter); connects.Count != 1 {
		t.Errorf("%d connections were made", connects.Count)
	}
}

// countingReader counts the bytes of an answer.
type countingReader struct {
	io.Reader
	n int
}

func (r *countingReader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b[:1]) // no more than the message
	r.n += n
	return n, err
}

// message reads an answer, and returns how many bytes it has.
func (r *countingReader) message(t *testing.T) int {
	t.Helper()
	var head strings.Builder
	one := make([]byte, 1)
	for !strings.HasSuffix(head.String(), "\r\n\r\n") {
		if _, err := r.Read(one); err != nil {
			t.Fatal(err)
		}
		head.Write(one)
	}
	length := 0
	for line := range strings.Lines(head.String()) {
		if _, err := fmt.Sscanf(line, "Content-Length: %d", &length); err == nil {
			break
		}
	}
	if _, err := io.CopyN(io.Discard, r, int64(length)); err != nil {
		t.Fatal(err)
	}
	return r.n
}

// TestMeterOfWhoLeft: who did not wait is counted as nginx does.
func TestMeterOfWhoLeft(t *testing.T) {
	asked := make(chan struct{})
	up := backend(t, func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	})
	table := one(&Route{}, up)
	meter := &Meter{}
	table.Router = metered{hosts: table.Router.(hosts), meter: meter}
	_, at := start(t, Settings{Measure: true}, table)
	p := dial(t, at)
	p.send(get)
	<-asked
	_ = p.Close()
	if got := counted(t, meter, 1); !slices.Equal(got, []string{"GET 499 1"}) {
		t.Errorf("%q", got)
	}
}

// TestMeterOfMany: what all cores count in one place, and then each in its own, is
// one count; little of it takes little memory.
func TestMeterOfMany(t *testing.T) {
	var m Meter
	const cores, each = 3, mostFew
	var counting sync.WaitGroup
	for core := range cores {
		counting.Go(func() {
			for range each {
				m.count([]byte("GET"), 200, core, &outcome{took: 3e5, answered: 2e5, received: 250, sent: 900})
			}
		})
	}
	counting.Wait()
	if m.newest.Load().many.Load() == nil {
		t.Error("all cores write to the same memory still")
	}
	m.count([]byte("GET"), 404, 0, &outcome{took: 1, answered: -1})
	all := SeriesOf(&m)
	if len(all) != 2 || all[1].Status != "404" || all[1].Took.Count != 1 || all[1].Answered.Count != 0 {
		t.Fatalf("%+v", all)
	}
	s := all[0]
	for name, h := range map[string]Histogram{"took": s.Took, "answered": s.Answered, "received": s.RequestSize, "sent": s.AnswerSize} {
		if h.Count != cores*each {
			t.Errorf("%s: %d of %d", name, h.Count, cores*each)
		}
	}
	if s.RequestSize.Sum != 250*cores*each || s.AnswerSize.Sum != 900*cores*each || upTo(s.Took, 0.0005) != cores*each || upTo(s.RequestSize, 100) != 0 {
		t.Errorf("%+v", s)
	}
	if size := unsafe.Sizeof(series{}); size > 256 {
		t.Errorf("%d bytes for each method and status of each route", size)
	}
}

func BenchmarkMeter(b *testing.B) {
	var m Meter
	method := []byte("GET")
	b.ReportAllocs()
	for b.Loop() {
		m.count(method, 200, 1, &outcome{took: 3e5, answered: 3e5, received: 250, sent: 900})
	}
}
