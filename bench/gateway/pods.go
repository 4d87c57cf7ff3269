package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// pods are all of them: one server, that knows by its address which it is.
type pods struct {
	port   uint16
	server *http.Server

	mu      sync.Mutex
	service map[netip.Addr]int
	conns   map[netip.Addr]map[net.Conn]http.ConnState
	ended   map[netip.Addr]time.Time
	late    time.Duration // how long after its end a pod was called, at most
}

type podKey struct{}

func newPods() (*pods, error) {
	listener, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		return nil, fmt.Errorf("pods listen: %w", err)
	}
	p := &pods{service: map[netip.Addr]int{}, conns: map[netip.Addr]map[net.Conn]http.ConnState{}, ended: map[netip.Addr]time.Time{}, port: uint16(listener.Addr().(*net.TCPAddr).Port)}
	p.server = &http.Server{
		Handler: p, ErrorLog: log.New(io.Discard, "", 0), ConnState: p.follow,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, podKey{}, addrOf(conn))
		},
	}
	go func() { _ = p.server.Serve(listener) }()
	return p, nil
}

func (p *pods) close() { _ = p.server.Close() }

func addrOf(conn net.Conn) netip.Addr {
	return conn.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
}

func (p *pods) add(at netip.Addr, service int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.service[at] = service
}

// end ends a pod: it closes what is idle, and takes no more connections. What is
// under way, it finishes.
func (p *pods) end(at netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.service, at)
	p.ended[at] = time.Now()
	for conn, state := range p.conns[at] {
		if state == http.StateIdle {
			_ = conn.Close()
		}
	}
	delete(p.conns, at)
}

func (p *pods) follow(conn net.Conn, state http.ConnState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := addrOf(conn)
	if _, lives := p.service[at]; !lives {
		if ended, ok := p.ended[at]; ok && state == http.StateNew {
			p.late = max(p.late, time.Since(ended))
		}
		if state == http.StateNew || state == http.StateIdle {
			_ = conn.Close()
		}
		return
	}
	if state == http.StateClosed || state == http.StateHijacked {
		delete(p.conns[at], conn)
		return
	}
	if p.conns[at] == nil {
		p.conns[at] = map[net.Conn]http.ConnState{}
	}
	p.conns[at][conn] = state
}

// ServeHTTP says of which Service it is; a WebSocket has everything come back.
func (p *pods) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "" {
		echo(w)
		return
	}
	_, _ = io.Copy(io.Discard, r.Body)
	p.mu.Lock()
	service := p.service[r.Context().Value(podKey{}).(netip.Addr)]
	p.mu.Unlock()
	_, _ = io.WriteString(w, serviceOf(service))
}

func echo(w http.ResponseWriter) {
	conn, in, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"); err != nil {
		return
	}
	_, _ = io.Copy(conn, bufio.NewReader(in))
}
