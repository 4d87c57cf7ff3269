package gateway

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

// slowBackend awaits, says a part, or says much, as the path says. Its own memory for
// a connection is little.
func slowBackend(t *testing.T) *Table {
	long := make([]byte, 1<<20)
	up := script(t, func(_ int, conn net.Conn) {
		in := make([]byte, 512)
		n, err := conn.Read(in)
		path, _, _ := strings.Cut(strings.TrimLeft(string(in[:n]), "GETPOS "), " ")
		switch path {
		case "/ok":
			for ; err == nil; _, err = conn.Read(in) {
				_, _ = io.WriteString(conn, ok)
			}
		case "/socket":
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		case "/chunks":
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nevent\r\n")
		case "/close":
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\nevent")
		case "/long":
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n")
			for err == nil {
				_, err = conn.Write(long)
			}
		}
		for err == nil { // it waits for more, or the end
			_, err = conn.Read(in)
		}
	})
	return one(&Route{}, up)
}

// TestSlowClientsAreSmall: what each client has of this process who is slow, and is
// waited for or waits himself: next to nothing but its head.
func TestSlowClientsAreSmall(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector costs memory of its own, and makes pools forget")
	}
	// The other end's is in it: a goroutine, its stack, and what it reads into.
	const clients, most = 200, 28 << 10
	for _, c := range []struct {
		name, text, until string
	}{
		{"idle", "GET /ok HTTP/1.1\r\nHost: a\r\n\r\n", "ok"},
		{"a part of a head", "GET /ok HTTP/1.1\r\nHost: ", ""},
		{"a part of a body", "POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\npart", ""},
		{"a part of a long body", "POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\npart", ""},
		{"a chunk of a body", "POST /wait HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n", ""},
		{"an answer is awaited", "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n", ""},
		{"chunks are awaited", "GET /chunks HTTP/1.1\r\nHost: a\r\n\r\n", "event\r\n"},
		{"bytes are awaited", "GET /close HTTP/1.1\r\nHost: a\r\n\r\n", "event\r\n"},
		{"a long answer is not read", "GET /long HTTP/1.1\r\nHost: a\r\n\r\n", ""},
		{"a WebSocket", "GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "\r\n\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server, at := start(t, Settings{}, slowBackend(t))
			peers := make([]net.Conn, clients)
			for i := range peers {
				conn, err := net.Dial("tcp", at)
				if err != nil {
					t.Fatal(err)
				}
				peers[i] = conn
				if _, err := io.WriteString(conn, c.text); err != nil {
					t.Fatal(err)
				}
				b := make([]byte, 200)
				for n := 0; !strings.HasSuffix(string(b[:n]), c.until); {
					m, err := conn.Read(b[n:])
					if err != nil {
						t.Fatalf("%v after %q", err, b[:n])
					}
					n += m
				}
			}
			time.Sleep(50 * time.Millisecond) // nobody tells when the last one is waited for
			with := inUse()
			for _, conn := range peers {
				_ = conn.Close()
			}
			for deadline := time.Now().Add(5 * time.Second); server.Counts().Clients > 0; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("%d clients are gone, and served still", server.Counts().Clients)
				}
			}
			each := (with - inUse()) / clients
			runtime.KeepAlive(peers)
			t.Logf("%d bytes for each client", each)
			if each > most {
				t.Errorf("%d bytes for each client, more than %d", each, most)
			}
		})
	}
}

// inUse is the memory of this process, without what pools keep.
func inUse() int64 {
	var now runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools keep goes at the second one
	runtime.ReadMemStats(&now)
	return int64(now.HeapInuse + now.StackInuse)
}

// TestSlowReader: who takes nothing of an answer is cut off, and so is who sends
// nothing of a body; an endpoint is not held up for longer either.
func TestSlowReader(t *testing.T) {
	server, at := start(t, Settings{Body: 300 * time.Millisecond}, slowBackend(t))
	reader, writer := dial(t, at), dial(t, at)
	_ = reader.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	reader.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\n")
	writer.send("POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\npart")
	if response, _ := writer.answer("POST"); response.StatusCode != http.StatusRequestTimeout {
		t.Errorf("a body that does not come: %s", response.Status)
	}
	for deadline := time.Now().Add(5 * time.Second); server.Counts().Clients > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("who reads nothing is waited for")
		}
	}
	if n, err := io.Copy(io.Discard, bufio.NewReader(reader.Conn)); err == nil && n >= 100<<20 {
		t.Errorf("%d bytes were taken for whole", n)
	}
}
