package policy

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
	plan "github.com/fairlead-net/fairlead/plan/policy"
)

// Verdicts.
const (
	Allowed = "allowed"
	Denied  = "denied"
)

// Query is a connection that somebody asks about.
type Query struct {
	From, To  string       // a pod, a node, an address; To: a Service, or domain/NAME of the outside, too
	Addresses []netip.Addr // that the name of To leads to
	Namespace string       // of what is named without
	Port      Port
}

// Explanation is what policies say of a connection, by each way that it may
// take. It only grows.
type Explanation struct {
	Verdict     string       `json:"verdict"` // denied if one of the ways is
	From        End          `json:"from"`
	To          End          `json:"to"`
	Connections []Connection `json:"connections"` // one of each family, and of each endpoint of a Service
	Notes       []string     `json:"notes,omitempty"`
}

// Connection is one that may be made.
type Connection struct {
	Verdict     string         `json:"verdict"`
	Source      netip.Addr     `json:"source"`
	Destination netip.AddrPort `json:"destination"` // port 0 of protocols without ports
	Protocol    string         `json:"protocol"`
	To          string         `json:"to"`               // who has the destination
	SeenAs      *netip.Addr    `json:"seenAs,omitempty"` // the source that ingress is judged by, if it is another
	Egress      Side           `json:"egress"`
	Ingress     Side           `json:"ingress"`
}

// Side is what the policies of one end say.
type Side struct {
	Verdict string `json:"verdict"`
	// Exempt is why no policy is asked; empty: they are.
	Exempt string `json:"exempt,omitempty"`
	// By is the rule that decides; nil: none does, since nothing isolates the pod
	// and it is allowed, or no rule of IsolatedBy allows it.
	By         *Rule    `json:"rule,omitempty"`
	IsolatedBy []string `json:"isolatedBy,omitempty"` // NetworkPolicies that select the pod in this direction
	// Unknown says that the pod is not known, and may therefore do nothing.
	Unknown bool   `json:"unknown,omitempty"`
	Nearest *Rule  `json:"nearest,omitempty"` // that would have allowed it with the least change
	Differs string `json:"differs,omitempty"` // of Nearest
	// Peer is what a rule sees of the other end, if Nearest is for another: the
	// labels of a pod, and its namespace.
	Peer string `json:"peer,omitempty"`
}

// way is a connection before it is judged.
type way struct {
	from, to End
	source   netip.Addr // as the sender has it
	seenAs   netip.Addr // as the other end's policies see it
	at       netip.AddrPort
	called   netip.AddrPort // the Service that leads to it; invalid: none does
	protocol model.Protocol
}

// Explain says whether policies allow a connection, and by which rules. An
// Untold is what the user has to mend.
func Explain(snapshot *model.Snapshot, q Query) (*Explanation, error) {
	f := &finder{snapshot, q.Namespace}
	if s, _, err := f.service(q.From); err != nil || s != nil {
		return nil, &Untold{fmt.Sprintf("--from %s is a Service: it sends nothing", q.From), "name the pod that sends"}
	}
	from, err := f.find(q.From)
	if err != nil {
		return nil, err
	}
	service, addresses, err := f.service(q.To)
	if err != nil {
		return nil, err
	}
	e := &Explanation{Verdict: Allowed, From: from}
	var ways []way
	if service != nil {
		e.To = End{Kind: OfService, Name: service.String(), Addresses: addresses}
		ways, err = f.served(e, service, q.Port)
	} else if e.To, err = f.end(&q); err == nil {
		snapshot = f.Snapshot
		ways, err = direct(from, e.To, q.Port)
	}
	if err != nil {
		return nil, err
	}
	if len(ways) == 0 {
		return nil, &Untold{fmt.Sprintf("%s and %s have no addresses of the same family", e.From.Name, e.To.Name), "kubectl get pods,services,nodes -A -o wide shows what they have"}
	}
	var pods []*model.Pod
	for _, w := range ways {
		for _, end := range []End{w.from, w.to} {
			if end.pod != nil && !slices.Contains(pods, end.pod) {
				pods = append(pods, end.pod)
			}
		}
	}
	known, err := newWorld(snapshot, pods)
	if err != nil {
		return nil, err
	}
	for _, w := range ways {
		if pod, _ := known.plan.Nameserver(plan.Query{Protocol: w.protocol, At: w.called}); pod != nil && e.Notes == nil && w.from.pod != nil {
			e.Notes = []string{fmt.Sprintf("queries of DNS are judged as if sent to a pod with %s of %s, as the Service selects, wherever they are answered", pod.Labels, pod.Namespace)}
		}
		c := known.judge(w)
		if c.Verdict == Denied {
			e.Verdict = Denied
		}
		e.Connections = append(e.Connections, c)
	}
	e.Notes = append(e.Notes, e.namedElsewhere(snapshot)...)
	return e, nil
}

// direct are the ways to an end by its own addresses, the first of each family.
func direct(from, to End, port Port) (ways []way, err error) {
	protocol, number, err := port.of(to)
	if err != nil {
		return nil, err
	}
	for _, family := range model.Families {
		source, target := first(from.Addresses, family), first(to.Addresses, family)
		if source.IsValid() && target.IsValid() {
			ways = append(ways, way{from: from, to: to, source: source, seenAs: source, at: netip.AddrPortFrom(target, number), protocol: protocol})
		}
	}
	return ways, nil
}

// first is the first address of a family; invalid if there is none.
func first(of []netip.Addr, family model.Family) netip.Addr {
	for _, addr := range of {
		if model.FamilyOf(addr) == family {
			return addr
		}
	}
	return netip.Addr{}
}

// judge asks the policies of both ends.
func (w *world) judge(of way) Connection {
	c := Connection{Verdict: Allowed, Source: of.source, Destination: of.at, Protocol: protocolName(of.protocol), To: of.to.Name}
	if of.seenAs != of.source {
		c.SeenAs = &of.seenAs
	}
	c.Egress.Verdict, c.Ingress.Verdict = Allowed, Allowed
	if of.from.pod != nil && of.from.pod == of.to.pod && !of.called.IsValid() {
		c.Egress.Exempt = "it does not leave the pod"
		c.Ingress.Exempt = c.Egress.Exempt
		return c
	}
	if c.Egress.Exempt = exempt(of.from); c.Egress.Exempt == "" {
		c.Egress = w.egress(of)
	}
	c.Ingress.Exempt = exempt(of.to)
	if c.Ingress.Exempt == "" && of.from.Kind == OfNode && of.from.Node == of.to.Node {
		c.Ingress.Exempt = "a node reaches its own pods, whatever policies say, so that the kubelet's probes do"
	}
	if c.Ingress.Exempt == "" {
		c.Ingress = w.side(plan.Subject{Direction: model.Ingress, Address: of.at.Addr()}, of.to.pod, netip.AddrPortFrom(of.seenAs, of.at.Port()), of)
	}
	if c.Egress.Verdict == Denied || c.Ingress.Verdict == Denied {
		c.Verdict = Denied
	}
	return c
}

// egress is judged by who answers, but that of queries by the Service of DNS.
func (w *world) egress(of way) Side {
	if pod, port := w.plan.Nameserver(plan.Query{Protocol: of.protocol, At: of.called}); pod != nil {
		of.to.pod, of.at = pod, netip.AddrPortFrom(of.called.Addr(), port)
	} else {
		of.called = of.at
	}
	return w.side(plan.Subject{Direction: model.Egress, Address: of.source}, of.from.pod, of.called, of)
}

// exempt says why an end has no policies; empty: it may have.
func exempt(end End) string {
	switch {
	case end.HostNetwork:
		return "it has its node's network, and no policy is for nodes"
	case end.Kind == OfNode:
		return "no policy is for nodes"
	case end.pod == nil:
		return "it is no pod of the cluster"
	}
	return ""
}

func protocolName(p model.Protocol) string {
	if p == icmp {
		return "ICMP"
	}
	return p.String()
}

// side explains one direction of a pod: the other end, and the port.
func (w *world) side(at plan.Subject, pod *model.Pod, peer netip.AddrPort, of way) Side {
	why := w.plan.Explain(at, peer.Addr(), of.protocol, peer.Port())
	side := Side{Verdict: Allowed, IsolatedBy: isolating(w.snapshot, pod, at.Direction)}
	if !why.Accept {
		side.Verdict = Denied
	}
	fit := asked{w.snapshot, at.Direction, peerOf(w.snapshot, peer.Addr(), of), of}
	switch {
	case why.Accepted != nil:
		side.By = fit.rule(*why.Accepted)
	case why.By.Rule == plan.Unknown:
		side.Unknown = true
	case !why.Accept && why.By.Rule >= 0:
		side.By = fit.rule(why.By)
	}
	if why.Nearest != nil {
		side.Nearest, side.Differs = fit.rule(why.Nearest.Rule), why.Nearest.Differs.String()
		if why.Nearest.Differs >= plan.Other && fit.peer.pod != nil {
			side.Peer = fit.peer.String()
		}
	}
	return side
}
