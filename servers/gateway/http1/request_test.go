package http1

import (
	"fmt"
	"strings"
	"testing"
)

// read reads a whole head, in one piece.
func read(text string) (*Request, bool, *Error) {
	r, limits := &Request{}, Usual()
	done, err := r.Parse([]byte(text), &limits)
	return r, done, err
}

// lines makes a message of a text with newlines.
func lines(text string) string { return strings.ReplaceAll(text, "\n", "\r\n") }

func describe(r *Request) string {
	return fmt.Sprintf("%s %s ?%s host=%s port=%s length=%d persist=%v", r.Method, r.Path, r.Query, r.Host, r.Port, r.Length, r.Persist)
}

func TestRequest(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"GET / HTTP/1.1\nHost: a\n\n", "GET / ? host=a port= length=0 persist=true"},
		{"\nGET /x?y=%zz&z HTTP/1.1\nHOST:\t A.Example.:8080 \n\n", "GET /x ?y=%zz&z host=a.example port=8080 length=0 persist=true"},
		{"POST /x HTTP/1.1\nHost: a\nContent-Length: 12\nConnection: close\n\n", "POST /x ? host=a port= length=12 persist=false"},
		{"POST /x HTTP/1.1\nHost: a\nTransfer-Encoding: Chunked\n\n", "POST /x ? host=a port= length=-1 persist=true"},
		{"GET / HTTP/1.0\n\n", "GET / ? host= port= length=0 persist=false"},
		{"GET / HTTP/1.0\nConnection: Keep-Alive, x\n\n", "GET / ? host= port= length=0 persist=true"},
		{"GET http://A:80/b?c HTTP/1.1\nHost: a:80\n\n", "GET /b ?c host=a port=80 length=0 persist=true"},
		{"GET https://a?c HTTP/1.1\nHost: a\n\n", "GET / ?c host=a port= length=0 persist=true"},
		{"OPTIONS * HTTP/1.1\nHost: a\n\n", "OPTIONS * ? host=a port= length=0 persist=true"},
		{"CONNECT a:443 HTTP/1.1\nHost: a:443\n\n", "CONNECT a:443 ? host=a port=443 length=0 persist=true"},
		{"GET / HTTP/1.1\nHost: [2001:DB8::1]:80\n\n", "GET / ? host=[2001:db8::1] port=80 length=0 persist=true"},
		{"GET / HTTP/1.1\nHost: a\nX-Text: t\xc3\xa4\xff \"t\ty\"\nEmpty:\n\n", "GET / ? host=a port= length=0 persist=true"},
	} {
		r, done, err := read(lines(c.in))
		if err != nil || !done {
			t.Errorf("%q: done %v, %v", c.in, done, err)
			continue
		}
		if got := describe(r); got != c.want {
			t.Errorf("%q:\n got %s\nwant %s", c.in, got, c.want)
		}
		if r.Size() != len(lines(c.in)) {
			t.Errorf("%q: %d bytes of %d", c.in, r.Size(), len(lines(c.in)))
		}
	}
}

func TestRefusedRequest(t *testing.T) {
	const get = "GET / HTTP/1.1\r\nHost: a\r\n"
	for _, c := range []struct {
		name, in string
		want     *Error
	}{
		{"both lengths", get + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", errBoth},
		{"both lengths, the other way", get + "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", errBoth},
		{"two lengths", get + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", errTwoLengths},
		{"two equal lengths", get + "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", errTwoLengths},
		{"a list of lengths", get + "Content-Length: 1, 1\r\n\r\n", errLength},
		{"a signed length", get + "Content-Length: +1\r\n\r\n", errLength},
		{"no length", get + "Content-Length:\r\n\r\n", errLength},
		{"a length in hex", get + "Content-Length: 0x1\r\n\r\n", errLength},
		{"a huge length", get + "Content-Length: 9999999999999999999\r\n\r\n", errLength},
		{"space before the colon", get + "Transfer-Encoding : chunked\r\n\r\n", errName},
		{"xchunked", get + "Transfer-Encoding: xchunked\r\n\r\n", errCoding},
		{"chunked twice", get + "Transfer-Encoding: chunked, chunked\r\n\r\n", errCoding},
		{"two codings", get + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", errTwoCodings},
		{"identity", get + "Transfer-Encoding: identity\r\n\r\n", errCoding},
		{"chunked with a vertical tab", get + "Transfer-Encoding: \vchunked\r\n\r\n", errValue},
		{"chunked in 1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", errCodingIn10},
		{"bare LF in the first line", "GET / HTTP/1.1\nHost: a\r\n\r\n", errLineEnd},
		{"bare LF in a field", get + "A: b\nC: d\r\n\r\n", errLineEnd},
		{"bare LF at the end", get + "\n", errLineEnd},
		{"bare CR in a field", get + "A: b\rC: d\r\n\r\n", errValue},
		{"bare CR in the first line", "GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", errPath},
		{"NUL in a field", get + "A: b\x00\r\n\r\n", errValue},
		{"a folded line", get + "A: b\r\n c\r\n\r\n", errFold},
		{"a folded line with a tab", get + "A: b\r\n\tc\r\n\r\n", errFold},
		{"a folded first line", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", errFold},
		{"no name", get + ": b\r\n\r\n", errName},
		{"no colon", get + "A\r\n\r\n", errName},
		{"a name with a space", get + "A B: c\r\n\r\n", errName},
		{"a name that is not ASCII", get + "\xc3\xa4: c\r\n\r\n", errName},
		{"no Host", "GET / HTTP/1.1\r\n\r\n", errNoHost},
		{"an empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", errHost},
		{"two Hosts", get + "Host: a\r\n\r\n", errTwoHosts},
		{"a list of Hosts", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", errHost},
		{"a Host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", errHost},
		{"a Host with a user", "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", errHost},
		{"a Host with a bad port", "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", errHost},
		{"a Host with a bad address", "GET / HTTP/1.1\r\nHost: [1::2::3]\r\n\r\n", errHost},
		{"another Host than the URL's", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", errOtherHost},
		{"a URL with a user", "GET http://a@b/ HTTP/1.1\r\nHost: a@b\r\n\r\n", errHost},
		{"a URL without a host", "GET http:///a HTTP/1.0\r\n\r\n", errHost},
		{"another scheme", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", errTarget},
		{"a relative path", "GET a HTTP/1.1\r\nHost: a\r\n\r\n", errTarget},
		{"* of a GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", errTarget},
		{"no version", "GET /\r\nHost: a\r\n\r\n", errRequest},
		{"two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", errRequest},
		{"a space in the path", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", errRequest},
		{"a tab in the path", "GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n", errPath},
		{"a space at the end", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", errRequest},
		{"a bad method", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n", errRequest},
		{"two empty lines", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", errRequest},
		{"lower case", "GET / http/1.1\r\nHost: a\r\n\r\n", errRequest},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", errVersion},
		{"HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", errVersion},
		{"Connection: Host", get + "Connection: Host\r\n\r\n", errConnection},
		{"Connection: Content-Length", get + "Connection: close, content-length\r\nContent-Length: 1\r\n\r\n", errConnection},
		{"Trailer: Content-Length", get + "Transfer-Encoding: chunked\r\nTrailer: a, Content-Length\r\n\r\n", errTrailer},
		{"an unknown Expect", get + "Expect: money\r\n\r\n", errExpect},
		{"two upgrades", get + "Upgrade: a\r\nUpgrade: b\r\n\r\n", errUpgrade},
		{"a long line", "GET /" + strings.Repeat("a", 9000), errLongLine},
		{"a long whole line", "GET /" + strings.Repeat("a", 9000) + " HTTP/1.1\r\nHost: a\r\n\r\n", errLongLine},
		{"a long field", get + "A: " + strings.Repeat("a", 1<<20), errLongHead},
		{"many fields", get + strings.Repeat("A: b\r\n", 10_000), errManyFields},
	} {
		if _, _, err := read(c.in); err != c.want {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		// Byte by byte it is refused as well, and never accepted in between.
		r, limits := &Request{}, Usual()
		var err *Error
		for n := 1; n <= min(len(c.in), 40_000) && err == nil; n++ {
			var done bool
			if done, err = r.Parse([]byte(c.in[:n]), &limits); done {
				t.Errorf("%s: accepted after %d bytes", c.name, n)
				break
			}
		}
		if err == nil {
			t.Errorf("%s: accepted byte by byte", c.name)
		}
	}
}

func TestPath(t *testing.T) {
	for _, c := range []struct {
		in, want string
		err      *Error
	}{
		{"/", "/", nil},
		{"/a/b.html", "/a/b.html", nil},
		{"/a/", "/a/", nil},
		{"/a/%2e%2e/b", "/b", nil},
		{"/a/%2E/b", "/a/b", nil},
		{"/a/./b/../c", "/a/c", nil},
		{"/a/..", "/", nil},
		{"/a/b/..", "/a/", nil},
		{"/a/.", "/a/", nil},
		{"//a///b//", "/a/b/", nil},
		{"/.well-known/x", "/.well-known/x", nil},
		{"/...", "/...", nil},
		{"/..a/b..", "/..a/b..", nil},
		{"/a%2fb", "/a%2Fb", nil},
		{"/a%5cb", "/a%5Cb", nil},
		{"/%41%7e%20", "/A~%20", nil},
		{"/a;b=c/d", "/a;b=c/d", nil},
		{"/\xc3\xa4|{}", "/%C3%A4%7C%7B%7D", nil},
		{"/%252e%252e/a", "/%252e%252e/a", nil},
		{"/..", "", errAboveRoot},
		{"/a/../../b", "", errAboveRoot},
		{"/%2e%2e/a", "", errAboveRoot},
		{"/a%2f..%2fb", "", errHiddenDots},
		{"/a%2f%2e%2e", "", errHiddenDots},
		{"/..%5cb", "", errHiddenDots},
		{"/a/..;/b", "", errHiddenDots},
		{"/a/..%3b/b", "", errHiddenDots},
		{"/a/%2e%2e;x/b", "", errHiddenDots},
		{"/a%00", "", errPath},
		{"/a\x00", "", errPath},
		{"/a%", "", errPath},
		{"/a%2", "", errPath},
		{"/a%zz", "", errPath},
		{"/a\\b", "", errPath},
		{"/a#b", "", errPath},
		{"/a\x7f", "", errPath},
	} {
		r, _, err := read("GET " + c.in + " HTTP/1.1\r\nHost: a\r\n\r\n")
		if err != c.err || err == nil && string(r.Path) != c.want {
			t.Errorf("%q: got %q, %v; want %q, %v", c.in, r.Path, err, c.want, c.err)
		}
		if err != nil {
			continue
		}
		again, _, err := read("GET " + c.want + " HTTP/1.1\r\nHost: a\r\n\r\n")
		if err != nil || string(again.Path) != c.want {
			t.Errorf("%q: its normal form %q is not: %q, %v", c.in, c.want, again.Path, err)
		}
	}
	for in, want := range map[string]bool{"/a%2fb": true, "/a%5Cb": true, "/a%20b": false, "/ab": false} {
		if r, _, _ := read("GET " + in + " HTTP/1.1\r\nHost: a\r\n\r\n"); r.Encoded != want {
			t.Errorf("%q: encoded %v", in, r.Encoded)
		}
	}
}

func TestRewritten(t *testing.T) {
	for _, c := range []struct {
		in, want string
		err      *Error
	}{
		{"/a/b?c=/../d", "/a/b?c=/../d", nil},
		{"//a/./b", "/a/b", nil},
		{"//a?", "/a?", nil},
		{"/../b", "", errAboveRoot},
		{"/a/%2e%2e/../b", "", errAboveRoot},
		{"/a HTTP/1.1\r\nA: b", "", errPath},
		{"/a b", "", errPath},
		{"/a/../b%", "", errPath},
		{"a", "", errTarget},
		{"", "", errTarget},
		{"http://a/", "", errTarget},
	} {
		if got, err := Rewritten([]byte(c.in)); err != c.err || string(got) != c.want {
			t.Errorf("%q: %q, %v", c.in, got, err)
		}
	}
}

func TestHop(t *testing.T) {
	r, _, err := read(lines("GET / HTTP/1.1\nHost: a\nConnection: upgrade, authorization, x-b\nUpgrade: websocket\nTE: trailers\nAuthorization: c\nX-A: 1\nX-B: 2\nx-b: 3\nKeep-Alive: 5\nProxy: y\nX_A: 4\n\n"))
	if err != nil {
		t.Fatal(err)
	}
	var passed []string
	for i := range r.Fields() {
		if f := &r.Fields()[i]; !f.Hop {
			passed = append(passed, string(r.Name(f))+"="+string(r.Value(f))+fmt.Sprint(f.Underscore))
		}
	}
	if got, want := strings.Join(passed, " "), "Host=afalse X-A=1false X_A=4true"; got != want {
		t.Errorf("passed on: %s, want %s", got, want)
	}
	if _, ok := r.Get("authorization"); ok {
		t.Error("a field is found that is not passed on")
	}
	if v, ok := r.Get("x-a"); !ok || string(v) != "1" {
		t.Errorf("X-A: %s", v)
	}
	if string(r.UpgradeTo()) != "websocket" {
		t.Errorf("upgrade to %q", r.UpgradeTo())
	}
}

const browser = "GET /static/app/main.js?v=12 HTTP/1.1\r\nHost: www.example.org\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\nAccept: text/html,application/xhtml+xml\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\nConnection: keep-alive\r\nCookie: session=0123456789abcdef; theme=dark\r\nUpgrade-Insecure-Requests: 1\r\n\r\n"

func TestReadingCostsNoMemory(t *testing.T) {
	r, limits, text := &Request{}, Usual(), []byte(browser)
	if n := testing.AllocsPerRun(100, func() {
		r.Reset()
		if done, err := r.Parse(text, &limits); !done || err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRequest(b *testing.B) {
	r, limits, text := &Request{}, Usual(), []byte(browser)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		r.Reset()
		_, _ = r.Parse(text, &limits)
	}
}

// TestConnectionThatIsNoList: others read a "close" in it.
func TestConnectionThatIsNoList(t *testing.T) {
	for value, want := range map[string]bool{"x close": false, "close": false, "x, close": false, "x": true, "keep-alive, x": true, "x;y": false} {
		r, _, err := read("GET / HTTP/1.1\r\nHost: a\r\nConnection: " + value + "\r\n\r\n")
		if err != nil || r.Persist != want {
			t.Errorf("%q: it goes on: %v, %v", value, r.Persist, err)
		}
	}
}
