package trace

import (
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
)

// End is where a packet comes from or goes to.
type End struct {
	Name    string     `json:"name"`           // NAMESPACE/POD, node/NAME, or the address
	Node    string     `json:"node,omitempty"` // empty: outside of the cluster
	Address netip.Addr `json:"address"`
	Pod     bool       `json:"pod,omitempty"` // it has a link of its own to its node

	Service string `json:"service,omitempty"` // NAMESPACE/NAME, if the address is one that it has everywhere
}

// Trip is what Walk follows.
type Trip struct {
	From, To End
	Protocol model.Protocol // of Port
	Port     uint16         // of To; 0: none, as in a ping
	Backend  netip.AddrPort // that a Service is to lead it to; see Question
	Reply    bool           // see Question
}

// Place is a node that can be on the way.
type Place struct {
	*model.Node
	Agent   string // the name of its agent's pod; may be empty
	Trouble string // why it cannot be asked; empty: it can
	Next    string // what to do about that

	Problems []model.Problem // that its agent reports, and that concern all that passes there
}

// Ask asks a node, by whatever way. What it wraps in an Unasked is said as such.
type Ask func(node string, q Question) (*Answer, error)

// Unasked is an error of Ask that knows what to do next.
type Unasked struct {
	Err  error
	Next string
}

func (u *Unasked) Error() string { return u.Err.Error() }

func (u *Unasked) Unwrap() error { return u.Err }

// Outcome is how a path ends.
type Outcome string

// The outcomes.
const (
	Arrives Outcome = "arrives"
	Leaves  Outcome = "leaves"  // the cluster, as it should: nobody can look further
	Stops   Outcome = "stops"   // or goes astray
	Unknown Outcome = "unknown" // a node on the way cannot be asked
)

// Path is the way of a packet. It only grows.
type Path struct {
	From    End        `json:"from"`
	To      End        `json:"to"`
	Outcome Outcome    `json:"outcome"`
	MTU     int        `json:"mtu,omitempty"`     // bytes of the largest packet that fits everywhere, as far as it was followed
	Differs bool       `json:"differs,omitempty"` // a kernel is not as its plan
	As      End        `json:"as,omitzero"`       // it arrives with this source, or at this destination's pod; zero: it is not translated
	Source  netip.Addr `json:"source,omitzero"`   // that it arrives with; invalid if nobody can tell
	Service *Led       `json:"service,omitempty"` // that has led it on; nil: none
	Lines   []Line     `json:"lines"`
	Reports []Report   `json:"reports,omitempty"` // of the agents on the way: what is not followed here may be in them

	Firewalls []Firewall `json:"firewalls,omitempty"` // of other programs on the way, which are not followed
}

// Firewall is what other programs have on a node that may drop the packet.
type Firewall struct {
	Node   string   `json:"node"`
	Chains []string `json:"chains,omitempty"` // that drop some packets, as nft names them
	Legacy []string `json:"legacy,omitempty"` // commands that list tables of iptables-legacy
	Error  string   `json:"error,omitempty"`  // why that is not all
}

// Report is what an agent on the way has reported of its node.
type Report struct {
	Node    string `json:"node"`
	Problem string `json:"problem"`
	Next    string `json:"next,omitempty"`
}

// Line is one interface on the way.
type Line struct {
	Where    string    `json:"where"` // the name of a node or a pod
	Device   string    `json:"device,omitempty"`
	MTU      int       `json:"mtu,omitempty"` // bytes that fit here
	Way      string    `json:"way"`           // such as "10.244.2.0/24 via 10.244.2.0 lladdr 02:…"
	Findings []Finding `json:"findings,omitempty"`

	headers int // bytes that a tunnel has put around the packet here
}

// Finding is what is wrong at a line.
type Finding struct {
	Effect Effect `json:"effect"`
	What   string `json:"what"`
	Plan   string `json:"plan,omitempty"`   // what the plan says, if that is another thing
	Kernel string `json:"kernel,omitempty"` // than the kernel does
	Next   string `json:"next,omitempty"`   // what to do
}

// Effect is what a finding means to the packet.
type Effect string

// The effects, the worst first.
const (
	Breaks  Effect = "breaks"  // it does not get past here
	Unclear Effect = "unclear" // nobody can tell
	Harms   Effect = "harms"   // it gets through, but the kernel is not as planned, or large packets do not
)

// effect is the worst of a line; empty if nothing is wrong.
func (l *Line) effect() (worst Effect) {
	for _, effect := range []Effect{Harms, Unclear, Breaks} {
		for _, finding := range l.Findings {
			if finding.Effect == effect {
				worst = effect
			}
		}
	}
	return worst
}

// settle draws the sum of the lines.
func (p *Path) settle(reached Outcome) *Path {
	p.Outcome = reached
	for i := range p.Lines {
		line := &p.Lines[i]
		switch effect := line.effect(); {
		case effect == Breaks:
			p.Outcome = Stops
		case effect == Unclear && p.Outcome != Stops:
			p.Outcome = Unknown
		}
		for _, finding := range line.Findings {
			p.Differs = p.Differs || finding.Plan != "" || finding.Kernel != ""
		}
		if fits := line.MTU - line.headers; line.MTU != 0 && (p.MTU == 0 || fits < p.MTU) {
			p.MTU = fits
		}
	}
	return p
}

// Return is the trip of the answer. It is false if there is nothing to follow:
// the packet does not arrive, leaves the cluster, or goes to a pod by a host port,
// so that the answer goes where the connection's entry tells. Of what several
// nodes have given an address of theirs, it is the way to the last of them.
func (p *Path) Return() (Trip, bool) {
	if p.Outcome != Arrives || p.As.Pod || !p.Source.IsValid() {
		return Trip{}, false
	}
	back := Trip{From: p.To, To: p.From, Reply: true}
	if p.Service != nil {
		back.From = p.Service.End
	}
	if p.As.Address.IsValid() {
		back.To = p.As
	}
	if !back.From.Pod {
		back.From.Address = netip.Addr{}
	}
	back.To.Address = p.Source
	return back, true
}
