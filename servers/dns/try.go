package dns

import (
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/dns"
)

// Trial is a query that is tried, for who wants to know what becomes of it.
type Trial struct {
	Message      []byte     // as it would come by TCP, without its length
	Client       netip.Addr // who asks
	NoCompletion bool       // as if Served.Complete were not set

	// Seen is told of each name that is looked up among those of the cluster, in
	// their order.
	Seen func(name dns.Name, exists bool)
	// Find asks others, as Forwarder.Answer does; nil stands for a failure.
	Find func(Question) []byte
}

// Try answers a query as it would be, in the goroutine that calls it, and counts
// nothing. It returns nil if there is no answer: the message is no query, or who
// asks is no client.
func (s *Server) Try(t *Trial) []byte {
	served := *s.served.Load()
	if !served.allows(t.Client) {
		return nil
	}
	client := &Client{} // that of the pod counts
	if pod, ok := served.Pods.Get(t.Client); ok {
		client.Namespace, client.Name = pod.Namespace, pod.Name
	}
	served.Pods = model.Map[netip.Addr, *Client]{}
	served.Complete = served.Complete && !t.NoCompletion
	a := answering{
		q: &query{}, r: &reply{}, counts: &counts{}, others: client, random: 1,
		outside: trying{t.Find}, seen: t.Seen,
	}
	return a.message(&served, t.Message, asker{addr: t.Client, tcp: true}, nil)
}

// saw tells who wants to know of a name that was looked up.
func (a *answering) saw(name dns.Name, records *dns.Records) {
	if a.seen != nil {
		a.seen(cloneName(name), records != nil)
	}
}

// trying asks as a Trial says.
type trying struct{ ask func(Question) []byte }

func (t trying) find(q Question, into []byte) ([]byte, found) {
	q.Name = cloneName(q.Name)
	answer := t.ask(q)
	if answer == nil {
		return into, failed
	}
	return append(into, answer...), known
}
