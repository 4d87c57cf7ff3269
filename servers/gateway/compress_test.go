package gateway

import (
	"bufio"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// TestCompress: texts are compressed for those who can read it, once, and are said to
// be.
func TestCompress(t *testing.T) {
	long := strings.Repeat("hello, hello ", 5000)
	more := make(chan struct{})
	up := backend(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("ETag", `"one"`)
		switch r.URL.Path {
		case "/short":
			_, _ = io.WriteString(w, "short")
			return
		case "/image":
			h.Set("Content-Type", "image/png")
		case "/coded":
			h.Set("Content-Encoding", "br")
		case "/as-is":
			h.Set("Cache-Control", "public, no-transform")
		case "/stream":
			_, _ = io.WriteString(w, "first\n")
			w.(http.Flusher).Flush()
			<-more
		}
		_, _ = io.WriteString(w, long)
	})
	table := one(&Route{}, up)
	table.Compress = UsualCompression()
	table.Compress.Zstd = true
	_, at := start(t, Settings{}, table)
	p := dial(t, at)
	for _, c := range []struct {
		path, accepts, coding, vary string
	}{
		{"/", "gzip, br", "gzip", "Accept-Encoding"}, {"/", "*", "gzip", "Accept-Encoding"}, {"/", "deflate;q=1, GZIP ;q=0.5", "gzip", "Accept-Encoding"},
		{"/", "gzip;q=0, *", "", "Accept-Encoding"}, {"/", "br", "", "Accept-Encoding"}, {"/short", "gzip", "", ""}, {"/image", "gzip", "", ""},
		{"/", "gzip, deflate, br, zstd", "zstd", "Accept-Encoding"}, {"/", "ZSTD;q=0.5, gzip;q=0.4", "zstd", "Accept-Encoding"}, {"/", "zstd;q=0.4, gzip;q=0.5", "gzip", "Accept-Encoding"},
		{"/", "zstd;q=0, gzip;q=0.001", "gzip", "Accept-Encoding"}, {"/", "zstd;q=x", "", "Accept-Encoding"}, {"/", "zstd;q=0.1, *", "gzip", "Accept-Encoding"}, {"/short", "zstd", "", ""},
		{"/coded", "gzip", "br", ""}, {"/as-is", "gzip", "", ""},
	} {
		p.send("GET " + c.path + " HTTP/1.1\r\nHost: a\r\nAccept-Encoding: " + c.accepts + "\r\n\r\n")
		response, body := p.answer("GET")
		h := response.Header
		etag := `"one"`
		if c.coding == "gzip" || c.coding == "zstd" {
			etag = `W/"one"`
			z, err := expand(c.coding, strings.NewReader(body))
			if err != nil {
				t.Fatal(c, err)
			}
			plain, err := io.ReadAll(z)
			if err != nil || string(plain) != long || len(body) > len(long)/10 || response.ContentLength >= 0 {
				t.Errorf("%+v: %d bytes become %d, %v", c, len(body), len(plain), err)
			}
		}
		if h.Get("Content-Encoding") != c.coding || h.Get("Vary") != c.vary || h.Get("ETag") != etag {
			t.Errorf("%+v: %v", c, h)
		}
	}
	for _, coding := range []string{"gzip", "zstd"} {
		p.send("GET /stream HTTP/1.1\r\nHost: a\r\nAccept-Encoding: " + coding + "\r\n\r\n")
		response, err := http.ReadResponse(p.Reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		z, err := expand(coding, response.Body)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(z)
		if line, err := lines.ReadString('\n'); line != "first\n" { // though there is no more yet
			t.Errorf("%s: %q %v", coding, line, err)
		}
		more <- struct{}{}
		if rest, err := io.ReadAll(lines); err != nil || string(rest) != long {
			t.Errorf("%s: %d bytes, %v", coding, len(rest), err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
	}
}

// expand reads what is compressed.
func expand(coding string, from io.Reader) (io.Reader, error) {
	if coding == "gzip" {
		return gzip.NewReader(from)
	}
	return zstd.NewReader(from, zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderConcurrency(1))
}
