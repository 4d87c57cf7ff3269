package trace

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/observe/service"
	"github.com/fairlead-net/fairlead/plan"
	planned "github.com/fairlead-net/fairlead/plan/service"
)

// Service is what becomes of a packet to an address of a Service, in a plan or
// in a kernel, which has no names.
type Service struct {
	Name    string   `json:"name,omitempty"`    // NAMESPACE/NAME; empty in a plan: no Service has this address and port
	Kind    string   `json:"kind,omitempty"`    // of the address: ClusterIP …
	Inside  bool     `json:"inside,omitempty"`  // it is answered as pods and this node are
	Do      string   `json:"do"`                // service.Forward, Refuse or Drop
	Why     string   `json:"why,omitempty"`     // it is not forwarded
	Choices []Choice `json:"choices,omitempty"` // where it may go, each as likely as the others
	Holes   int      `json:"holes,omitempty"`   // choices of the kernel that lead nowhere
	Unfit   string   `json:"unfit,omitempty"`   // why the endpoint that is asked for is none of the choices
}

// Choice is an endpoint.
type Choice struct {
	Address netip.AddrPort `json:"address"`
	Node    string         `json:"node,omitempty"` // empty: not known
}

// Led is where a Service has led a packet.
type Led struct {
	Node    string         `json:"node"`    // translates the packet, and gives its answer the address back
	Service string         `json:"service"` // NAMESPACE/NAME; empty: not known
	Address netip.AddrPort `json:"address"` // that the packet was sent to
	Kind    string         `json:"kind,omitempty"`
	Choices []Choice       `json:"choices"`      // where it might as well have gone
	To      netip.AddrPort `json:"to"`           // that it was led to
	End     End            `json:"end,omitzero"` // who has that; zero: it has not arrived
}

// HeldService is what a kernel holds, for a packet from inside or outside.
func HeldService(held *planned.Held, inside bool) *Service {
	if held == nil {
		return nil
	}
	answer := held.Outside
	if inside {
		answer = held.Inside
	}
	s := &Service{Do: service.Do(answer.Do), Inside: inside, Holes: answer.Holes}
	for _, target := range answer.Targets {
		s.Choices = append(s.Choices, Choice{Address: target})
	}
	return s
}

// expectService is what a plan makes of a packet; nil if it is no business of
// Services. Backend is the endpoint that the packet is to be led to; invalid:
// any. Its port may be 0. The second value is its choice for that.
func expectService(node *plan.Node, packet plan.Packet, backend netip.AddrPort) (*Service, netip.AddrPort) {
	frontend, answer := plan.Served(node, packet)
	if answer.Do == 0 {
		return nil, netip.AddrPort{}
	}
	s := &Service{Do: service.Do(answer.Do)}
	at := netip.AddrPortFrom(packet.Destination, packet.Port)
	switch {
	case frontend == nil && answer.Do == planned.Reject:
		s.Why = fmt.Sprintf("%s is a ClusterIP, and its Service has no port %d of %s", packet.Destination, packet.Port, packet.Protocol)
		return s, netip.AddrPort{}
	case frontend == nil && packet.Destination.IsLoopback():
		s.Why = fmt.Sprintf("%s is the loopback interface of %s, where nothing is let in from elsewhere (CVE-2020-8558)", packet.Destination, node.Name)
		return s, netip.AddrPort{}
	case frontend == nil:
		s.Why = fmt.Sprintf("%s is in a ServiceCIDR, and no Service has it", packet.Destination)
		return s, netip.AddrPort{}
	}
	s.Name, s.Kind, s.Inside = frontend.Port.Service.String(), frontend.Kind.String(), answer == frontend.Inside
	if !frontend.Allows(packet.Source) {
		s.Why = fmt.Sprintf("spec.loadBalancerSourceRanges of Service %s does not have %s", s.Name, packet.Source)
		return s, netip.AddrPort{}
	}
	s.Why = node.Service.WhyNot(frontend.Port, answer)
	reasons := node.Service.Why(frontend.Port)
	for _, target := range plan.Choices(node, packet) {
		choice := Choice{Address: target}
		if i := slices.IndexFunc(reasons, func(r planned.Reason) bool { return r.Target == target }); i >= 0 {
			choice.Node = reasons[i].Node
		}
		s.Choices = append(s.Choices, choice)
	}
	if !backend.IsValid() || answer.Do != planned.Forward {
		return s, netip.AddrPort{}
	}
	if i := slices.IndexFunc(s.Choices, func(c Choice) bool { return fits(c.Address, backend) }); i >= 0 {
		return s, s.Choices[i].Address
	}
	s.Unfit = fmt.Sprintf("it is no endpoint of %s for %s", s.Name, at)
	if i := slices.IndexFunc(reasons, func(r planned.Reason) bool { return fits(r.Target, backend) }); i >= 0 {
		s.Unfit = reasons[i].Why
		if answer.Local && !reasons[i].Local {
			s.Unfit += ", but not on this node, and only such may be used (policy Local)"
		}
	}
	return s, netip.AddrPort{}
}

// fits tells whether an endpoint is the one that is asked for.
func fits(at, asked netip.AddrPort) bool {
	return at == asked || asked.Port() == 0 && at.Addr() == asked.Addr()
}

// translated is where the node leads the packet instead; invalid: nowhere.
func (v *visit) translated() netip.AddrPort {
	if v.plan != nil {
		return v.plan.Translated
	}
	return v.kernel.Translated
}

// serve shows what a Service makes of the packet, and tells whether it goes on.
func (v *visit) serve() bool {
	held, at := v.kernel.Service, netip.AddrPortFrom(v.q.To, v.q.Port)
	if v.plan != nil && v.plan.Here {
		v.line(Line{Where: v.place.Name, Way: fmt.Sprintf("%s: answered by the DNS server of %s itself", at, v.place.Name)})
		return true
	}
	var want *Service
	if v.plan != nil {
		want = v.plan.Service
	}
	known := want
	if known == nil {
		known = held
	}
	if known == nil {
		return v.unserved(at)
	}
	line := Line{Where: v.place.Name, Way: serviceText(known, at, v.translated())}
	line.Findings = v.refused(known, at)
	if want != nil && known.Why == "" && known.Unfit == "" {
		line.Findings = append(line.Findings, v.compareService(want, held)...)
	}
	v.line(line)
	to := v.translated()
	if line.effect() == Breaks || !to.IsValid() {
		return false
	}
	v.path.Service = &Led{Node: v.place.Name, Service: known.Name, Address: at, Kind: known.Kind, Choices: known.Choices, To: to}
	return true
}

// unserved is about an address of a Service that is none to this node.
func (v *visit) unserved(at netip.AddrPort) bool {
	if v.trip.To.Service == "" || v.path.Service != nil || v.q.To != v.trip.To.Address || v.plan == nil {
		return true
	}
	v.line(Line{Where: v.place.Name, Way: at.String(), Findings: []Finding{{
		Effect: Harms, What: fmt.Sprintf("to the agent of %s, %s is no address of a Service: the packet goes on as it is", v.place.Name, at),
		Next: v.show(v.trip.To.Service),
	}}})
	return true
}

func (v *visit) show(name string) string {
	return fmt.Sprintf("fairlead service show %s --node %s", name, v.place.Name)
}

// refused is about a packet that the Service does not lead on.
func (v *visit) refused(s *Service, at netip.AddrPort) []Finding {
	next := "fairlead service list -A"
	if s.Name != "" {
		next = v.show(s.Name)
	}
	why := ""
	if s.Why != "" {
		why = ": " + s.Why
	}
	switch {
	case s.Do == service.Refuse:
		return []Finding{{Effect: Breaks, What: fmt.Sprintf("%s refuses connections to %s%s", v.place.Name, at, why), Next: next}}
	case s.Do == service.Drop:
		return []Finding{{Effect: Breaks, What: fmt.Sprintf("%s drops connections to %s%s", v.place.Name, at, why), Next: next}}
	case s.Unfit != "":
		return []Finding{{Effect: Breaks, What: fmt.Sprintf("%s does not lead %s to the endpoint that is asked for: %s", v.place.Name, at, s.Unfit), Next: next}}
	}
	return nil
}

// compareService compares what the kernel has with the plan.
func (v *visit) compareService(want, held *Service) []Finding {
	finding := Finding{Effect: Breaks, Plan: wordOf(want), Kernel: "none", Next: v.repair()}
	switch {
	case !v.kernel.Tables:
		finding.What = fmt.Sprintf("the table inet fairlead of nftables is not on %s: addresses of Services lead nowhere", v.place.Name)
		finding.Plan = "table inet fairlead"
		return []Finding{finding}
	case held == nil:
		finding.What = fmt.Sprintf("the maps of nftables on %s do not have the address: it leads nowhere", v.place.Name)
		return []Finding{finding}
	case held.Do != want.Do:
		finding.What, finding.Kernel = fmt.Sprintf("the maps of nftables on %s say another thing", v.place.Name), wordOf(held)
		return []Finding{finding}
	}
	difference := service.Difference(addressesOf(want.Choices), addressesOf(held.Choices), held.Holes)
	if difference == "" {
		return nil
	}
	finding.Kernel = wordOf(held) + ", " + difference
	finding.What, finding.Effect = fmt.Sprintf("the maps of nftables on %s lead to other endpoints than planned", v.place.Name), Harms
	if !slices.ContainsFunc(held.Choices, func(c Choice) bool { return c.Address == v.translated() }) {
		finding.Effect = Breaks
	}
	return []Finding{finding}
}

func addressesOf(choices []Choice) (all []netip.AddrPort) {
	for _, choice := range choices {
		all = append(all, choice.Address)
	}
	return all
}

func wordOf(s *Service) string {
	switch s.Do {
	case service.Refuse:
		return "refused"
	case service.Drop:
		return "dropped"
	}
	return fmt.Sprintf("1 of %d", len(s.Choices)+s.Holes)
}

// serviceText is such as "10.96.0.1:80 is Service default/web (ClusterIP): to
// 10.244.2.3:8080, one of 3".
func serviceText(s *Service, at, to netip.AddrPort) string {
	text := at.String()
	switch {
	case s.Name != "":
		text += fmt.Sprintf(" is Service %s (%s)", s.Name, s.Kind)
	case s.Do != service.Forward:
		return text
	}
	switch {
	case !to.IsValid():
		return text
	case len(s.Choices) == 1:
		return fmt.Sprintf("%s: to %s", text, to)
	default:
		return fmt.Sprintf("%s: to %s, one of %d", text, to, len(s.Choices))
	}
}

// mostOthers are named of the endpoints that a packet might have gone to.
const mostOthers = 5

// others are the endpoints that the packet might as well have gone to; empty if
// there are none.
func (l *Led) others() string {
	var all []string
	for _, choice := range l.Choices {
		if choice.Address == l.To {
			continue
		}
		text := choice.Address.String()
		if choice.Node != "" {
			text += " on " + choice.Node
		}
		all = append(all, text)
	}
	if more := len(all) - mostOthers; more > 0 {
		all = append(all[:mostOthers], fmt.Sprintf("%d more", more))
	}
	return strings.Join(all, ", ")
}
