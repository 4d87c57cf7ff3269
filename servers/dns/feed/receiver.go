package feed

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-net/fairlead/model"
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
	lateness

	mu       sync.Mutex
	out      *writer // to the agent that there is; nil: there is none
	problems []model.Problem
	number   uint64             // of the last batch of resolutions
	waiting  map[uint64]*waited // those that are not confirmed

	tolds sync.RWMutex // taken after mu
	told  map[toldKey]told
}

// maxProblems are told at most: one mistake may show in many ways.
const maxProblems = 16

// Tell tells the agent all that there is to mend. It does not wait for it.
func (r *Receiver) Tell(problems ...model.Problem) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.problems = slices.Clone(problems[:min(len(problems), maxProblems)])
	r.say("problems", r.problems)
}

// say says something, if there is an agent. mu is held. A failure shows when the
// agent is heard.
func (r *Receiver) say(kind string, put any) {
	if r.out != nil && r.out.put(kind, put) == nil {
		_ = r.out.to.Flush()
	}
}

// meet begins to talk to an agent, or ends that.
func (r *Receiver) meet(out *writer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.out = out
	r.say("hello", hello{Version: Version, Program: r.Program})
	if len(r.problems) > 0 {
		r.say("problems", r.problems)
	}
	for _, w := range r.waiting {
		close(w.done)
	}
	r.waiting = map[uint64]*waited{}
	r.repeat(model.NewDomains(r.State.Serving.Domains))
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
	r.meet(&writer{to: bufio.NewWriter(&timed{conn.(*net.UnixConn)})})
	defer r.meet(nil)
	listener := listen(r.State)
	lines := json.NewDecoder(bufio.NewReaderSize(conn, 32<<10))
	for {
		var l line
		if err := lines.Decode(&l); err != nil {
			return heard, fmt.Errorf("hear the agent: %w", err)
		}
		heard = true
		if l.Kind == "installed" {
			var is installed
			if err := json.Unmarshal(l.Put, &is); err != nil {
				return heard, fmt.Errorf("hear the agent: %w", err)
			}
			r.confirm(is.IDs)
			continue
		}
		changed, err := listener.hear(l)
		if err != nil {
			return heard, fmt.Errorf("hear the agent: %w", err)
		}
		if !changed {
			continue
		}
		if now, was := &listener.state.Serving, &r.State.Serving; !slices.Equal(now.Domains, was.Domains) || now.Forgotten != was.Forgotten {
			r.tellAgain(model.NewDomains(now.Domains))
		}
		r.connected.Store(true)
		r.State = listener.state
		r.Apply(r.State)
		if l.Kind != "revision" {
			continue
		}
		r.mu.Lock()
		r.say("served", revision{Revision: r.State.Snapshot.Revision})
		r.mu.Unlock()
	}
}
