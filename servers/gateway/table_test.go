package gateway

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
	"weak"
)

// TestTableOfBadInput: the table of docs/ingress.md has 20 rows, and the tests that
// it names are there.
func TestTableOfBadInput(t *testing.T) {
	page, err := os.ReadFile("../../docs/ingress.md")
	if err != nil {
		t.Fatal(err)
	}
	var tests []byte
	for _, pattern := range []string{"*_test.go", "*/*_test.go", "../../plan/gateway/*_test.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			tests = append(tests, content...)
		}
	}
	row, name := regexp.MustCompile(`^\| \d+ \|`), regexp.MustCompile("`((?:Test|Fuzz)\\w+)`")
	rows := 0
	for line := range strings.Lines(string(page)) {
		if !row.MatchString(line) {
			continue
		}
		rows++
		named := name.FindAllStringSubmatch(line, -1)
		if len(named) == 0 {
			t.Errorf("no test: %s", line)
		}
		for _, n := range named {
			if !bytes.Contains(tests, []byte("\nfunc "+n[1]+"(")) {
				t.Errorf("there is no %s", n[1])
			}
		}
	}
	if rows != 20 {
		t.Errorf("%d rows, not 20", rows)
	}
}

// TestTableIsLetGoOf: who is silent, and who has a WebSocket, keeps no table that was
// replaced long ago. With some thousand routes each would be megabytes.
func TestTableIsLetGoOf(t *testing.T) {
	at := script(t, func(_ int, conn net.Conn) {
		for from := bufio.NewReader(conn); ; {
			request, err := http.ReadRequest(from)
			if err != nil {
				return
			}
			if request.Header.Get("Upgrade") == "" {
				_, _ = io.WriteString(conn, ok)
				continue
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		}
	})
	server, front := start(t, Settings{Here: true, Measure: true}, &Table{})
	old := func() weak.Pointer[Table] {
		table := one(&Route{}, at)
		server.Serve(table)
		return weak.Make(table)
	}()
	silent, socket := dial(t, front), dial(t, front)
	silent.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	silent.answer("GET")
	socket.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	if r, err := http.ReadResponse(socket.Reader, nil); err != nil || r.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("no WebSocket: %v", err)
	}
	server.Serve(one(&Route{}, at))
	for deadline := time.Now().Add(10 * time.Second); old.Value() != nil; {
		if time.Now().After(deadline) {
			t.Fatal("the table is still held")
		}
		runtime.GC()
	}
}
