package gateway

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// TestBadInput: what has broken other proxies is refused, or the endpoint gets its
// one harmless meaning. Nothing of what follows it on the connection is ever taken
// for a request of its own unless it is one.
func TestBadInput(t *testing.T) {
	var reached, smuggled atomic.Int32
	up := backend(t, func(w http.ResponseWriter, r *http.Request) {
		reached.Add(1)
		if r.URL.Path == "/smuggled" {
			smuggled.Add(1)
		}
		body, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s %s %q", r.Method, r.RequestURI, body)
		for _, name := range []string{"Authorization", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "X_forwarded_for", "X-Original-Url", "Forwarded"} {
			if v := r.Header.Get(name); v != "" {
				_, _ = fmt.Fprintf(w, " %s=%s", name, v)
			}
		}
	})
	server, at := start(t, Settings{}, one(&Route{}, up))
	const inner = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
	post := func(fields, body string) string { return "POST / HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n" + body }
	path := func(p string) string { return "GET " + p + " HTTP/1.1\r\nHost: a\r\n\r\n" }
	const told = " X-Forwarded-For=127.0.0.1 X-Forwarded-Host=a X-Real-Ip=127.0.0.1"
	for _, c := range []struct {
		name, in string
		status   int
		sees     string // the endpoint; empty: nothing
	}{
		{"both lengths", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"+inner), 400, ""},
		{"two lengths", post("Content-Length: 0\r\nContent-Length: 37\r\n", inner), 400, ""},
		{"a list of lengths", post("Content-Length: 0, 0\r\n", inner), 400, ""},
		{"space before the colon", post("Transfer-Encoding : chunked\r\nContent-Length: 37\r\n", inner), 400, ""},
		{"xchunked", post("Transfer-Encoding: xchunked\r\n", inner), 501, ""},
		{"chunked in 1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner, 400, ""},
		{"bare LF", "GET / HTTP/1.1\nHost: a\n\n" + inner, 400, ""},
		{"bare CR", "GET / HTTP/1.1\r\nHost: a\r\nA: b\rC: d\r\n\r\n" + inner, 400, ""},
		{"bare LF in a chunk", post("Transfer-Encoding: chunked\r\n", "1\na\n0\n\n"+inner), 400, ""},
		{"a chunk of too many digits", post("Transfer-Encoding: chunked\r\n", "fffffffffffffffff1\r\na\r\n0\r\n\r\n"+inner), 400, ""},
		{"extensions of chunks", post("Transfer-Encoding: chunked\r\n", "1;a=\"b\"\r\na\r\n0;c\r\n\r\n"), 200, `POST / "a"` + told},
		{"a folded line", "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n Content-Length: 37\r\n\r\n" + inner, 400, ""},
		{"two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + inner, 400, ""},
		{"a Host with an empty label", "GET / HTTP/1.1\r\nHost: a..b\r\n\r\n" + inner, 400, ""},
		{"a method that is no word", "0 / HTTP/1.1\r\nHost: a\r\n\r\n" + inner, 400, ""},
		{"a URL of another host", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n" + inner, 400, ""},
		{"dots that are escaped", path("/a/%2e%2e/b"), 200, `GET /b ""` + told},
		{"above the root", path("/a/%2e%2e/%2e./b"), 400, ""},
		{"an escaped slash", path("/a%2fb"), 200, `GET /a%2Fb ""` + told},
		{"escaped slashes and dots", path("/a%2f..%2fb"), 400, ""},
		{"an escaped backslash and dots", path("/a/..%5cb"), 400, ""},
		{"a backslash", path(`/a\..\b`), 400, ""},
		{"slashes", path("//a///b"), 200, `GET /a/b ""` + told},
		{"dots and a parameter", path("/a/..;/b"), 400, ""},
		{"a fragment", path("/a#b"), 400, ""},
		{"two question marks", path("/a?b?c=/../d"), 200, `GET /a?b?c=/../d ""` + told},
		{"NUL", path("/a\x00b"), 400, ""},
		{"an escaped NUL", path("/a%00b"), 400, ""},
		{"who asks, spoofed", "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\nX-Forwarded-Host: b\r\nX_Forwarded_For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nX-Original-URL: /b\r\n\r\n", 200, `GET / ""` + told},
		{"a field that is struck out", "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: b\r\nConnection: Authorization, X-Forwarded-For, X-Real-IP\r\n\r\n", 200, `GET / ""` + told},
		{"a length that is struck out", post("Connection: Content-Length\r\nContent-Length: 37\r\n", inner), 400, ""},
		{"an upgrade to h2c", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", 200, `GET / ""` + told},
		{"a field of 1 MB", "GET / HTTP/1.1\r\nHost: a\r\nA: " + strings.Repeat("a", 1<<20) + "\r\n\r\n", 431, ""},
		{"10,000 fields", "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("A: b\r\n", 10_000) + "\r\n", 431, ""},
	} {
		before := reached.Load()
		p := dial(t, at)
		go func() { _, _ = io.WriteString(p.Conn, c.in) }() // of which not all may be read
		response, body := p.answer("GET")
		if response.StatusCode != c.status || c.sees != "" && body != c.sees {
			t.Errorf("%s: %d %s", c.name, response.StatusCode, body)
		}
		if c.status >= 400 {
			p.closed()
			if reached.Load() != before {
				t.Errorf("%s: it was passed on", c.name)
			}
		}
	}
	if n := smuggled.Load(); n > 0 {
		t.Errorf("%d requests were smuggled", n)
	}
	if n := server.Counts(); n.Unreached > 0 || n.Retries > 0 {
		t.Errorf("%+v", n)
	}
}

// TestRewrite: what is cut off a path and put together is checked once more.
func TestRewrite(t *testing.T) {
	up := backend(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RequestURI) })
	_, at := start(t, Settings{}, one(&Route{Rewrite: func(into []byte, r *Request) []byte {
		rest := r.Path[min(len("/api"), len(r.Path)):]
		more, _ := r.Get("x-more")
		return append(append(append(into, '/'), rest...), more...)
	}}, up))
	for _, c := range []struct {
		in, more string
		status   int
		sees     string
	}{
		{"/api/x", "", 200, "/x"},
		{"/apix", "", 200, "/x"},
		{"/api/", "?a=b", 200, "/?a=b"},
		{"/api../secret", "", 400, ""},
		{"/api./x", "", 200, "/x"},
		{"/api/x", "y HTTP/1.1", 400, ""},
	} {
		p := dial(t, at)
		p.send("GET " + c.in + " HTTP/1.1\r\nHost: a\r\nX-More: " + c.more + "\r\n\r\n")
		if response, body := p.answer("GET"); response.StatusCode != c.status || c.sees != "" && body != c.sees {
			t.Errorf("%s: %d %s", c.in, response.StatusCode, body)
		}
	}
}
