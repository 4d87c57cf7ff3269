package gateway

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unique"
)

// ownPrefix is that of the annotations that ingress-nginx does not have.
const ownPrefix = "fairlead.io/"

// HealthCheck is what endpoints are asked again and again, so that those that are not
// well are left out before a request finds out.
type HealthCheck struct {
	Path              string        // asked for by GET
	Host              string        // empty: the address
	Interval, Timeout time.Duration // between two questions, and for an answer
	// Healthy and Unhealthy are how many answers in a row change what is thought of an
	// endpoint.
	Healthy, Unhealthy int
	From, To           int // statuses of who is well
}

// Bounds of a check: it is to be no burden, and what is known is not to be old.
const (
	leastInterval, mostInterval = time.Second, 5 * time.Minute
	leastTimeout, mostTimeout   = 10 * time.Millisecond, time.Minute
)

var usualCheck = HealthCheck{Interval: 10 * time.Second, Timeout: 2 * time.Second, Healthy: 2, Unhealthy: 3, From: 200, To: 399}

// ownRules are the annotations of our own that are honoured.
var ownRules = map[string]rule{
	"health-check-path":                set(readProbe, func(s *settings) textOf { return &s.check.Path }),
	"health-check-host":                set(readProbeHost, func(s *settings) textOf { return &s.check.Host }),
	"health-check-interval":            set(readWithin(leastInterval, mostInterval), func(s *settings) timeOf { return &s.check.Interval }),
	"health-check-timeout":             set(readWithin(leastTimeout, mostTimeout), func(s *settings) timeOf { return &s.check.Timeout }),
	"health-check-healthy-threshold":   set(readNumber(1, 100), func(s *settings) intOf { return &s.check.Healthy }),
	"health-check-unhealthy-threshold": set(readNumber(1, 100), func(s *settings) intOf { return &s.check.Unhealthy }),
	"health-check-status":              {read: readProbeStatus},
}

// ownVerdict is verdict, of an annotation of our own.
func (s *settings) ownVerdict(name, value string) (is Support, why string, guard bool) {
	rule, ok := ownRules[name]
	if !ok {
		return Unknown, "there is no such annotation of Ingresses", false
	}
	s.checked = true
	if err := rule.read(s, strings.TrimSpace(value)); err != nil {
		return Refused, fmt.Sprintf("%q cannot be honoured: %v", clip(value), err), rule.guard
	}
	return Honoured, "", false
}

func (s *settings) finishCheck(d *draft) {
	switch {
	case s.check.Path != "":
		s.Check = unique.Make(s.check)
	case s.checked:
		d.annotated(ownPrefix+"health-check-path", "NotHonoured", "endpoints are asked for nothing without a path", "set "+ownPrefix+"health-check-path: /healthz, or remove the other annotations of checks")
	}
}

// readProbe reads a path, with a query or not.
func readProbe(text string) (string, error) {
	path, err := readPath(text)
	if err == nil && strings.ContainsAny(path, " #") {
		err = errors.New("want a path without spaces and #, such as /healthz")
	}
	if err == nil {
		_, err = url.ParseRequestURI(path)
	}
	return path, err
}

func readProbeHost(text string) (string, error) {
	name := strings.ToLower(text)
	return name, checkHost(name)
}

func readWithin(least, most time.Duration) func(string) (time.Duration, error) {
	return func(text string) (time.Duration, error) {
		d, err := readSeconds(text)
		if err == nil && (d < least || d > most) {
			err = fmt.Errorf("want from %s to %s", least, most)
		}
		return d, err
	}
}

// readProbeStatus reads 204 or 200-399.
func readProbeStatus(s *settings, text string) error {
	first, last, ok := strings.Cut(text, "-")
	if !ok {
		last = first
	}
	from, err := strconv.Atoi(strings.TrimSpace(first))
	to, other := strconv.Atoi(strings.TrimSpace(last))
	if err != nil || other != nil || from < 200 || to > 599 || from > to {
		return errors.New("want a status such as 204, or some such as 200-399")
	}
	s.check.From, s.check.To = from, to
	return nil
}
