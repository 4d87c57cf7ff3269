package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/fairlead-net/fairlead/bench/apiserver"
)

// traffic is the load and the changes.
type traffic struct {
	*world
	gateway *running
	result  *result

	mu      sync.Mutex
	service map[int]int // of hosts that have another than at first
}

// Connections of the load. Of ten requests, six are of plain connections, three of
// TLS, and one is of HTTP/2.
const (
	plainConns  = 24
	secureConns = 12
	h2Conns     = 2
)

// run does it all for a while.
func (t *traffic) run(ctx context.Context) error {
	t.service = map[int]int{}
	ctx, cancel := context.WithTimeout(ctx, t.during)
	defer cancel()
	var running sync.WaitGroup
	each := func(n, rate int, of func(context.Context, int, time.Duration)) {
		for i := range n {
			running.Go(func() { of(ctx, i, time.Second*time.Duration(n)/time.Duration(max(rate, 1))) })
		}
	}
	each(plainConns, t.requests*6/10, func(ctx context.Context, _ int, pause time.Duration) { t.ask(ctx, pause, false, &t.result.plain) })
	each(secureConns, t.requests*3/10, func(ctx context.Context, _ int, pause time.Duration) { t.ask(ctx, pause, true, &t.result.secure) })
	each(h2Conns, t.requests/10, t.ask2)
	each(t.sockets, t.sockets, t.talk)
	each(8, t.changes, t.changeRoutes)
	each(1, t.rollouts, t.rollOut)
	each(2, t.rotated, t.rotateAll)
	running.Wait()
	return nil
}

// fail notes what failed, unless it did because the time is over.
func (t *traffic) fail(ctx context.Context, format string, args ...any) {
	if until, ok := ctx.Deadline(); ctx.Err() != nil || ok && !time.Now().Before(until) { // a dialler's timer may be first
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.result.problems = append(t.result.problems, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// again calls something again and again, not more often than it may.
func again(ctx context.Context, pause time.Duration, do func(began time.Time)) {
	next := time.Now().Add(rand.N(pause))
	for {
		wait := time.NewTimer(time.Until(next))
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-wait.C:
		}
		do(next)
		if next = next.Add(pause); time.Since(next) > time.Second { // the machine has other things to do
			next = time.Now()
		}
	}
}

// plainHost and secureHost are some of those that may be asked for.
func (t *traffic) plainHost() int  { return rand.IntN(t.routes) }
func (t *traffic) secureHost() int { return rand.IntN(t.routes/secureEach) * secureEach }

// wire is a connection for requests one after the other.
type wire struct {
	net.Conn
	in   *bufio.Reader
	host int // of TLS
}

func (t *traffic) dial(ctx context.Context, secure bool, host int) (*wire, error) {
	at := t.gateway.plain
	if secure {
		at = t.gateway.secure
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", at)
	if err != nil {
		return nil, err
	}
	if secure {
		conn = tls.Client(conn, &tls.Config{ServerName: hostOf(host), InsecureSkipVerify: true}) // who they are does not matter here
	}
	_ = conn.SetDeadline(time.Now().Add(10*time.Second + t.during))
	return &wire{conn, bufio.NewReader(conn), host}, nil
}

// get asks once, and returns what is answered.
func (w *wire) get(host int, post bool) (status int, body string, err error) {
	message := "GET /some/path?x=y HTTP/1.1\r\nHost: " + hostOf(host) + "\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
	if post {
		message = "POST /some/path HTTP/1.1\r\nHost: " + hostOf(host) + "\r\nContent-Length: 200\r\n\r\n" + strings.Repeat("x", 200)
	}
	if _, err := io.WriteString(w, message); err != nil {
		return 0, "", err
	}
	response, err := http.ReadResponse(w.in, nil)
	if err != nil {
		return 0, "", err
	}
	content, err := io.ReadAll(response.Body)
	if err == nil && response.Close {
		err = errors.New("the connection is closed")
	}
	return response.StatusCode, string(content), err
}

// perHost is how many requests a connection of TLS lasts: its host is its name.
const perHost = 200

// ask asks one host after the other.
func (t *traffic) ask(ctx context.Context, pause time.Duration, secure bool, took *samples) {
	var w *wire
	n := 0
	again(ctx, pause, func(began time.Time) {
		if n++; w == nil || secure && n%perHost == 0 {
			if w != nil {
				_ = w.Close()
			}
			var err error
			if w, err = t.dial(ctx, secure, t.secureHost()); err != nil {
				t.fail(ctx, "dial: %v", err)
				w = nil
				return
			}
		}
		host := w.host
		if !secure {
			host = t.plainHost()
		}
		status, body, err := w.get(host, n%10 == 0)
		if err != nil || status != http.StatusOK || !strings.HasPrefix(body, "service-") {
			t.fail(ctx, "%s, TLS %v: %d %q %v", hostOf(host), secure, status, body, err)
			if err != nil {
				_ = w.Close()
				w = nil
			}
			return
		}
		took.add(time.Since(began))
	})
	if w != nil {
		_ = w.Close()
	}
}

// ask2 asks by HTTP/2.
func (t *traffic) ask2(ctx context.Context, _ int, pause time.Duration) {
	host := t.secureHost()
	transport := &http.Transport{
		ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: hostOf(host)},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, t.gateway.secure)
		},
	}
	defer transport.CloseIdleConnections()
	again(ctx, pause, func(began time.Time) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+hostOf(host)+"/status", http.NoBody)
		if err != nil {
			t.fail(ctx, "%v", err)
			return
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			t.fail(ctx, "HTTP/2: %v", err)
			return
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != http.StatusOK || response.ProtoMajor != 2 {
			t.fail(ctx, "HTTP/2: %s %q %v", response.Status, body, err)
			return
		}
		t.result.h2.add(time.Since(began))
	})
}

// talk holds a WebSocket, of a host whose pods stay.
func (t *traffic) talk(ctx context.Context, n int, pause time.Duration) {
	host := rand.IntN(t.routes/socketEach) * socketEach
	w, err := t.dial(ctx, n%2 == 0, host)
	if err != nil {
		t.fail(ctx, "dial: %v", err)
		return
	}
	defer w.Close()
	_, err = io.WriteString(w, "GET /socket HTTP/1.1\r\nHost: "+hostOf(host)+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	if err != nil {
		t.fail(ctx, "WebSocket: %v", err)
		return
	}
	response, err := http.ReadResponse(w.in, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		t.fail(ctx, "WebSocket: %v %v", response, err)
		return
	}
	closed := false
	again(ctx, pause, func(began time.Time) {
		if closed {
			return
		}
		_, err := io.WriteString(w, "12345678")
		if err == nil {
			_, err = io.ReadFull(w.in, make([]byte, 8))
		}
		if err != nil {
			closed = true
			t.fail(ctx, "a WebSocket of %s is closed: %v", hostOf(host), err)
			return
		}
		t.result.echoes.add(time.Since(began))
	})
}

// changeRoutes leads hosts elsewhere, and looks when they are led there.
func (t *traffic) changeRoutes(ctx context.Context, _ int, pause time.Duration) {
	w, err := t.dial(ctx, false, 0)
	if err != nil {
		t.fail(ctx, "dial: %v", err)
		return
	}
	defer w.Close()
	again(ctx, pause, func(time.Time) {
		host := t.plainHost()
		t.mu.Lock()
		service, had := t.service[host]
		if !had {
			service = host / sharing
		}
		service = (service + 1) % (t.routes / sharing)
		_, busy := t.service[-host-1] // somebody else changes it
		if !busy {
			t.service[host], t.service[-host-1] = service, 0
		}
		t.mu.Unlock()
		if busy {
			return
		}
		began := time.Now()
		if err := t.api.Put(apiserver.Ingresses, ingressOf(host, service)); err != nil {
			t.fail(ctx, "%v", err)
			return
		}
		for ctx.Err() == nil {
			status, body, err := w.get(host, false)
			if err != nil || status != http.StatusOK {
				t.fail(ctx, "%s: %d %q %v", hostOf(host), status, body, err)
				return
			}
			if body == serviceOf(service) {
				t.result.live.add(time.Since(began))
				break
			}
			time.Sleep(300 * time.Microsecond) // nobody tells
		}
		t.mu.Lock()
		delete(t.service, -host-1)
		t.mu.Unlock()
	})
}

// rollOut replaces the pods of Services, as a Deployment does: a new one, then an
// old one goes, and ends some time after nobody is led to it any more. Pods with
// WebSockets are replaced likewise, and go on.
func (t *traffic) rollOut(ctx context.Context, _ int, pause time.Duration) {
	var ending sync.WaitGroup
	defer ending.Wait()
	old := map[int][]netip.Addr{}
	for service := range t.routes / sharing {
		old[service] = []netip.Addr{podAt(2*service + 1), podAt(2*service + 2)}
	}
	n := 0
	again(ctx, pause, func(time.Time) {
		n++
		service := n % (t.routes / sharing)
		was, is := old[service], []netip.Addr{t.newPod(service), t.newPod(service)}
		old[service] = is
		lasts := service*sharing%socketEach == 0
		ending.Go(func() {
			for _, step := range []struct{ ready, leaving []netip.Addr }{
				{append([]netip.Addr{is[0]}, was...), nil}, {[]netip.Addr{is[0], was[1]}, was[:1]}, {is, was}, {is, nil},
			} {
				if err := t.point(service, step.ready, step.leaving); err != nil {
					t.fail(ctx, "%v", err)
				}
				time.Sleep(200 * time.Millisecond) // as pods take to start
			}
			time.Sleep(t.grace)
			for _, at := range was {
				if !lasts {
					t.pods.end(at)
				}
			}
			t.mu.Lock()
			t.result.rolled++
			t.mu.Unlock()
		})
	})
}

// rotateAll gives hosts other certificates, and looks when clients see them.
func (t *traffic) rotateAll(ctx context.Context, n int, pause time.Duration) {
	serial := int64(n)
	again(ctx, pause, func(time.Time) {
		serial += 2
		host := t.secureHost()
		if host/secureEach%2 != n { // each has its own, so that nobody waits for one that was replaced again
			return
		}
		began := time.Now()
		if err := t.rotate(host, 10+serial); err != nil {
			t.fail(ctx, "%v", err)
			return
		}
		for ctx.Err() == nil {
			conn, err := tls.Dial("tcp", t.gateway.secure, &tls.Config{ServerName: hostOf(host), InsecureSkipVerify: true})
			if err != nil {
				t.fail(ctx, "TLS: %v", err)
				return
			}
			is := conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
			_ = conn.NetConn().(*net.TCPConn).SetLinger(0) // no port waits
			_ = conn.NetConn().Close()
			if is == 10+serial {
				t.result.certs.add(time.Since(began))
				return
			}
			time.Sleep(2 * time.Millisecond) // nobody tells
		}
	})
}
