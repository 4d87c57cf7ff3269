package gateway

import "time"

// Rate bounds how fast the body of an answer is sent to one client. The zero value
// does not.
type Rate struct {
	PerSecond int64 // bytes; 0: as fast as may be
	After     int64 // bytes that come before, as fast as may be
}

// throttled is a wire that is written to no faster than a rate.
type throttled struct {
	wire
	client *client
	rate   Rate
	began  time.Time // of what came behind Rate.After
	sent   int64
}

// Write writes all of it, in pieces, each when it is due.
func (t *throttled) Write(b []byte) (written int, err error) {
	for len(b) > 0 {
		piece := b[:min(int64(len(b)), t.room())]
		if err := t.wait(); err != nil {
			return written, err
		}
		n, err := t.wire.Write(piece)
		written, t.sent, b = written+n, t.sent+int64(n), b[n:]
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// room is how much goes at once: what is free, or a tenth of a second's worth.
func (t *throttled) room() int64 {
	if t.sent < t.rate.After {
		return t.rate.After - t.sent
	}
	return max(t.rate.PerSecond/10, 1)
}

// wait waits until something may be sent, or the server has had enough.
func (t *throttled) wait() error {
	if t.sent < t.rate.After {
		return nil
	}
	if t.began.IsZero() {
		t.began = time.Now()
	}
	due := t.began.Add(time.Duration(float64(t.sent-t.rate.After) / float64(t.rate.PerSecond) * float64(time.Second)))
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-t.client.server.context.Done():
		return errDeadline
	}
}
