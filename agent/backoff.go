package agent

import (
	"math/rand/v2"
	"time"
)

// backoff is how long to wait before the next attempt: from first, doubled each
// time up to most, with a fifth of jitter so that nodes do not act in step.
type backoff struct {
	first, most time.Duration
	failures    int
}

func (b *backoff) next() time.Duration {
	wait := b.most
	if b.failures < 20 {
		wait = min(b.first<<b.failures, b.most)
	}
	b.failures++
	return jitter(wait)
}

func (b *backoff) reset() { b.failures = 0 }

func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}
