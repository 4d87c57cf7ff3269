package acme

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/fairlead-net/fairlead/plan/certificate"
)

// storeError says that a Secret could not be read or written: nothing can be ordered.
type storeError struct{ error }

func (e *storeError) Unwrap() error { return e.error }

// accountError says that the authority cannot be spoken with, or has no account of
// ours: other hosts fare no better.
type accountError struct{ error }

func (e *accountError) Unwrap() error { return e.error }

// failure is what an authority has said.
type failure struct {
	kind    string // the last part of its type of RFC 8555, section 6.7; empty: it has not said any
	text    string
	ofAll   bool          // other hosts fare no better
	unheard bool          // nothing was said of the host, since the authority has not heard of it
	late    bool          // it is not done yet, and may be gone on with
	pause   time.Duration // it wants to be left alone for; 0: it has not said so
}

// mostText is how much of a text of an authority is kept, in bytes.
const mostText = 500

// failureOf finds the words of the authority in an error. What differs each time, such
// as the URL of an order, is left out.
func failureOf(err error, now time.Time) failure {
	account := (*accountError)(nil)
	f := failure{text: err.Error()}
	f.unheard = errors.As(err, &account)
	var said *acme.Error
	var asked *url.Error
	var clock *clockError
	var authorization *acme.AuthorizationError
	var order *acme.OrderError
	switch {
	case errors.As(err, &authorization) && len(authorization.Errors) > 0:
		if !errors.As(authorization.Errors[0], &said) {
			f.text = authorization.Errors[0].Error()
		}
	case errors.As(err, &order):
		if said = order.Problem; said == nil {
			f.text = "the order is " + order.Status + ", and the authority does not say why"
		}
	case errors.As(err, &said):
		f.ofAll = said.StatusCode >= http.StatusInternalServerError
	case errors.As(err, &asked): // which may well be a DeadlineExceeded, of one request
		if !f.unheard {
			f.text = "the authority cannot be asked: " + asked.Err.Error()
		}
		f.unheard = true
	case errors.As(err, &clock):
		f.kind = certificate.OfClock
	case errors.Is(err, context.DeadlineExceeded):
		f.text, f.late = "the authority did not get done in time", true
	}
	f.ofAll = f.ofAll || f.unheard
	if said == nil {
		if f.text = clip(f.text); f.ofAll {
			f.kind = certificate.OfServer
		}
		return f
	}
	f.kind = said.ProblemType[strings.LastIndex(said.ProblemType, ":")+1:]
	f.text = said.Detail
	for _, sub := range said.Subproblems {
		f.text += "; " + sub.Detail
	}
	if f.text == "" {
		f.text = http.StatusText(said.StatusCode)
	}
	if f.kind != "" {
		f.text += " (" + f.kind + ")"
	}
	if f.kind == "" && f.ofAll {
		f.kind = certificate.OfServer
	}
	f.text, f.pause = clip(f.text), pauseOf(said.Header.Get("Retry-After"), now)
	if f.kind == "rateLimited" && f.pause == 0 {
		f.pause = time.Hour // the least that limits of authorities last
	}
	return f
}

// clip makes one short line of a text, since it is for Events.
func clip(text string) string {
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if len(text) > mostText {
		text = strings.ToValidUTF8(text[:mostText], "") + "…"
	}
	return text
}

// mostPause is what an authority may ask for; more would be as if it were for ever.
const mostPause = 7 * 24 * time.Hour

// pauseOf reads a field Retry-After (RFC 9110, section 10.2.3).
func pauseOf(field string, now time.Time) time.Duration {
	pause := time.Duration(0)
	if seconds, err := strconv.ParseInt(field, 10, 32); err == nil {
		pause = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(field); err == nil {
		pause = at.Sub(now)
	}
	return min(max(pause, 0), mostPause)
}
