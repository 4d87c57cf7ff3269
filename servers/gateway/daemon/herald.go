package daemon

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	plan "github.com/fairlead-net/fairlead/plan/gateway"
)

// How long a problem has to last before an Event tells of it: manifests are applied
// one after the other, and pods that are replaced are nobody's concern.
const (
	settleTime        = 2 * time.Second
	endpointsMissTime = 20 * time.Second
)

// mostEvents are written at one look, with eventsPause between two such looks: the
// API server has to keep them all, for an hour by default.
const (
	mostEvents  = 20
	eventsPause = 10 * time.Second
)

// mostMessage is how long the message of an Event may be, in bytes.
const mostMessage = 1000

// matter is what one Event tells of: one kind of problem of an Ingress.
type matter struct {
	ingress model.IngressKey
	reason  string
}

// herald decides which Events are due, each once for each change. It is pure; the
// time is passed in. The zero value knows of nothing.
type herald struct {
	since map[matter]sighting
	told  map[matter]string // the message
	full  time.Time         // when there were more to write than at one look, last
}

// sighting is from when on a problem has had a message.
type sighting struct {
	message string
	at      time.Time
}

// due returns the Events to write, and when to ask again; zero: when something
// changes. What told is not called with is due the next time.
func (h *herald) due(problems []model.Problem, uid func(model.IngressKey) string, now time.Time) (events []kube.Event, again time.Duration) {
	if h.since == nil {
		h.since, h.told = map[matter]sighting{}, map[matter]string{}
	}
	soon := func(in time.Duration) {
		if again == 0 || in < again {
			again = in
		}
	}
	concerns := gather(problems)
	for m := range h.since {
		if _, still := concerns[m]; !still {
			delete(h.since, m)
			delete(h.told, m) // when it comes again, it is news
		}
	}
	for m, problem := range concerns {
		seen := h.since[m]
		if seen.message != problem.Message {
			seen = sighting{problem.Message, now}
			h.since[m] = seen
		}
		wait := settleTime
		if m.reason == "NoEndpoints" {
			wait = endpointsMissTime
		}
		id := uid(m.ingress)
		switch left := wait - now.Sub(seen.at); {
		case id == "" || h.told[m] == problem.Message:
		case left > 0:
			soon(left)
		default:
			events = append(events, eventOf(problem, id))
		}
	}
	if left := eventsPause - now.Sub(h.full); len(events) > 0 && left > 0 {
		events = nil
		soon(left)
	}
	slices.SortFunc(events, func(a, b kube.Event) int { return a.Problem.Compare(b.Problem) })
	if len(events) > mostEvents {
		events, h.full = events[:mostEvents], now
		soon(eventsPause)
	}
	return events, again
}

// wrote notes that an Event was written.
func (h *herald) wrote(event kube.Event) {
	m := matter{model.IngressKey{Namespace: event.Namespace, Name: event.Name}, event.Reason}
	h.told[m] = h.since[m].message
}

// eventOf is the Event of a problem. With another message it is another Event.
func eventOf(problem model.Problem, uid string) kube.Event {
	says := fnv.New64a()
	fmt.Fprint(says, problem.Message)
	return kube.Event{
		Problem: problem, UID: uid, APIVersion: "networking.k8s.io/v1", Again: fmt.Sprintf("%x", says.Sum64()),
	}
}

// gather makes one problem of all that are of one kind and Ingress: of the first,
// with the number of the others.
func gather(problems []model.Problem) map[matter]model.Problem {
	sorted := slices.Clone(problems)
	slices.SortFunc(sorted, model.Problem.Compare)
	concerns, more := map[matter]model.Problem{}, map[matter]int{}
	for _, p := range slices.Compact(sorted) {
		if p.Kind != "Ingress" {
			continue
		}
		m := matter{model.IngressKey{Namespace: p.Namespace, Name: p.Name}, p.Reason}
		if _, ok := concerns[m]; ok {
			more[m]++
			continue
		}
		if p.Field != "" {
			p.Message, p.Field = p.Field+": "+p.Message, ""
		}
		concerns[m] = p
	}
	for m, p := range concerns {
		if n := more[m]; n > 0 {
			p.Message += fmt.Sprintf(" (and %d more: fairlead ingress lint names them)", n)
		}
		if len(p.Message) > mostMessage {
			p.Message = p.Message[:mostMessage] + "…"
		}
		concerns[m] = p
	}
	return concerns
}

// ofIngresses turns problems of Secrets into those of the Ingresses that name them:
// who reads an Ingress is to see why it is not served as it says.
func ofIngresses(problems []model.Problem, table *plan.Table) []model.Problem {
	var uses map[plan.SecretKey][]plan.Use
	var all []model.Problem
	for _, p := range problems {
		if p.Kind != "Secret" {
			all = append(all, p)
			continue
		}
		if uses == nil {
			uses = table.Uses()
		}
		for _, use := range uses[plan.SecretKey{Namespace: p.Namespace, Name: p.Name}] {
			of := p
			of.Kind, of.Namespace, of.Name = "Ingress", use.Ingress.Namespace, use.Ingress.Name
			of.Field = cmp.Or(use.Field, p.Field)
			of.Message = fmt.Sprintf("Secret %s: %s", p.Name, p.Message)
			all = append(all, of)
		}
	}
	return all
}
