package agent

import (
	"context"
	"log/slog"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// Surveyor knows the firewalls of others on this node; nftables.Firewall is one.
type Surveyor interface {
	// Droppers names the chains that drop some packets, forwarded ones or others.
	Droppers() ([]string, error)
	// Legacy returns commands that list what iptables-legacy has, which the others do
	// not tell of; none if it has no tables.
	Legacy() ([]string, error)
	// Survey tells what they drop, and accept.
	Survey() (*model.Firewalls, error)
	// Surveyed tells that this may have changed. It is told only while the
	// surveyor runs, which is one of Config.Servers.
	Surveyed() <-chan struct{}
}

// firewalls tells the feed which firewalls of others there are.
type firewalls struct {
	feed     *model.Feed
	surveyor Surveyor // nil: there is none to be known
	log      *slog.Logger
}

// Run surveys whenever something has changed, until the context ends: at once,
// but ever more slowly if it goes on.
func (f *firewalls) Run(ctx context.Context) error {
	if f.surveyor == nil {
		return nil
	}
	slower := backoff{first: 50 * time.Millisecond, most: 500 * time.Millisecond}
	failing := backoff{first: time.Second, most: time.Minute}
	for {
		began := time.Now()
		found, err := f.surveyor.Survey()
		var again <-chan time.Time
		if err != nil {
			f.log.Warn("firewalls of others on this node are not known", "error", err)
			again = time.After(failing.next())
		} else {
			failing.reset()
			f.show(found)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again:
			continue
		case <-f.surveyor.Surveyed():
		}
		wait := gatherTime
		if time.Since(began) < calmTime {
			wait = slower.next()
		} else {
			slower.reset()
		}
		if !pause(ctx, wait) {
			return nil
		}
	}
}

func (f *firewalls) show(found *model.Firewalls) {
	f.feed.Edit(func(s *model.Snapshot) {
		if s.Firewalls == nil || !s.Firewalls.Equal(found) {
			s.Firewalls = found
		}
	})
}
