package acme

import (
	"strings"
	"time"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/certificate"
)

// For how long all hosts wait after a failure: what an authority says may be of one
// host only.
const (
	leastRest = 10 * time.Second
	mostRest  = 15 * time.Minute
)

// rest is for how long nothing is asked of an authority.
type rest struct {
	options model.ACMEOptions // which mean it
	until   time.Time
	row     int     // failures of all hosts, one rest after the other
	last    failure // of all hosts; without a text: there is none
	limited string  // of which domain a host was limited last; empty: the last one was not
}

// rested tells whether the authority may be asked.
func (o *Orders) rested(view *View, now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.rest.options != view.Options { // it was another one that wanted to rest
		o.rest = rest{options: view.Options}
	}
	return !o.rest.until.After(now)
}

func (o *Orders) resting() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.rest.until
}

// troubled says what keeps all from being ordered, and what to do about it; empty:
// nothing.
func (o *Orders) troubled() (trouble, remedy string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.rest.last.text == "" {
		return "", ""
	}
	return o.rest.last.text, certificate.Remedy(o.rest.last.kind)
}

// heed has all hosts wait, if what has become of one means that they should: ever
// longer for failures of all, and as long as the authority says if it limits hosts of
// several domains. Most limits are of one domain, and others need not wait for it.
func (o *Orders) heed(options *model.ACMEOptions, host string, f *failure, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := &o.rest
	if r.options != *options {
		*r = rest{options: *options}
	}
	pause := time.Duration(0)
	switch domain := domainOf(host); {
	case f.ofAll:
		if r.row == 0 || !r.until.After(now) { // else it was under way as the first one failed
			r.row++
		}
		pause = max(f.pause, leastRest<<min(r.row-1, 10))
		r.last, r.limited = *f, ""
	case f.pause > 0:
		if pause = leastRest; r.limited != "" && r.limited != domain {
			pause = max(f.pause, leastRest)
		}
		r.row, r.last, r.limited = 0, failure{}, domain
	default:
		r.row, r.last, r.limited = 0, failure{}, ""
	}
	if until := now.Add(min(pause, mostRest)); pause > 0 && until.After(r.until) {
		r.until = until
	}
}

// domainOf is what limits are mostly of. That it is too short for some, such as co.uk,
// only has others wait less.
func domainOf(host string) string {
	if at := strings.LastIndexByte(host, '.'); at >= 0 {
		return host[strings.LastIndexByte(host[:at], '.')+1:]
	}
	return host
}
