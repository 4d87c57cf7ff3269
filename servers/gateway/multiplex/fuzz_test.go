package multiplex

import (
	"strings"
	"testing"
)

// FuzzHead: whatever fields there are, the text has a line for each at most, and
// lengths are none of them.
func FuzzHead(f *testing.F) {
	f.Add("a", "b", "cookie", "c", "/")
	f.Add("host", "b\r\nc: d", "content-length", "1", "/ HTTP/1.1\r\n\r\n")
	f.Add("transfer-encoding", "chunked", "te", "trailers", "*")
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2, path string) {
		var h Head
		h.Reset(1<<20, 100, false)
		for _, field := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":path", path}, {":authority", "a"}, {name1, value1}, {name2, value2}} {
			h.Field(field[0], field[1])
		}
		h.End(false)
		if h.Malformed != "" {
			return
		}
		lines := strings.Split(string(h.Text), "\r\n")
		if len(lines) > 5 || lines[len(lines)-1] != "" || lines[0] != "GET "+path+" HTTP/1.1" || lines[1] != "Host: a" {
			t.Fatalf("%q", h.Text)
		}
		for _, line := range lines[:len(lines)-1] {
			if strings.ContainsAny(line, "\r\n\x00") || line == "" || strings.HasPrefix(strings.ToLower(line), "content-length:") || strings.HasPrefix(strings.ToLower(line), "transfer-encoding:") {
				t.Fatalf("%q in %q", line, h.Text)
			}
		}
	})
}
