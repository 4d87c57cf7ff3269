package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/cni"
)

// server answers the CNI plugin on a socket that only root may use.
type server struct {
	path      string
	answer    func(context.Context, *cni.Request, *os.File) *cni.Reply
	listening chan struct{} // closed when it does
	log       *slog.Logger
}

const (
	// longest is the most that any request may take, whatever it asks for.
	longest = time.Minute
	// requestTime is for a request to arrive: the plugin has all of it.
	requestTime = 5 * time.Second
)

// Run serves until the context ends, and then until the last answer is given.
func (s *server) Run(ctx context.Context) error {
	listener, err := listen(s.path)
	if err != nil {
		return err
	}
	defer listener.Close() // the context may have ended, and nothing been closed yet
	close(s.listening)
	var serving sync.WaitGroup
	defer serving.Wait()
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	again := backoff{first: 10 * time.Millisecond, most: time.Second}
	for {
		conn, err := listener.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return nil
		}
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.ENOBUFS) {
			// Who calls waits in the kernel's queue.
			s.log.Warn("a request on the CNI socket has to wait", "error", err)
			pause(ctx, again.next())
			continue
		}
		if err != nil {
			return fmt.Errorf("accept on %s: %w", s.path, err)
		}
		again.reset()
		serving.Go(func() { s.serve(ctx, conn) })
	}
}

// listen makes the socket under another name first: what is at its path is
// always a socket that root alone may use, and that replaces one of a dead
// agent. It stays when the agent ends.
func listen(path string) (*net.UnixListener, error) {
	temporary := path + ".new"
	_ = os.Remove(temporary)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for the CNI plugin: %w", err)
	}
	listener.SetUnlinkOnClose(false)
	if err = os.Chmod(temporary, 0o600); err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("listen for the CNI plugin: %w", err)
	}
	return listener, nil
}

func (s *server) serve(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	if err := s.exchange(ctx, conn); err != nil && ctx.Err() == nil {
		s.log.Warn("a request on the CNI socket failed", "error", err)
	}
}

func (s *server) exchange(ctx context.Context, conn *net.UnixConn) error {
	if err := errors.Join(conn.SetDeadline(time.Now().Add(longest)), conn.SetReadDeadline(time.Now().Add(requestTime))); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	request, netns, err := cni.ReadRequest(conn)
	if netns != nil {
		defer netns.Close()
	}
	// Between its making and its chmod, others could connect.
	if err := fromRoot(conn); err != nil {
		return errors.Join(err, cni.WriteReply(conn, refusal(err)))
	}
	if err != nil {
		return cni.WriteReply(conn, refusal(err))
	}
	ctx, cancel := context.WithTimeout(ctx, min(request.Timeout, longest))
	defer cancel()
	return cni.WriteReply(conn, s.answer(ctx, request, netns))
}

func fromRoot(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("look at the peer: %w", err)
	}
	var peer *unix.Ucred
	var peerErr error
	err = raw.Control(func(fd uintptr) {
		peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	switch {
	case err != nil:
		return fmt.Errorf("look at the peer: %w", err)
	case peerErr != nil:
		return fmt.Errorf("look at the peer: %w", peerErr)
	case peer.Uid != 0:
		return fmt.Errorf("user %d may not use the CNI socket", peer.Uid)
	}
	return nil
}
