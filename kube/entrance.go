package kube

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// entrance is where the watches of one agent meet on their way to the API
// server.
type entrance struct {
	first chan struct{} // of one element; see open

	mu  sync.Mutex
	met chan struct{} // closed and replaced when a request is
}

func newEntrance() *entrance {
	return &entrance{first: make(chan struct{}, 1), met: make(chan struct{})}
}

// wasMet tells all that wait that the API server answers.
func (e *entrance) wasMet() {
	e.mu.Lock()
	defer e.mu.Unlock()
	close(e.met)
	e.met = make(chan struct{})
}

// willBeMet is closed when the API server has answered somebody.
func (e *entrance) willBeMet() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.met
}

// Pauses between requests that are not met, as all of client-go makes them: the
// first, and the most. Up to as much again is added at random.
const (
	firstPause = 800 * time.Millisecond
	mostPause  = 30 * time.Second
)

// ask makes a request when it is this agent's turn, again and again while the
// API server is not there. The pauses grow, but as soon as another watch of this
// agent is answered, all are tried: of ten that wait, one is never far from its
// next attempt, while each of them may be half a minute from its own. again is as
// for wait.
func (t *turns) ask(ctx context.Context, again bool, request func() error) error {
	if t == nil {
		return request()
	}
	for pause := firstPause; ; pause = min(2*pause, mostPause) {
		if err := t.wait(ctx, again); err != nil {
			return err
		}
		met := t.shared.willBeMet()
		err := request()
		if err == nil {
			t.shared.wasMet()
		}
		t.found(!away(err))
		if !away(err) || ctx.Err() != nil {
			return err
		}
		timer := time.NewTimer(pause + rand.N(pause))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		case <-met:
			timer.Stop()
		}
	}
}

// found says whether the API server is there. If it is not, all agents of the cluster
// will find it back in one moment.
func (t *turns) found(there bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.missing = !there
}

// away tells whether a request failed because the API server is not there, or
// not ready. What it refuses otherwise is the reflector's to deal with.
func away(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return err != nil
	}
	return apierrors.IsServiceUnavailable(err) || apierrors.IsTooManyRequests(err)
}

// open asks for a watch when no other watch of this agent is being asked for. When
// all want a connection in the same moment, Go's HTTP client makes one for each,
// with a handshake each, although HTTP/2 needs only one.
func (t *turns) open(ctx context.Context, ask func() error) error {
	if t == nil {
		return ask()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case t.shared.first <- struct{}{}:
	}
	defer func() { <-t.shared.first }()
	return ask()
}
