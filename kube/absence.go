package kube

import (
	"context"
	"math/rand/v2"
	"time"
)

// absence counts how often a resource was asked for that the API server does not have,
// such as ServiceCIDRs before Kubernetes 1.33. client-go asks twice each half a minute or
// so for as long as the agent lives, which is 200 requests a second of 5,000 agents.
// One that is patient asks ever more seldom. A reflector's requests come one after the other.
type absence struct {
	patient bool
	times   int // in a row
}

// A kind that was just made may be served a little later.
const (
	impatient    = 10               // times
	absencePause = 10 * time.Minute // between two requests then
)

func (a *absence) noted(absent bool) {
	if a.times++; !absent {
		a.times = 0
	}
}

// pause is how long to wait before the next request.
func (a *absence) pause() time.Duration {
	if !a.patient || a.times < impatient {
		return 0
	}
	return absencePause - absencePause/5 + rand.N(absencePause/5*2)
}

func (a *absence) wait(ctx context.Context) error {
	pause := a.pause()
	if pause == 0 {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(pause):
		return nil
	}
}
