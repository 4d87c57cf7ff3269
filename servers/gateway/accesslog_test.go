package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// pages is where a log is written to.
type pages struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (p *pages) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.Write(b)
}

func (p *pages) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.String()
}

// lines waits until there are so many.
func (p *pages) lines(t *testing.T, want int) []string {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		text := p.text()
		if n := strings.Count(text, "\n"); n >= want || time.Now().After(deadline) {
			if n != want {
				t.Fatalf("%d lines, want %d:\n%s", n, want, text)
			}
			return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		}
	}
}

// logged starts a server that logs.
func logged(t *testing.T, log *AccessLog, to io.Writer, table *Table) (server *Server, at string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { _ = log.Run(ctx, to) })
	t.Cleanup(func() { cancel(); running.Wait() }) // after the server
	return start(t, Settings{Log: log}, table)
}

// TestAccessLog: a line has what was asked and answered, whatever a client writes
// into it is one value of it, and who is to be quiet is not in it.
func TestAccessLog(t *testing.T) {
	up := backend(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "hello")
	})
	table := one(&Route{}, up)
	router := metered{hosts: table.Router.(hosts), meter: &Meter{Names: Names{Host: "a", Namespace: "shop", Ingress: "web", Service: "svc", Port: "80", Path: "/p"}}}
	table.Router = router
	const forged = "GET /p?q=\"},{\"status\":200 HTTP/1.1\r\nHost: a\r\nUser-Agent: a\"b\\n\xff\xe2\x80\xa8c\r\nReferer: http://x/\"\r\nX-Request-ID: mine\r\n\r\n"
	for _, form := range []Form{JSON, Upstream} {
		t.Run(fmt.Sprint(form), func(t *testing.T) {
			var to pages
			server, at := logged(t, NewAccessLog(form, 1), &to, table)
			p := dial(t, at)
			p.send(forged)
			p.answer("GET")
			p.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n")
			p.answer("GET")
			to.lines(t, 2)
			quiet := router
			quiet.quiet = true
			server.Serve(&Table{Router: quiet})
			p.send(get)
			p.answer("GET")
			server.Serve(table)
			p.send("nonsense \"\r\n\r\n")
			p.answer("GET")
			lines := to.lines(t, 3)
			if form == Upstream {
				verifyUpstream(t, lines, up.String(), len(forged))
				return
			}
			var first, second, third map[string]any
			for i, into := range []*map[string]any{&first, &second, &third} {
				if err := json.Unmarshal([]byte(lines[i]), into); err != nil {
					t.Fatalf("%v: %s", err, lines[i])
				}
			}
			for name, want := range map[string]any{
				"client": "127.0.0.1", "request_id": "mine", "method": "GET", "host": "a", "target": "/p?q=\"},{\"status\":200", "protocol": "HTTP/1.1", "scheme": "http",
				"status": 418.0, "request_bytes": float64(len(forged)), "user_agent": "a\"b\\n\ufffd\u2028c", "referer": "http://x/\"",
				"namespace": "shop", "ingress": "web", "service": "svc", "path": "/p", "endpoint": up.String(), "endpoint_status": 418.0, "tries": 1.0,
			} {
				if first[name] != want {
					t.Errorf("%s is %v, want %v", name, first[name], want)
				}
			}
			if at, err := time.Parse(time.RFC3339, fmt.Sprint(first["time"])); err != nil || time.Since(at) > time.Minute {
				t.Errorf("time is %v", first["time"])
			}
			if strings.Contains(lines[0], "\u2028") || len(fmt.Sprint(second["request_id"])) != 32 || second["status"] != 404.0 || second["endpoint"] != nil {
				t.Errorf("%s\n%s", lines[0], lines[1])
			}
			if third["status"] != 400.0 || third["method"] != nil || third["ingress"] != nil {
				t.Errorf("of what is no request: %s", lines[2])
			}
		})
	}
}

// verifyUpstream compares with what nginx would write.
func verifyUpstream(t *testing.T, lines []string, up string, length int) {
	t.Helper()
	var rest string
	date, request, _ := strings.Cut(strings.TrimPrefix(lines[0], "127.0.0.1 - - ["), "] ")
	if _, err := time.Parse("02/Jan/2006:15:04:05 -0700", date); err != nil {
		t.Error(err)
	}
	request, rest, _ = strings.Cut(request, ` 418 5 `)
	if request != `"GET /p?q=\x22},{\x22status\x22:200 HTTP/1.1"` {
		t.Errorf("the request is %s", request)
	}
	words := strings.Fields(rest)
	if got := strings.Join(append(words[:3:3], words[4:7]...), " "); got != fmt.Sprintf(`"http://x/\x22" "a\x22b\x5Cn\xFF\xE2\x80\xA8c" %d [shop-svc-80] [] %s`, length, up) {
		t.Errorf("the rest is %s", got)
	}
	if words[7] != "5" || words[9] != "418" || words[10] != "mine" || len(words) != 11 {
		t.Errorf("the rest is %q", words)
	}
	if !strings.Contains(lines[2], `] "" 400 `) {
		t.Errorf("of what is no request: %s", lines[2])
	}
}

// stuck is somebody who does not read.
type stuck struct{ until <-chan struct{} }

func (s stuck) Write(b []byte) (int, error) {
	<-s.until
	return len(b), nil
}

// TestAccessLogNobodyReads: clients are answered all the same, and what is lost is
// counted.
func TestAccessLogNobodyReads(t *testing.T) {
	table := plainBackend(t)
	log := NewAccessLog(JSON, 1)
	_, at := logged(t, log, stuck{t.Context().Done()}, table)
	p := dial(t, at)
	answer := make([]byte, len(ok))
	long := "GET /" + strings.Repeat("x", 4000) + " HTTP/1.1\r\nHost: a\r\n\r\n"
	for range 500 { // more than waits
		p.send(long)
		if _, err := io.ReadFull(p.Reader, answer); err != nil {
			t.Fatal(err)
		}
	}
	if _, lost := log.Counts(); lost == 0 {
		t.Error("nothing was lost")
	}
}

// TestAccessLogSamples: of what went well some lines, of what failed all.
func TestAccessLogSamples(t *testing.T) {
	table := &Table{Router: hosts{"good": {&Route{Answer: &Answer{Status: 200}}, nil}, "bad": {&Route{Answer: &Answer{Status: 500}}, nil}}}
	var to pages
	_, at := logged(t, NewAccessLog(JSON, 10), &to, table)
	p := dial(t, at)
	for range 300 {
		p.send("GET / HTTP/1.1\r\nHost: good\r\n\r\n")
		p.answer("GET")
	}
	for range 20 {
		p.send("GET / HTTP/1.1\r\nHost: bad\r\n\r\n")
		p.answer("GET")
	}
	time.Sleep(3 * writeEach) // there is no telling how many lines there will be
	text := to.text()
	if good, bad := strings.Count(text, `"status":200`), strings.Count(text, `"status":500`); good == 0 || good > 90 || bad != 20 {
		t.Errorf("%d of 300 good ones, %d of 20 bad ones", good, bad)
	}
}

// FuzzAccessLog: what clients write is never more than a value of one line.
func FuzzAccessLog(f *testing.F) {
	for _, seed := range []string{"", `"`, `\`, "a\nb", "\x00\x1f\x7f\x80\xff", "\u0085\u2028\u2029é€😀", strings.Repeat("ü", maxText)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		b := append(appendJSON([]byte{'"'}, text), '"')
		var back string
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatalf("%q: %v", b, err)
		}
		for _, of := range []string{string(b), string(orDash(nil, []byte(text)))} {
			if strings.ContainsAny(of, "\n\r\x00\x1b\u0085\u2028\u2029") {
				t.Errorf("%q has an end of a line", of)
			}
		}
		if want := strings.ToValidUTF8(text, "\ufffd"); len(text) <= maxText && back != want && !strings.Contains(text, "\xff") && strings.ToValidUTF8(text, "") == text {
			t.Errorf("%q came back as %q", text, back)
		}
	})
}
