package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

// ownDir is where the control machine finds this program.
const ownDir = "/usr/local/lib/fairlead"

// openPortal makes the API server reachable from the host. The portal is a
// process of the control machine, so that it dies with it, and inherits a
// listening socket that was made here: a socket stays in the network namespace
// it was made in. A port of 0 means any; the state remembers which.
func (l *Lab) openPortal(ctx context.Context) error {
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: l.state.Port})
	if err != nil {
		return fmt.Errorf("listening for users of the API server: %w", err)
	}
	defer listener.Close()
	l.state.Port = listener.Addr().(*net.TCPAddr).Port
	socket, err := listener.File()
	if err != nil {
		return fmt.Errorf("listening for users of the API server: %w", err)
	}
	defer socket.Close()
	log, err := os.Create(l.world.LogPath(Control, "portal"))
	if err != nil {
		return fmt.Errorf("opening the portal's log: %w", err)
	}
	defer log.Close()
	api := net.JoinHostPort(l.Addresses(Control)[0].String(), strconv.Itoa(apiPort))
	// setsid forks, so that nobody here has to wait for the portal's end.
	command := l.world.Command(ctx, Control, "setsid", "--fork", ownDir+"/fairlead", "lab", "portal", api)
	command.ExtraFiles = []*os.File{socket}
	command.Stdout, command.Stderr = log, log
	if err := command.Run(); err != nil {
		return fmt.Errorf("starting the portal to the API server: %w%s", err, l.tail(Control, "portal"))
	}
	return nil
}

// Portal relays connections from the listening socket that is its file
// descriptor 3 to a TCP address. It returns when ctx ends or nothing can be
// accepted any more.
func Portal(ctx context.Context, address string) error {
	listener, err := net.FileListener(os.NewFile(3, "portal"))
	if err != nil {
		return fmt.Errorf("taking the listening socket: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	group.Go(func() error {
		for {
			outer, err := listener.Accept()
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return fmt.Errorf("accepting a connection: %w", err)
			}
			group.Go(func() error {
				relay(ctx, outer, address)
				return nil
			})
		}
	})
	return group.Wait()
}

// relay copies both ways until both sides have ended.
func relay(ctx context.Context, outer net.Conn, address string) {
	defer outer.Close()
	dialer := net.Dialer{Timeout: 5 * time.Second}
	inner, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return // the client sees its connection closed
	}
	defer inner.Close()
	defer context.AfterFunc(ctx, func() {
		outer.Close()
		inner.Close()
	})()
	done := make(chan struct{})
	go func() {
		defer close(done)
		pass(inner, outer)
	}()
	pass(outer, inner)
	<-done
}

// pass copies from one connection to another, and the end of the stream too.
func pass(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if err != nil && !errors.Is(err, net.ErrClosed) {
		from.Close()
		to.Close()
		return
	}
	if half, ok := to.(*net.TCPConn); ok {
		_ = half.CloseWrite() // fails only if it is closed already
	}
}
