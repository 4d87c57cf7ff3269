package kube

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// clock is that of the API server, by which those who write a time and those who ask
// for its age mean the same, whatever the clocks of their machines say.
type clock struct {
	mu   sync.Mutex
	date time.Time // of the last answer
	at   time.Time // when it came, here
}

// dated sets a clock by answers.
type dated struct {
	http.RoundTripper
	clock *clock
}

// RoundTrip reads the Date of each answer (RFC 9110, section 6.6.1), of whole seconds.
func (d *dated) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := d.RoundTripper.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	if date, err := http.ParseTime(response.Header.Get("Date")); err == nil {
		d.clock.mu.Lock()
		d.clock.date, d.clock.at = date, time.Now()
		d.clock.mu.Unlock()
	}
	return response, nil
}

// WrappedRoundTripper is for client-go, which looks for the transport below.
func (d *dated) WrappedRoundTripper() http.RoundTripper { return d.RoundTripper }

// Now is the time by the API server, within a second; that of this machine before there
// was an answer. It goes on with the monotonic clock.
func (c *Client) Now() time.Time {
	c.clock.mu.Lock()
	defer c.clock.mu.Unlock()
	if c.clock.at.IsZero() {
		return time.Now()
	}
	return c.clock.date.Add(time.Since(c.clock.at))
}

// wrongAfter is from when on a clock is told of.
const wrongAfter = time.Minute

// clockProblem tells whether the clock of this node is far from that of the API server.
func (c *Client) clockProblem(node string) (model.Problem, bool) {
	ahead := time.Now().Round(0).Sub(c.Now()) // by the wall clock
	if ahead.Abs() < wrongAfter {
		return model.Problem{}, false
	}
	side := "ahead of"
	if ahead < 0 {
		side = "behind"
	}
	return model.Problem{
		Kind: "Node", Name: node, Reason: "ClockWrong",
		Message: fmt.Sprintf("the clock of this node is %s %s that of the API server; certificates and tokens may be taken for outdated, or not yet valid", ahead.Abs().Round(time.Minute), side),
		Remedy:  "run chrony or systemd-timesyncd on all nodes, and see timedatectl",
	}, true
}
