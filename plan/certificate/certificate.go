// Package certificate plans which certificates are ordered, and when: for hosts that
// have none, before one ends, and again after a failure. It is pure: the time is
// passed in. All of it may be called concurrently.
package certificate

import (
	"cmp"
	"hash/fnv"
	"slices"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// Wanted is a host that is to have a certificate.
type Wanted struct {
	Host    string
	Ingress model.IngressKey // which asks for it, by Field
	Field   string
}

// Held is a certificate that there is.
type Held struct {
	Server      string // URL of the directory that it was ordered at
	From, Until time.Time
}

// Attempt is what has become of ordering so far, for a host whose certificate has not
// come yet.
type Attempt struct {
	Server   string
	Failures int       // in a row
	After    time.Time // it is not tried before; zero: it is under way
	Kind     string    // of the last failure: a type of RFC 8555, section 6.7; may be empty
	Error    string    // what the authority said
}

// State is what there is, by host.
type State struct {
	Held     map[string]Held
	Attempts map[string]Attempt
}

// Plan is what to do.
type Plan struct {
	// Order are the hosts to order a certificate for: those without any first, and then
	// those whose certificate ends first.
	Order []string
	// Ended are hosts that nobody wants any more, and whose certificate has ended, and
	// Vain those with an attempt that nobody wants, or whose certificate has come.
	Ended, Vain []string
	Again       time.Time // when something else is due, though nothing changes; zero: never
}

// Compute plans orders from a server, which is the URL of its directory. Nothing is to
// be done if it is empty.
func Compute(wanted []Wanted, state *State, server string, now time.Time) *Plan {
	plan := &Plan{}
	if server == "" {
		return plan
	}
	later := func(at time.Time) bool {
		if at.After(now) && (plan.Again.IsZero() || at.Before(plan.Again)) {
			plan.Again = at
		}
		return at.After(now)
	}
	wants := make(map[string]struct{}, len(wanted))
	for _, w := range wanted {
		wants[w.Host] = struct{}{}
		if held, ok := state.Held[w.Host]; ok && held.Server == server && later(held.renewal(w.Host)) {
			if _, is := state.Attempts[w.Host]; is { // who wrote the certificate has not come to delete it
				plan.Vain = append(plan.Vain, w.Host)
			}
			continue
		}
		if attempt, ok := state.Attempts[w.Host]; ok && attempt.Server == server && later(attempt.After) {
			continue
		}
		plan.Order = append(plan.Order, w.Host)
	}
	slices.SortFunc(plan.Order, func(a, b string) int {
		return cmp.Or(state.Held[a].Until.Compare(state.Held[b].Until), cmp.Compare(a, b))
	})
	for host, held := range state.Held {
		if _, is := wants[host]; !is && !later(held.Until) {
			plan.Ended = append(plan.Ended, host)
		}
	}
	for host := range state.Attempts {
		if _, is := wants[host]; !is {
			plan.Vain = append(plan.Vain, host)
		}
	}
	slices.Sort(plan.Ended)
	slices.Sort(plan.Vain)
	return plan
}

// renewal is when another one is ordered: after two thirds of its life, and up to a
// twentieth more, so that hosts that came together do not stay together.
func (h *Held) renewal(host string) time.Time {
	life := h.Until.Sub(h.From)
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(host)) // it never fails
	return h.From.Add(life/3*2 + life/20/1000*time.Duration(sum.Sum32()%1000))
}

// The pauses after failures: each is three times the one before, so that there are at
// most five in the first hour, which is what Let's Encrypt lets a host have.
const (
	firstPause = time.Minute
	lastPause  = 12 * time.Hour
)

// Next is when to try again after so many failures in a row, at least 1; asked is for
// how long the authority wants to be left alone, or 0.
func Next(failures int, asked time.Duration, now time.Time) time.Time {
	pause := firstPause
	for i := 1; i < failures && pause < lastPause; i++ {
		pause *= 3
	}
	return now.Add(max(min(pause, lastPause), asked))
}
