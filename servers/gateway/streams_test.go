package gateway

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"context"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// framer is a client of HTTP/2 that says what it wants to.
type framer struct {
	*http2.Framer
	conn *tls.Conn
	t    *testing.T
}

func dialHTTP2(t *testing.T, at string) *framer {
	t.Helper()
	conn, err := tls.Dial("tcp", at, &tls.Config{ServerName: "a", InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	f := &framer{http2.NewFramer(conn, bufio.NewReader(conn)), conn, t}
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_, _ = io.WriteString(conn, http2.ClientPreface)
	_ = f.WriteSettings()
	return f
}

// block encodes fields, without a table.
func block(fields ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i < len(fields); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1], Sensitive: true})
	}
	return b.Bytes()
}

func (f *framer) ask(id uint32, end bool, fields ...string) {
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block(fields...), EndHeaders: true, EndStream: end})
}

// next reads up to the next frame of a kind; nil: the connection ends before.
func (f *framer) next(kind http2.FrameType) http2.Frame {
	for {
		got, err := f.ReadFrame()
		if err != nil {
			return nil
		}
		if got.Header().Type == kind {
			return got
		}
	}
}

var getA = []string{":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/"}

func securedBy(t *testing.T, table *Table) *Table {
	return secured(table, map[string]*tls.Certificate{"a": certificate(t, "a")})
}

// TestHTTP2WebSocket: a WebSocket of RFC 8441 is one of HTTP/1.1 for the endpoint.
func TestHTTP2WebSocket(t *testing.T) {
	up := script(t, func(_ int, conn net.Conn) {
		in := bufio.NewReader(conn)
		r, err := http.ReadRequest(in)
		if err != nil || r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Sec-Websocket-Key") == "" || r.Method != "GET" {
			_, _ = io.WriteString(conn, "HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n")
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nwelcome ")
		_, _ = io.Copy(conn, in)
	})
	_, at := start(t, Settings{}, securedBy(t, one(&Route{Timeouts: Timeouts{Response: 700 * time.Millisecond}}, up)))
	for name, ends := range map[string]bool{"by its end": true, "by its silence": false} {
		t.Run(name, func(t *testing.T) {
			f := dialHTTP2(t, at)
			f.ask(1, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "a", ":path", "/ws", "sec-websocket-version", "13")
			if head, ok := f.next(http2.FrameHeaders).(*http2.MetaHeadersFrame); !ok || head.PseudoValue("status") != "200" {
				t.Fatalf("%v", head)
			}
			large := strings.Repeat("x", 50_000)
			go func() {
				for i := 0; i < len(large); i += 10_000 {
					_ = f.WriteData(1, false, []byte(large[i:i+10_000]))
				}
				if ends {
					_ = f.WriteData(1, true, nil)
				}
			}()
			got := ""
			for len(got) < len("welcome ")+len(large) {
				data, ok := f.next(http2.FrameData).(*http2.DataFrame)
				if !ok {
					t.Fatalf("it ends after %d bytes", len(got))
				}
				got += string(data.Data())
			}
			if got != "welcome "+large {
				t.Errorf("%d other bytes", len(got))
			}
			if ends {
				if data := f.next(http2.FrameData); data == nil || !data.(*http2.DataFrame).StreamEnded() {
					t.Errorf("it goes on: %v", data)
				}
			} else if reset := f.next(http2.FrameRSTStream); reset == nil {
				t.Error("silence does not end it")
			}
		})
	}
}

// TestHTTP2ClientGone: an endpoint does not work for who has reset its stream.
func TestHTTP2ClientGone(t *testing.T) {
	began, ended := make(chan struct{}), make(chan struct{})
	up := backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/slow" {
			return
		}
		close(began)
		select {
		case <-r.Context().Done():
		case <-time.After(10 * time.Second):
			t.Error("the endpoint was not told")
		}
		close(ended)
	})
	_, at := start(t, Settings{}, securedBy(t, one(&Route{}, up)))
	f := dialHTTP2(t, at)
	f.ask(1, true, ":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/slow")
	<-began
	_ = f.WriteRSTStream(1, http2.ErrCodeCancel)
	<-ended
	f.ask(3, true, getA...)
	if head := f.next(http2.FrameHeaders); head == nil || head.Header().StreamID != 3 {
		t.Errorf("then %v", head)
	}
}

// TestHTTP2RapidReset: who resets what it asks for is stopped soon, and leaves no
// request behind.
func TestHTTP2RapidReset(t *testing.T) {
	var active, most atomic.Int64
	up := backend(t, func(w http.ResponseWriter, r *http.Request) {
		n := active.Add(1)
		defer active.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-r.Context().Done()
	})
	server, at := start(t, Settings{}, securedBy(t, one(&Route{}, up)))
	f := dialHTTP2(t, at)
	go func() {
		for i := range uint32(100_000) {
			f.ask(2*i+1, true, getA...)
			if f.WriteRSTStream(2*i+1, http2.ErrCodeCancel) != nil {
				return
			}
		}
	}()
	if away, ok := f.next(http2.FrameGoAway).(*http2.GoAwayFrame); !ok || away.ErrCode != http2.ErrCodeEnhanceYourCalm {
		t.Errorf("it may go on: %v", away)
	}
	_ = f.conn.Close()
	for until := time.Now().Add(10 * time.Second); active.Load() > 0 || server.Counts().Clients > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("%d requests are left, %+v", active.Load(), server.Counts())
		}
	}
	if most.Load() > 2*maxStreams {
		t.Errorf("%d requests at once", most.Load())
	}
}

// TestHTTP2Waits: a connection ends that says nothing, or no more of a head, or
// nothing after an answer, or reads none.
func TestHTTP2Waits(t *testing.T) {
	up := backend(t, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(make([]byte, 1<<20)) })
	server, at := start(t, Settings{Header: 300 * time.Millisecond, Idle: 300 * time.Millisecond, Body: 300 * time.Millisecond}, securedBy(t, one(&Route{}, up)))
	for name, do := range map[string]func(f *framer){
		"nothing": func(f *framer) {},
		"a part of a head": func(f *framer) {
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(getA...)})
		},
		"bytes of a head, one by one": func(f *framer) {
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(getA...)})
			for range 20 {
				time.Sleep(50 * time.Millisecond)
				_ = f.WriteContinuation(1, false, nil)
			}
		},
		"a part of a frame": func(f *framer) { _, _ = f.conn.Write([]byte{0, 0, 8, 6}) },
		"nothing after an answer": func(f *framer) {
			f.ask(1, true, ":method", "HEAD", ":scheme", "https", ":authority", "a", ":path", "/")
		},
		"nothing after an answer that was not read": func(f *framer) { f.ask(1, true, getA...) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := dialHTTP2(t, at)
			go do(f)
			for began := time.Now(); ; {
				if _, err := f.ReadFrame(); err != nil {
					break
				}
				if time.Since(began) > 5*time.Second {
					t.Fatal("it goes on")
				}
			}
		})
	}
	t.Cleanup(func() {
		if n := server.Counts().Clients; n != 0 {
			time.Sleep(time.Second)
		}
	})
}

// TestHTTP2Restart: one process after another serves a port, and not one request
// fails.
func TestHTTP2Restart(t *testing.T) {
	up := backend(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
	})
	table := func() *Table { return securedBy(t, one(&Route{}, up)) } // a server has its own
	_, at, end := startUntil(t, Settings{}, table())
	client := client2(t)
	stop := make(chan struct{})
	var asking sync.WaitGroup
	var asked atomic.Int64
	for i := range 8 {
		asking.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				var body io.Reader
				if i%2 == 0 {
					body = strings.NewReader("hello")
				}
				r, _ := http.NewRequest("PUT", "https://"+at+"/", body)
				r.Host = "a"
				response, err := client.Do(r)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := io.ReadAll(response.Body); err != nil || response.StatusCode != 200 {
					t.Errorf("%d %v", response.StatusCode, err)
				}
				asked.Add(1)
			}
		})
	}
	for range 4 {
		for n := asked.Load(); asked.Load() < n+100; {
			time.Sleep(time.Millisecond)
		}
		next := New(Settings{Drain: 5 * time.Second, DrainIdle: 10 * time.Millisecond}, slog.New(slog.DiscardHandler))
		next.Serve(table())
		next.Listen([]Listener{{At: netip.MustParseAddrPort(at), Secure: true}})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); _ = next.Run(ctx) }()
		for len(next.Listening()) == 0 {
			time.Sleep(time.Millisecond)
		}
		end()
		end = func() { cancel(); <-ended }
	}
	close(stop)
	asking.Wait()
	end()
}

// TestHTTP2RequestsCostLittle: once its connections are there, a usual request and
// its answer allocate next to nothing.
func TestHTTP2RequestsCostLittle(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector costs memory of its own, and makes pools forget")
	}
	_, at := start(t, Settings{}, securedBy(t, plainBackend(t)))
	f := dialHTTP2(t, at)
	var encoded bytes.Buffer
	e := hpack.NewEncoder(&encoded)
	fields := append(getA[:8:8], "user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0", "accept", "text/html", "cookie", "session=0123456789abcdef")
	id, ended := uint32(1), false
	round := func() {
		encoded.Reset()
		for i := 0; i < len(fields); i += 2 {
			_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
		}
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: encoded.Bytes(), EndHeaders: true, EndStream: true})
		id += 2
		for ended = false; !ended; {
			header, err := http2.ReadFrameHeader(f.conn)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.CopyN(io.Discard, f.conn, int64(header.Length)); err != nil {
				t.Fatal(err)
			}
			ended = header.Type == http2.FrameData && header.Flags.Has(http2.FlagDataEndStream)
		}
	}
	for range 50 {
		round()
	}
	n := testing.AllocsPerRun(500, round)
	t.Logf("%v allocations for each request, those of this client among them", n)
	if n > 8 {
		t.Errorf("%v allocations for each request", n)
	}
}
