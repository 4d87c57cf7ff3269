package world

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// The verbs that a machine's init obeys on its control socket: one JSON line
// asks, one answers, then the connection ends.
const (
	verbStatus   = "status"
	verbStart    = "start"
	verbStop     = "stop"
	verbShutdown = "shutdown"
)

type request struct {
	Verb    string
	Service string `json:",omitempty"`
}

type response struct {
	Error    string `json:",omitempty"`
	PID      int
	Services []ServiceState
}

// dial connects to a machine's init and tells its process id, from the socket
// and not from a file, so that it is never the id of another process.
func (w *World) dial(machine string) (*net.UnixConn, int, error) {
	path := filepath.Join(w.machineDir(machine), "control.sock")
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, 0, fmt.Errorf("reach machine %s of world %s: %w", machine, w.Name, ErrNotRunning)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("reach machine %s of world %s: %w", machine, w.Name, err)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		conn.Close()
		return nil, 0, fmt.Errorf("reach machine %s: %w", machine, err)
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || credErr != nil {
		conn.Close()
		return nil, 0, fmt.Errorf("reach machine %s: %w", machine, errors.Join(err, credErr))
	}
	return conn, int(cred.Pid), nil
}

// control asks a machine's init for something and waits for the answer.
func (w *World) control(ctx context.Context, machine string, q request) (response, error) {
	var a response
	conn, _, err := w.dial(machine)
	if err != nil {
		return a, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	err = json.NewEncoder(conn).Encode(q)
	if err == nil {
		err = json.NewDecoder(conn).Decode(&a)
	}
	if ctx.Err() != nil {
		return a, fmt.Errorf("%s %s on machine %s: %w", q.Verb, q.Service, machine, ctx.Err())
	}
	if err != nil {
		// Switched off in between.
		return a, fmt.Errorf("%s %s on machine %s: %w: %w", q.Verb, q.Service, machine, ErrNotRunning, err)
	}
	if a.Error != "" {
		return a, fmt.Errorf("%s %s on machine %s: %s", q.Verb, q.Service, machine, a.Error)
	}
	return a, nil
}

// serveControl answers requests until ctx ends; a shutdown calls end.
func serveControl(ctx context.Context, l *net.UnixListener, services []*service, end func()) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var g errgroup.Group
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return g.Wait()
		}
		if err != nil {
			return errors.Join(fmt.Errorf("accept control connection: %w", err), g.Wait())
		}
		g.Go(func() error {
			defer conn.Close()
			// A peer that only wants to know our process id asks nothing.
			_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
			var q request
			line, err := bufio.NewReader(conn).ReadBytes('\n')
			if err != nil || json.Unmarshal(line, &q) != nil {
				return nil
			}
			_ = json.NewEncoder(conn).Encode(obey(services, q))
			if q.Verb == verbShutdown {
				end()
			}
			return nil
		})
	}
}

func obey(services []*service, q request) response {
	a := response{PID: os.Getpid()}
	switch q.Verb {
	case verbStatus:
		for _, s := range services {
			a.Services = append(a.Services, s.snapshot())
		}
	case verbShutdown:
		for i := range services {
			_ = services[len(services)-1-i].set(false)
		}
	case verbStart, verbStop:
		err := fmt.Errorf("no service %q", q.Service)
		for _, s := range services {
			if s.spec.Name == q.Service {
				err = s.set(q.Verb == verbStart)
			}
		}
		if err != nil {
			a.Error = err.Error()
		}
	default:
		a.Error = fmt.Sprintf("unknown verb %q", q.Verb)
	}
	return a
}
