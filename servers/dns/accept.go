package dns

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// acceptor takes the TCP connections of one listener.
type acceptor struct {
	server   *Server
	listener *net.TCPListener
	ctx      context.Context // of all connections
	// last ends when they are to end as soon as they have nothing in hand.
	last    context.Context
	streams sync.WaitGroup
}

// run takes connections until the listener is closed.
func (a *acceptor) run() {
	for {
		conn, err := a.listener.Accept()
		switch {
		case err == nil:
			a.admit(conn)
		case a.ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return
		default: // out of descriptors, or the client is gone again
			select {
			case <-a.ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
}

// admit serves a connection, if its client may ask.
func (a *acceptor) admit(conn net.Conn) {
	s := a.server
	from := asker{addr: addressOf(conn.RemoteAddr().(*net.TCPAddr).AddrPort()), tcp: true}
	served := s.served.Load()
	if !served.allows(from.addr) {
		s.counts.strangers.Add(1)
		_ = conn.Close()
		return
	}
	served.client(from.addr, &s.others).Connections.Add(1)
	place := s.places.take(from.addr, conn)
	a.streams.Go(func() {
		defer s.places.leave(place)
		c := &stream{server: s, conn: conn, place: place, from: from, room: make(chan struct{}, maxPipelined), last: a.last}
		c.serve(a.ctx)
	})
}

// rest takes the connections that the kernel has made, and waits for none. When the
// listener is closed, the kernel resets those that nobody has taken.
func (a *acceptor) rest() {
	raw, err := a.listener.SyscallConn()
	if err != nil {
		return
	}
	for {
		fd := -1
		failed := raw.Control(func(listener uintptr) {
			fd, _, err = unix.Accept4(int(listener), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		})
		if failed != nil || err != nil {
			return
		}
		file := os.NewFile(uintptr(fd), "tcp")
		conn, err := net.FileConn(file)
		_ = file.Close()
		if err == nil {
			a.admit(conn)
		}
	}
}
