package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// transition takes a change of tunnels from step to step: see model.Snapshot.Follow.
// It keeps what is in use in a file, so that an agent that starts meanwhile
// receives by it, too.
type transition struct {
	feed *model.Feed
	path string // of the file
	log  *slog.Logger
}

const (
	// comingTime is what a node that is connected takes to hear of a change and
	// to follow, with room to spare.
	comingTime = 5 * time.Second
	// formerTime is far longer, and short enough for a port or a name to be free
	// again soon.
	formerTime = time.Minute
)

// recall lets the feed have what an earlier agent used. A file that cannot be
// read is no loss, but for a change in this very minute.
func (t *transition) recall() {
	text, err := os.ReadFile(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	former := &model.Routing{}
	if err == nil {
		err = json.Unmarshal(text, former)
	}
	if err != nil {
		t.log.Warn("how the cluster was routed before is not known", "error", err)
		return
	}
	t.feed.Edit(func(s *model.Snapshot) { s.Former = former })
}

func (t *transition) save(routing model.Routing) {
	text, err := json.Marshal(routing)
	if err == nil {
		err = replace(t.path, 0o644, func(file *os.File) error { _, err := file.Write(text); return err })
	}
	if err != nil {
		t.log.Warn("how the cluster is routed could not be kept", "error", err)
	}
}

// Run watches until the context ends.
func (t *transition) Run(ctx context.Context) error {
	var was model.Snapshot
	var arrive, forget <-chan time.Time
	var saved model.Routing
	for {
		now, changed := t.feed.Latest()
		if now.Network != nil && now.Network.Routing != saved {
			saved = now.Network.Routing
			t.save(saved)
		}
		if now.Coming != was.Coming {
			arrive = after(now.Coming, comingTime)
		}
		if now.Former != was.Former {
			forget = after(now.Former, formerTime)
		}
		was = *now
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-arrive:
			t.feed.Edit(func(s *model.Snapshot) {
				if s.Coming == was.Coming {
					s.Arrive()
				}
			})
		case <-forget:
			t.feed.Edit(func(s *model.Snapshot) {
				if s.Former == was.Former {
					s.Former = nil
				}
			})
		}
	}
}

func after(routing *model.Routing, d time.Duration) <-chan time.Time {
	if routing == nil {
		return nil
	}
	return time.After(d)
}
