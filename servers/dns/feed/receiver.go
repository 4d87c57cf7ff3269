package feed

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"
)

// Receiver hears what the agent says. When the agent is gone, what was heard last
// stays, and it is dialled again and again.
type Receiver struct {
	Path    string // of the socket
	Program string // version of Fairlead
	State   State  // what is known from before
	// Apply is called with each state, one after the other. When it returns, the
	// state's revision is served.
	Apply func(State)
	Log   *slog.Logger

	connected atomic.Bool
}

// Pauses before the agent is dialled again: it is on this node, and starts in a
// moment.
const (
	firstPause = 50 * time.Millisecond
	mostPause  = 2 * time.Second
)

// Connected tells whether there is an agent now.
func (r *Receiver) Connected() bool { return r.connected.Load() }

// Run hears until the context ends, and then returns nil.
func (r *Receiver) Run(ctx context.Context) error {
	pause, said := firstPause, ""
	for {
		heard, err := r.converse(ctx)
		r.connected.Store(false)
		if ctx.Err() != nil {
			return nil
		}
		if heard {
			pause, said = firstPause, ""
		}
		if said != err.Error() {
			said = err.Error()
			r.Log.Warn("no agent tells what the names are; those that are known are served on", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, mostPause)
	}
}

// converse hears one agent to its end, and tells whether it said anything.
func (r *Receiver) converse(ctx context.Context) (heard bool, err error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", r.Path)
	if err != nil {
		return false, fmt.Errorf("dial the agent: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	out := writer{to: bufio.NewWriter(conn)}
	if err := out.put("hello", hello{Version: Version, Program: r.Program}); err != nil {
		return false, err
	}
	if err := out.to.Flush(); err != nil {
		return false, fmt.Errorf("greet the agent: %w", err)
	}
	listener := listen(r.State)
	lines := json.NewDecoder(bufio.NewReaderSize(conn, 32<<10))
	for {
		var l line
		if err := lines.Decode(&l); err != nil {
			return heard, fmt.Errorf("hear the agent: %w", err)
		}
		heard = true
		changed, err := listener.hear(l)
		if err != nil {
			return heard, fmt.Errorf("hear the agent: %w", err)
		}
		if !changed {
			continue
		}
		r.connected.Store(true)
		r.State = listener.state
		r.Apply(r.State)
		if l.Kind != "revision" {
			continue
		}
		if err := out.put("served", revision{Revision: r.State.Snapshot.Revision}); err != nil {
			return heard, err
		}
		if err := out.to.Flush(); err != nil {
			return heard, fmt.Errorf("answer the agent: %w", err)
		}
	}
}
