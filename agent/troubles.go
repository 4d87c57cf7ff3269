package agent

import (
	"context"
	"log/slog"

	"github.com/fairlead-net/fairlead/model"
)

// troubles logs what a part of the agent cannot do by itself, such as what the
// source does not understand or cannot reach: without the API server, the log is
// the only place to learn of it.
type troubles struct {
	source troubled
	log    *slog.Logger
}

// troubled has problems to tell of.
type troubled interface {
	Problems() []model.Problem
	Changed() <-chan struct{} // closed when Problems has changed
}

// Run logs each trouble when it begins, however its message changes meanwhile.
func (t *troubles) Run(ctx context.Context) error {
	logged := map[model.Problem]bool{}
	for {
		changed := t.source.Changed()
		now := map[model.Problem]bool{}
		for _, problem := range t.source.Problems() {
			kind := problem
			kind.Message, kind.Remedy = "", ""
			if now[kind] = true; !logged[kind] {
				t.log.Warn("something needs to be mended", "problem", problem.String())
			}
		}
		logged = now
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// unread says why nothing was read of the cluster yet, as far as is known.
func unread(source Source) string {
	text := "the cluster's nodes, pods and Network have not been read yet"
	if problems := source.Problems(); len(problems) > 0 {
		text += "; " + problems[0].String()
	}
	return text
}
