package gateway

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unique"
)

// ward is a backend of two endpoints whose health is set, and counts what they are
// asked.
type ward struct {
	sick   [2]atomic.Bool
	checks [2]atomic.Int64
	*Backend
}

func newWard(t *testing.T, check Check) *ward {
	w := &ward{Backend: &Backend{Check: unique.Make(check)}}
	for i := range w.sick {
		w.Endpoints = append(w.Endpoints, backend(t, func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/healthz" {
				rw.Header().Set("X-By", strconv.Itoa(i))
				return
			}
			w.checks[i].Add(1)
			if w.sick[i].Load() || r.Host != "check.example.org" {
				rw.WriteHeader(http.StatusServiceUnavailable)
			}
		}))
	}
	return w
}

func (w *ward) table() *Table {
	return &Table{Router: hosts{"a": {&Route{}, w.Backend}}, Checked: []*Backend{w.Backend}}
}

// again is a backend with the same endpoints, as another table has it.
func (w *ward) again() *Backend { return &Backend{Endpoints: w.Endpoints, Check: w.Check} }

// by tells who answers ten requests.
func by(t *testing.T, at string) string {
	t.Helper()
	p := dial(t, at)
	var all strings.Builder
	for range 10 {
		p.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		response, _ := p.answer("GET")
		if text := response.Header.Get("X-By"); !strings.Contains(all.String(), text) {
			all.WriteString(text)
		}
	}
	return all.String()
}

// TestHealth: who is not well is left out before anybody asks it, for as long as it is
// not, by this table and the next; who knows no check is not concerned.
func TestHealth(t *testing.T) {
	w := newWard(t, Check{Path: "/healthz", Host: "check.example.org", Interval: 100 * time.Millisecond, Timeout: time.Second, Healthy: 2, Unhealthy: 3, From: 200, To: 299})
	w.sick[0].Store(true)
	server, at := start(t, Settings{Here: true}, w.table())
	until(t, "one is left out", func() bool { return server.Counts().Sick == 1 })
	if n := server.Counts(); n.Checked != 2 || n.Ailing < 3 || n.Checks <= n.Ailing {
		t.Errorf("%+v", n)
	}
	if got := by(t, at); got != "1" {
		t.Errorf("%q answer", got)
	}
	asked := w.checks[0].Load()
	server.Serve(&Table{Router: hosts{"a": {&Route{}, w.again()}}, Checked: []*Backend{w.again()}})
	if got := by(t, at); got != "1" {
		t.Errorf("by the next table %q answer", got)
	}
	until(t, "it is asked by the next table", func() bool { return w.checks[0].Load() > asked })

	plain := &Backend{Endpoints: w.Endpoints}
	server.Serve(&Table{Router: hosts{"a": {&Route{}, plain}}, Checked: []*Backend{w.Backend}})
	if got := by(t, at); len(got) != 2 {
		t.Errorf("without a check %q answer", got)
	}
	server.Serve(w.table())
	w.sick[1].Store(true)
	until(t, "both are sick", func() bool { return server.Counts().Sick == 2 })
	if got := by(t, at); len(got) != 2 {
		t.Errorf("when all are sick %q answer", got)
	}
	w.sick[0].Store(false)
	until(t, "one is well again", func() bool { return server.Counts().Sick == 1 })
	if got := by(t, at); got != "0" {
		t.Errorf("%q answer", got)
	}
	server.Serve(&Table{Router: hosts{"a": {&Route{}, plain}}})
	until(t, "nobody is asked", func() bool { return server.Counts().Checked == 0 })
	asked = w.checks[0].Load()
	time.Sleep(300 * time.Millisecond) // three times as long as between two questions
	if n := w.checks[0].Load(); n > asked+1 {
		t.Errorf("it is asked %d times more", n-asked)
	}
}

// TestHealthElsewhere: what listens for this machine alone is not asked, and not left
// out for it.
func TestHealthElsewhere(t *testing.T) {
	w := newWard(t, Check{Path: "/healthz", Interval: 100 * time.Millisecond, Timeout: time.Second, Healthy: 1, Unhealthy: 1, From: 200, To: 299})
	server, at := start(t, Settings{}, w.table())
	until(t, "they are to be asked", func() bool { return server.Counts().Checked == 2 })
	time.Sleep(500 * time.Millisecond) // in which each would be asked several times
	if n := server.Counts(); n.Checks != 0 || n.Sick != 0 || w.checks[0].Load() != 0 {
		t.Errorf("%+v", n)
	}
	if got := by(t, at); len(got) != 2 {
		t.Errorf("%q answer", got)
	}
}

// TestHealthIsBounded: however many endpoints are slow, so many questions are under way
// at once, and all are asked in turn.
func TestHealthIsBounded(t *testing.T) {
	var now, most atomic.Int64
	answer := make(chan struct{})
	release := sync.OnceFunc(func() { close(answer) })
	defer release()
	const all = 3 * maxChecks
	b := &Backend{Check: unique.Make(Check{Path: "/", Interval: time.Second, Timeout: time.Minute, Healthy: 1, Unhealthy: 1, From: 200, To: 299})}
	for range all {
		b.Endpoints = append(b.Endpoints, backend(t, func(w http.ResponseWriter, _ *http.Request) {
			n := now.Add(1)
			defer now.Add(-1) // before the answer is sent
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			<-answer
			w.WriteHeader(http.StatusServiceUnavailable)
		}))
	}
	server, _ := start(t, Settings{Here: true}, &Table{Router: hosts{}, Checked: []*Backend{b}})
	until(t, "as many as may be are asked", func() bool { return now.Load() >= maxChecks })
	release()
	until(t, "all have been asked", func() bool { return server.Counts().Sick == all })
	if n := most.Load(); n > maxChecks {
		t.Errorf("%d questions at once", n)
	}
}
