package gateway

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

// FuzzForward: whatever a client sends, what an endpoint gets is one request of
// HTTP/1.1, of the same method, path, host and body, that says of the client what
// this server knows.
func FuzzForward(f *testing.F) {
	for _, text := range []string{
		get, usual,
		"POST /a//%2e%2e/b?c HTTP/1.1\r\nHost: A.:80\r\nContent-Length: 5\r\nConnection: close, X-A\r\nX-A: 1\r\nX-Forwarded-For: 1\r\nX_Forwarded_For: 1\r\n\r\nhelloGET / HTTP/1.1\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nExpect: 100-continue\r\nTrailer: X\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\nGET / HTTP/1.1\r\n\r\n",
		"GET http://a/?# HTTP/1.0\r\nUpgrade: x\r\nConnection: upgrade, keep-alive\r\nX-Request-ID: 1\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 0\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nX-Real-IP: y\r\nForwarded: z\r\n\r\n",
	} {
		f.Add([]byte(text))
	}
	s := New(Settings{}, nil)
	f.Fuzz(func(t *testing.T, text []byte) {
		c := &client{server: s, clock: &s.watch.clock, counts: &s.counts[0], remote: netip.MustParseAddr("192.0.2.1"), at: Listener{At: netip.MustParseAddrPort("192.0.2.2:80")}}
		c.introduce()
		c.learn(&Table{})
		c.in = &buffer{b: bytes.Clone(text), to: len(text)}
		done, refused := c.request.Parse(c.in.bytes(), &s.settings.Limits)
		if refused != nil || !done || string(c.request.Method) == "CONNECT" || c.request.Path[0] != '/' || c.upload.begin(c) != nil || !c.upload.whole {
			return
		}
		message, _ := c.appendRequest(nil, &Route{}, c.upload.length, c.request.UpgradeTo())
		message, rest := c.upload.append(message)
		message = append(message, rest...)
		in := bufio.NewReader(bytes.NewReader(message))
		r, err := http.ReadRequest(in)
		if err != nil {
			t.Fatalf("%q: %v", message, err)
		}
		uri := string(c.request.Path)
		if c.request.Asked {
			uri += "?" + string(c.request.Query)
		}
		host := string(appendHost(nil, &c.request))
		if r.Method != string(c.request.Method) || r.RequestURI != uri || r.Host != host || r.ProtoMinor != 1 {
			t.Fatalf("%q: %s %s of %s", message, r.Method, r.RequestURI, r.Host)
		}
		want := bytes.Clone(c.upload.have)
		if got, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%q: body %q, %v", message, got, err)
		}
		if left, _ := io.ReadAll(in); len(left) > 0 {
			t.Fatalf("%q: %q is left", message, left)
		}
		for name, values := range r.Header {
			switch name {
			case "X-Forwarded-For", "X-Real-Ip":
				if len(values) != 1 || values[0] != "192.0.2.1" {
					t.Fatalf("%s: %q", name, values)
				}
			case "Te", "Keep-Alive", "Proxy-Connection", "Forwarded", "Expect", "Proxy":
				t.Fatalf("%s is passed on", name)
			}
			if strings.Contains(name, "_") {
				t.Fatalf("%s is passed on", name)
			}
		}
	})
}
