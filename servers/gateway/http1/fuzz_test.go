package http1

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"testing"
)

// Whatever is accepted here, net/http accepts, with the same method, target, host,
// fields, length and body. It differs in this, on purpose:
//
//   - One empty line before a request is ignored here (RFC 9112, section 2.2).
//   - "Expect" and "Connection" are understood here; there they are for others.
//   - A trailer that is no token is refused here; there it may be passed over.
//
// What net/http accepts and is refused here is the table of TestRefusedRequest:
// equal duplicates of Content-Length, bare LF, folded lines, two spaces, HTTP/1.2,
// a Host that is no name, another Host than that of the URL, and whitespace around
// the size of a chunk.

func seeds(f *testing.F) {
	for _, head := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET http://A:80/b/%2e%2e/c?d#e HTTP/1.1\r\nHost: a:80\r\n\r\n",
		"POST /a//b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET",
		"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\nGET",
		"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello",
		"GET /%2f;a HTTP/1.0\r\nConnection: keep-alive, X\r\nX:  y \t\r\n z\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\nUpgrade: h2c\r\nExpect: 100-continue\r\nTE: trailers\r\n\r\n",
		"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", browser,
	} {
		f.Add([]byte(head))
	}
}

func FuzzRequest(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		ours, limits := &Request{}, Usual()
		done, err := ours.Parse(text, &limits)
		if err != nil || !done {
			return
		}
		checkPieces(t, text, ours)
		theirs, failed := http.ReadRequest(bufio.NewReader(bytes.NewReader(bytes.TrimPrefix(text, []byte("\r\n")))))
		if failed != nil {
			t.Fatalf("accepted, and net/http says %v", failed)
		}
		if theirs.Method != string(ours.Method) || theirs.RequestURI != string(ours.Target) || theirs.ProtoMinor != int(ours.Minor) {
			t.Fatalf("net/http reads %s %s", theirs.Method, theirs.RequestURI)
		}
		checkTarget(t, ours, theirs)
		checkFields(t, ours, theirs)
		checkBody(t, ours, theirs, text[ours.Size():])
	})
}

// checkPieces fails if reading a head byte by byte, in memory that moves, makes a
// difference.
func checkPieces(t *testing.T, text []byte, whole *Request) {
	t.Helper()
	r, limits := &Request{}, Usual()
	for n := 1; n <= whole.Size(); n++ {
		done, err := r.Parse(bytes.Clone(text[:n]), &limits)
		if err != nil || done != (n == whole.Size()) {
			t.Fatalf("after %d bytes of %d: done %v, %v", n, whole.Size(), done, err)
		}
	}
	if describe(r) != describe(whole) || len(r.Fields()) != len(whole.Fields()) {
		t.Fatalf("byte by byte: %s, not %s", describe(r), describe(whole))
	}
}

func checkTarget(t *testing.T, ours *Request, theirs *http.Request) {
	t.Helper()
	host, _, _ := cutPort([]byte(theirs.Host))
	if got := strings.ToLower(strings.TrimSuffix(string(host), ".")); got != string(ours.Host) {
		t.Fatalf("host %q, not %q", got, ours.Host)
	}
	if ours.Form == Asterisk || ours.Form == Authority {
		return
	}
	if theirs.URL.RawQuery != string(ours.Query) {
		t.Fatalf("query %q, not %q", theirs.URL.RawQuery, ours.Query)
	}
	again, _, err := normal(nil, ours.Path)
	if err != nil || !bytes.Equal(again, ours.Path) {
		t.Fatalf("%q is not normal: %q, %v", ours.Path, again, err)
	}
	if ours.Encoded { // net/http has made them separators
		return
	}
	decoded, failed := url.PathUnescape(string(ours.Path))
	if failed != nil {
		t.Fatalf("path %q: %v", ours.Path, failed)
	}
	want := path.Clean("/" + theirs.URL.Path)
	last := theirs.URL.Path[strings.LastIndexByte(theirs.URL.Path, '/')+1:]
	if want != "/" && (last == "" || last == "." || last == "..") {
		want += "/"
	}
	if decoded != want {
		t.Fatalf("path %q, not %q", decoded, want)
	}
}

func checkFields(t *testing.T, ours *Request, theirs *http.Request) {
	t.Helper()
	n := 0
	for i := range ours.Fields() {
		field := &ours.Fields()[i]
		name := http.CanonicalHeaderKey(string(ours.Name(field)))
		switch field.Known {
		case Host, TransferEncoding, Trailer: // net/http keeps them elsewhere
			continue
		}
		n++
		if values := theirs.Header[name]; len(values) == 0 || values[0] != string(ours.Value(field)) {
			t.Fatalf("%s: %q, not %q", name, values, ours.Value(field))
		} else {
			theirs.Header[name] = values[1:]
		}
	}
	for name, values := range theirs.Header {
		if len(values) > 0 && name != "Trailer" && name != "Cache-Control" { // the latter it makes itself, of Pragma
			t.Fatalf("net/http has %s: %q", name, values)
		}
	}
}

func checkBody(t *testing.T, ours *Request, theirs *http.Request, rest []byte) {
	t.Helper()
	want := ours.Length
	if theirs.ContentLength != want {
		t.Fatalf("length %d, not %d", theirs.ContentLength, want)
	}
	if want != Chunked {
		return
	}
	var c Chunks
	body := bytes.Clone(rest)
	data, _, err := c.Decode(body)
	if err != nil || !c.Done() {
		return
	}
	got, failed := io.ReadAll(theirs.Body)
	if failed != nil {
		t.Fatalf("a body is accepted, and net/http says %v", failed)
	}
	if !bytes.Equal(got, body[:data]) {
		t.Fatalf("body %q, not %q", got, body[:data])
	}
}

// FuzzResponse: whatever is accepted, net/http accepts, with the same status and
// length.
func FuzzResponse(f *testing.F) {
	for _, head := range []string{"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.0 404\r\n\r\n", "HTTP/1.1 204 \r\nA: b\r\n\r\n", "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"} {
		f.Add([]byte(head), false)
		f.Add([]byte(head), true)
	}
	f.Fuzz(func(t *testing.T, text []byte, toHEAD bool) {
		ours, limits := &Response{}, Usual()
		done, err := ours.Parse(text, toHEAD, &limits)
		if err != nil || !done {
			return
		}
		method := "GET"
		if toHEAD {
			method = "HEAD"
		}
		theirs, failed := http.ReadResponse(bufio.NewReader(bytes.NewReader(text)), &http.Request{Method: method})
		if failed != nil {
			t.Fatalf("accepted, and net/http says %v", failed)
		}
		if theirs.StatusCode != ours.Status || theirs.ProtoMinor != int(ours.Minor) {
			t.Fatalf("net/http reads %s", theirs.Status)
		}
		want := theirs.ContentLength
		switch {
		case toHEAD:
			want = 0
		case want == -1 && len(theirs.TransferEncoding) == 0:
			want = UntilClose
		}
		if want != ours.Length && !(ours.Status == 304 || ours.Status < 200) {
			t.Fatalf("length %d, not %d", want, ours.Length)
		}
	})
}
