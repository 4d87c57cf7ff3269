package dns

import "github.com/fairlead-net/fairlead/plan/dns"

// complete writes the answer to the first query of a search, if it is one: the
// name that the client would find in the end, and what that has. It does so in
// the client's place, which asks one time instead of eight. Where a step has no
// answer, nothing is said of those behind it: the query is answered as it is, and
// the client goes on by itself.
func (a *answering) complete(name dns.Name) (dns.Name, state) {
	if a.client.Namespace == "" || !a.served.Complete || a.served.Old || a.r.counts[inAnswer] > 0 || a.q.kind != typeA && a.q.kind != typeAAAA {
		return "", denied
	}
	steps := a.served.Zone.Complete(name, a.client.Namespace, a.served.Search)
	if len(steps) < 2 {
		return "", denied
	}
	for _, step := range steps[1:] {
		if _, ours := a.served.Zone.Authority(step); ours {
			records := a.served.Zone.Lookup(step)
			a.saw(step, records)
			if records == nil {
				continue
			}
			a.counts.completed.Add(1)
			a.completed = true
			a.r.pointing(name, typeCNAME, step, a.served.Zone.TTL)
			return step, chained
		}
		answer, fate := a.find(step)
		if fate == later {
			return "", waiting
		}
		if fate != known || len(answer) < headerSize {
			return "", denied
		}
		switch rcode(be.Uint16(answer[2:]) & maskRcode) {
		case nameError:
			continue
		case noError:
		default:
			return "", denied
		}
		a.counts.completed.Add(1)
		a.completed = true
		a.abroad = true
		a.r.pointing(name, typeCNAME, step, a.served.Zone.TTL)
		if !a.r.splice(answer) {
			a.r.fail(serverFailure)
		}
		return "", complete
	}
	return "", denied
}
