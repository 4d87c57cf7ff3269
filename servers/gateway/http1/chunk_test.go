package http1

import (
	"strings"
	"testing"
)

// decode reads a chunked body in pieces of some size.
func decode(text string, piece int) (body, rest, trailers string, err *Error) {
	var c Chunks
	for len(text) > 0 && !c.Done() {
		buffer := []byte(text[:min(piece, len(text))])
		data, used, err := c.Decode(buffer)
		if err != nil {
			return "", "", "", err
		}
		body, text = body+string(buffer[:data]), text[used:]
	}
	if !c.Done() {
		return body, "", "", bad("it has not ended")
	}
	var h Head
	if c.HasTrailers() {
		err = c.Trailers(&h)
	}
	for i := range h.Fields() {
		if f := &h.Fields()[i]; !f.Hop {
			trailers += string(h.Name(f)) + "=" + string(h.Value(f)) + " "
		}
	}
	return body, text, trailers, err
}

func TestChunks(t *testing.T) {
	for _, c := range []struct{ in, body, rest, trailers string }{
		{"0\n\n", "", "", ""},
		{"5\nhello\n0\n\nGET", "hello", "GET", ""},
		{"5;a=\"b;c\"\nhello\n00a\n0123456789\n000\n\n", "hello0123456789", "", ""},
		{"1\na\n0\nX-Sum: 1\nContent-Length: 5\nB: c\n\n!", "a", "!", "X-Sum=1 B=c "},
	} {
		for _, piece := range []int{1, 2, 3, 7, 1000} {
			body, rest, trailers, err := decode(lines(c.in), piece)
			if err != nil || body != c.body || rest != c.rest || trailers != c.trailers {
				t.Errorf("%q by %d: body %q, rest %q, trailers %q, %v", c.in, piece, body, rest, trailers, err)
			}
		}
	}
}

func TestRefusedChunks(t *testing.T) {
	for _, in := range []string{
		"\r\n", "g\r\n", "-1\r\na\r\n0\r\n\r\n", "0x1\r\na\r\n0\r\n\r\n", "+1\r\na\r\n0\r\n\r\n", " 1\r\na\r\n0\r\n\r\n", "1 \r\na\r\n0\r\n\r\n",
		"1\na\r\n0\r\n\r\n", "1\r\na\n0\r\n\r\n", "1\ra\r\n0\r\n\r\n", "1\r\nab\r\n0\r\n\r\n", "1\r\na0\r\n\r\n",
		"1;a\nb\r\na\r\n0\r\n\r\n", "1;a\x00\r\na\r\n0\r\n\r\n", "1;" + strings.Repeat("a", 1000) + "\r\na\r\n0\r\n\r\n",
		"fffffffffffffffff\r\na", "0000000000000001\r\na\r\n0\r\n\r\n",
		"0\r\n\n", "0\r\nA: b\n\r\n", "0\r\nA : b\r\n\r\n", "0\r\n A: b\r\n\r\n", "0\r\nA: " + strings.Repeat("a", 10_000) + "\r\n\r\n",
	} {
		for _, piece := range []int{1, 1000} {
			if body, _, _, err := decode(in, piece); err == nil || err.Reason == "it has not ended" {
				t.Errorf("%.40q by %d: accepted, %q, %v", in, piece, body, err)
			}
		}
	}
}

func TestAppendChunk(t *testing.T) {
	for _, n := range []int{0, 1, 9, 15, 16, 255, 4096} {
		data := strings.Repeat("x", n)
		var c Chunks
		_, _, _ = c.Decode([]byte("0\r\nA: b\r\n\r\n"))
		text := string(c.AppendEnd(AppendChunk(nil, []byte(data))))
		body, rest, trailers, err := decode(text, 1000)
		if err != nil || body != data || rest != "" || trailers != "A=b " {
			t.Errorf("%d bytes: %q %q %q %v", n, body, rest, trailers, err)
		}
	}
}

func TestResponse(t *testing.T) {
	for _, c := range []struct {
		in     string
		toHEAD bool
		status int
		reason string
		length int64
	}{
		{"HTTP/1.1 200 OK\nContent-Length: 3\n\n", false, 200, "OK", 3},
		{"HTTP/1.1 200 OK\nContent-Length: 3\n\n", true, 200, "OK", 0},
		{"HTTP/1.1 200\n\n", false, 200, "", UntilClose},
		{"HTTP/1.0 404 Not  Found\n\n", false, 404, "Not  Found", UntilClose},
		{"HTTP/1.1 204 \n\n", false, 204, "", 0},
		{"HTTP/1.1 304 Not Modified\nContent-Length: 7\n\n", false, 304, "Not Modified", 0},
		{"HTTP/1.1 101 Switching Protocols\nConnection: upgrade\nUpgrade: x\n\n", false, 101, "Switching Protocols", 0},
		{"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", false, 200, "OK", Chunked},
	} {
		var r Response
		limits := Usual()
		done, err := r.Parse([]byte(lines(c.in)), c.toHEAD, &limits)
		if !done || err != nil || r.Status != c.status || string(r.Reason) != c.reason || r.Length != c.length {
			t.Errorf("%q: %v %v: %d %q %d", c.in, done, err, r.Status, r.Reason, r.Length)
		}
	}
	for _, in := range []string{
		"HTTP/1.1 20 OK\n\n", "HTTP/1.1  200 OK\n\n", "HTTP/2 200 OK\n\n", "HTTP/1.1 2000\n\n", "HTTP/1.1 099 x\n\n", "ICY 200 OK\n\n", "HTTP/1.1 200 O\x01K\n\n",
		"HTTP/1.1 200 OK\nContent-Length: 3\nContent-Length: 3\n\n", "HTTP/1.1 200 OK\nContent-Length: 3\nTransfer-Encoding: chunked\n\n",
		"HTTP/1.0 200 OK\nTransfer-Encoding: chunked\n\n", "HTTP/1.1 200 OK\nTransfer-Encoding: gzip, chunked\n\n",
	} {
		var r Response
		limits := Usual()
		if done, err := r.Parse([]byte(lines(in)), false, &limits); err == nil {
			t.Errorf("%q: accepted: %v", in, done)
		}
	}
}
