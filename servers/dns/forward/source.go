package forward

import "github.com/fairlead-net/fairlead/servers/dns"

// attribute tells who wants to know who has answered a question.
func attribute(q dns.Question, by dns.By, from *upstream) {
	if q.Source == nil {
		return
	}
	*q.Source = dns.Source{By: by}
	if from == nil {
		return
	}
	q.Source.Upstream = from.to.String()
	if from.zone != rootName {
		q.Source.Zone = nameText(from.zone)
	}
}

// credit attributes an answer that has just come; nil: none has.
func credit(q dns.Question, a *answer) {
	switch {
	case a == nil:
		attribute(q, dns.ByNobody, nil)
	case a.from != nil:
		attribute(q, dns.ByUpstream, a.from)
	case a.failed():
		attribute(q, dns.ByNobody, nil)
	default:
		attribute(q, dns.ByServer, nil)
	}
}
