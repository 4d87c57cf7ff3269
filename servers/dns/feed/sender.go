package feed

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
)

// Socket is the name of the socket in its directory.
const Socket = "dns.sock"

// Bounds of a connection.
const (
	maxServers = 4                // connections at one time: of a server, and the next one of an upgrade
	takeTime   = 10 * time.Second // for a server to take what is written
	maxAnswer  = 32 << 10         // bytes of a line of a server
)

// Sender tells servers of a node what names are made of. It reads a Feed, which it
// never keeps waiting: to a server that is slow the newest difference is said,
// when it has taken the last.
type Sender struct {
	Feed    *model.Feed
	Dir     string // of the socket; of its own, since its rights are those of the socket
	User    int    // who may connect, besides root: the server's number, for user and group
	Program string // version of Fairlead
	Boot    string // of the node
	Log     *slog.Logger
	// Asked is called when a server has dialled: from then on somebody wants names.
	// It must not block. It may be nil.
	Asked func()
	// Learn is called with what servers are about to tell pods, in a goroutine of each
	// server's own, and returns when packets to the addresses pass; the error says that
	// they do not, and is nobody's to log. It may be nil.
	Learn func(context.Context, []model.Resolution) error
	// Tell is called with all that servers have found to mend, whenever that has
	// changed; nil: nobody wants to know.
	Tell func(...model.Problem)

	mu      sync.Mutex
	serving *Serving      // nil: not known yet, and nothing is said of it
	changed chan struct{} // closed and replaced with serving
	servers []*server     // the newest last
	told    []model.Problem
}

// server is one that is connected.
type server struct {
	conn *net.UnixConn
	// Guarded by the Sender's mu:
	told    uint64 // revision that was said last
	covered uint64 // latest one that says nothing else
	serves  uint64 // what the server says
	version int    // of what it says; 0: it has not said yet
	// problems are what it has found.
	problems []model.Problem
	lessons
}

// Serve says how the server answers from now on. It does not block.
func (s *Sender) Serve(serving Serving) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serving != nil && s.serving.Equal(&serving) {
		return
	}
	s.serving = &serving
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// Serves returns the latest revision of the Feed whose names are served, and
// whether a server is connected at all; 0: it has not said yet.
func (s *Sender) Serves() (revision uint64, connected bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, to := range s.servers {
		if to.serves != 0 && to.serves == to.told {
			revision = max(revision, to.covered)
		}
		revision = max(revision, to.serves)
	}
	return revision, len(s.servers) > 0
}

// Resolves tells whether a server is connected that says what names lead to, and
// whether one is that is too old for that.
func (s *Sender) Resolves() (does, old bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, to := range s.servers {
		does = does || to.version >= 2
		old = old || to.version == 1
	}
	return does, old
}

func (s *Sender) latest() (*Serving, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.serving, s.changed
}

// Run serves the socket until the context ends, and then returns nil.
func (s *Sender) Run(ctx context.Context) error {
	for {
		listener, err := s.listen()
		if err != nil {
			s.Log.Error("the DNS server of this node is told nothing, trying again", "error", err)
		} else {
			err = s.accept(ctx, listener)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
		if err != nil {
			s.Log.Error("the socket of the DNS server of this node, trying again", "error", err)
		}
	}
}

// listen makes the socket, and its directory, which nobody but the server can
// look into.
func (s *Sender) listen() (*net.UnixListener, error) {
	if err := os.MkdirAll(s.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("make the directory of the socket: %w", err)
	}
	path := filepath.Join(s.Dir, Socket)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the former socket: %w", err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	for _, err := range []error{os.Chown(s.Dir, -1, s.User), os.Chmod(s.Dir, 0o750), os.Chown(path, -1, s.User), os.Chmod(path, 0o660)} {
		if err != nil {
			_ = listener.Close()
			return nil, fmt.Errorf("give the socket to user %d: %w", s.User, err)
		}
	}
	return listener, nil
}

func (s *Sender) accept(ctx context.Context, listener *net.UnixListener) error {
	var talking sync.WaitGroup
	defer talking.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	for {
		conn, err := listener.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		if err := s.permit(conn); err != nil {
			s.Log.Warn("somebody else dialled the socket of the DNS server", "error", err)
			_ = conn.Close()
			continue
		}
		if s.Asked != nil {
			s.Asked()
		}
		to := s.enter(conn)
		talking.Go(func() {
			defer s.leave(to)
			s.talk(ctx, to)
		})
	}
}

// permit looks who dialled.
func (s *Sender) permit(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("look who dialled: %w", err)
	}
	var who *unix.Ucred
	failed := raw.Control(func(fd uintptr) { who, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(failed, err); err != nil {
		return fmt.Errorf("look who dialled: %w", err)
	}
	if int(who.Uid) != s.User && who.Uid != 0 {
		return fmt.Errorf("user %d is not the server's, %d", who.Uid, s.User)
	}
	return nil
}

// enter notes a server, and ends the oldest if there are too many.
func (s *Sender) enter(conn *net.UnixConn) *server {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.servers) >= maxServers {
		_ = s.servers[0].conn.Close()
		s.servers = s.servers[1:]
	}
	to := &server{conn: conn, lessons: newLessons()}
	s.servers = append(s.servers, to)
	return to
}

func (s *Sender) leave(to *server) {
	_ = to.conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, other := range s.servers {
		if other == to {
			s.servers = append(s.servers[:i:i], s.servers[i+1:]...)
			s.tell()
			return
		}
	}
}

// tell tells what is to be mended. mu is held, so that it is told in order.
func (s *Sender) tell() {
	if s.Tell == nil {
		return
	}
	var all []model.Problem
	for _, to := range s.servers {
		all = append(all, to.problems...)
	}
	slices.SortFunc(all, model.Problem.Compare)
	if all = slices.Compact(all); !slices.Equal(all, s.told) {
		s.told = all
		s.Tell(all...)
	}
}

// talk says all there is, and then what changes, until the connection ends.
func (s *Sender) talk(ctx context.Context, to *server) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = to.conn.Close() })
	defer stop()
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		defer cancel()
		s.hear(to)
	}()
	taught := make(chan struct{})
	go func() {
		defer close(taught)
		s.teach(ctx, to)
	}()
	defer func() { _ = to.conn.Close(); cancel(); <-heard; <-taught }()

	out := writer{to: bufio.NewWriterSize(&timed{to.conn}, 32<<10)}
	sent := &model.Snapshot{}
	var said *Serving
	err := out.put("hello", hello{Version, s.Program, s.Boot})
	for err == nil {
		snapshot, newer := s.Feed.Latest()
		serving, other := s.latest()
		if serving != said {
			said, err = serving, errors.Join(err, out.put("serving", serving))
		}
		if snapshot.NamesKnown && snapshot.Network != nil && err == nil {
			err = s.difference(&out, to, sent, snapshot)
			sent = snapshot
		}
		err = errors.Join(err, s.confirm(&out, to))
		if err = errors.Join(err, out.to.Flush()); err != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-newer:
		case <-other:
		case <-to.learned:
		}
	}
}

// difference says what differs between two snapshots, if anything does.
func (s *Sender) difference(out *writer, to *server, sent, snapshot *model.Snapshot) error {
	before := out.lines
	if err := tell(sent, snapshot, out.line); err != nil {
		return err
	}
	changed := out.lines != before || sent.Network == nil
	s.mu.Lock()
	if to.covered = snapshot.Revision; changed {
		to.told = snapshot.Revision
	}
	s.mu.Unlock()
	if !changed {
		return nil
	}
	return out.put("revision", revision{snapshot.Revision, sent.Network == nil})
}

// hear reads what a server says, until it ends or says what no server would.
func (s *Sender) hear(to *server) {
	lines := bufio.NewReaderSize(to.conn, maxAnswer)
	for {
		text, err := lines.ReadSlice('\n')
		if err != nil {
			return
		}
		var l line
		var r revision
		if json.Unmarshal(text, &l) != nil {
			return
		}
		var problems []model.Problem
		var resolved batch
		var h hello
		s.mu.Lock()
		switch {
		case l.Kind == "served" && json.Unmarshal(l.Put, &r) == nil:
			to.serves = r.Revision
		case l.Kind == "hello" && json.Unmarshal(l.Put, &h) == nil:
			to.version = h.Version
		case l.Kind == "problems" && json.Unmarshal(l.Put, &problems) == nil:
			to.problems = problems
			s.tell()
		case l.Kind == "resolved" && json.Unmarshal(l.Put, &resolved) == nil:
			to.hear(resolved)
		}
		s.mu.Unlock()
	}
}

// writer writes lines.
type writer struct {
	to    *bufio.Writer
	lines int
}

func (w *writer) put(kind string, put any) error {
	l, err := said(kind, put)
	if err != nil {
		return err
	}
	return w.line(l)
}

func (w *writer) line(l line) error {
	w.lines++
	text, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("write a line: %w", err)
	}
	if _, err = w.to.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("write a line: %w", err)
	}
	return nil
}

// timed is a connection whose other end has to take what is written.
type timed struct{ *net.UnixConn }

func (t *timed) Write(b []byte) (int, error) {
	if err := t.SetWriteDeadline(time.Now().Add(takeTime)); err != nil {
		return 0, err
	}
	return t.UnixConn.Write(b)
}
