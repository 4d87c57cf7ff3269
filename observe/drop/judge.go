package drop

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/policy"
	"github.com/fairlead-net/fairlead/plan/service"
)

// Scene is what was known when a packet was denied.
type Scene struct {
	Node string
	Plan *plan.Node // nil: nothing yet
}

// Denied is a packet that was denied.
type Denied struct {
	Packet
	Time      time.Time
	Direction model.Direction
	Called    netip.AddrPort // what its connection was made to; invalid: not known
	By        *policy.Rule   // nil: not known any more
	Unfound   bool           // nothing denied it: what policies say was not found, and Direction is not known
}

// Judge says whose packet it was, and why it was denied. What is nearest to
// allowing it is said only if the plan still denies it by the same rule.
func (s Scene) Judge(d Denied) *Record {
	r := &Record{
		Time: d.Time, Node: s.Node, Direction: d.Direction.String(), Protocol: protocolName(d.Protocol), ICMP: d.ICMP,
		Source:      s.end(d.Source, d.SourcePort),
		Destination: s.end(d.Destination, d.DestinationPort),
	}
	if d.Called.IsValid() && d.ICMP == nil && d.Called != netip.AddrPortFrom(d.Destination, d.DestinationPort) {
		r.Called, r.Service = d.Called, s.service(d.Protocol, d.Called)
	}
	if r.Service == "" && d.Direction == model.Egress && d.ICMP == nil { // queries of DNS are denied before they are translated
		r.Service = s.service(d.Protocol, netip.AddrPortFrom(d.Destination, d.DestinationPort))
	}
	if d.Unfound {
		r.Unfound, r.Direction = true, ""
		return r
	}
	if d.By == nil {
		return r
	}
	by := policyOf(*d.By, d.Direction)
	r.Policy = &by
	if s.Plan == nil || s.Plan.Policy == nil {
		return r
	}
	at, peer := d.Destination, d.Source
	if d.Direction == model.Egress {
		at, peer = d.Source, d.Destination
	}
	why := s.Plan.Policy.Explain(policy.Subject{Direction: d.Direction, Address: at}, peer, d.Protocol, d.DestinationPort)
	if !why.Accept && why.By == *d.By && why.Nearest != nil {
		r.Nearest = &Nearest{policyOf(why.Nearest.Rule, d.Direction), why.Nearest.Differs.String()}
	}
	return r
}

func (s Scene) end(addr netip.Addr, port uint16) End {
	e := End{Address: addr, Port: port}
	if s.Plan == nil || s.Plan.Policy == nil {
		return e
	}
	pod := s.Plan.Policy.PodAt(addr)
	if pod == nil {
		return e
	}
	e.Namespace, e.Pod, e.Node, e.UID = pod.Namespace, pod.Name, pod.Node, pod.UID.String()
	for key, value := range pod.Labels.All() {
		if e.Labels == nil {
			e.Labels = map[string]string{}
		}
		e.Labels[key] = value
	}
	return e
}

// service is the one at an address; empty: none.
func (s Scene) service(protocol model.Protocol, at netip.AddrPort) string {
	if s.Plan == nil || s.Plan.Service == nil {
		return ""
	}
	if frontend, ok := s.Plan.Service.Frontends.Get(service.VIP{Protocol: protocol, At: at}); ok {
		return frontend.Port.Service.String()
	}
	return ""
}

const kindPod = "Pod"

func policyOf(rule policy.Rule, direction model.Direction) Policy {
	p := Policy{Kind: "NetworkPolicy", Tier: rule.Tier.String(), Namespace: rule.Policy.Namespace, Name: rule.Policy.Name}
	switch {
	case rule.Rule == policy.Unknown:
		p.Kind, p.Tier = kindPod, ""
	case rule.Tier != model.NamespaceTier:
		p.Kind = "ClusterNetworkPolicy"
	}
	if rule.Rule >= 0 {
		p.Rule, p.Field = rule.Rule+1, fmt.Sprintf("spec.%s[%d]", direction, rule.Rule)
	}
	return p
}
