package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// Explanation says why a connection is allowed or not.
type Explanation struct {
	Subject
	Decision
	// Accepted is the rule that accepts it; nil: none has to, or none does.
	Accepted *Rule
	// Nearest is the rule that would have accepted it with the least change; nil:
	// there is none, or it is accepted.
	Nearest *Near
}

// Near is a rule that accepts others.
type Near struct {
	Rule
	Differs Difference
}

// Difference is what keeps a rule from deciding, the least first.
type Difference uint8

// The differences.
const (
	Order        Difference = iota // it fits, and another is asked before
	Port                           // it fits the peer at another port
	Other                          // it fits the port of another peer
	OtherAndPort                   // it fits neither
)

func (d Difference) String() string {
	return [...]string{"it is asked later", "port differs", "peer differs", "peer and port differ"}[d]
}

// String is for people, such as: default deny by NetworkPolicy web/deny-all,
// direction ingress; nearest allow: NetworkPolicy web/allow-front: rule 1, port
// differs.
func (e Explanation) String() string {
	var text string
	switch {
	case e.Accepted != nil:
		return fmt.Sprintf("allowed by %s, direction %s", e.Accepted, e.Direction)
	case e.Accept:
		return fmt.Sprintf("allowed, direction %s: no policy forbids it", e.Direction)
	case e.By.Rule == Isolated:
		text = fmt.Sprintf("default deny by NetworkPolicy %s, direction %s", e.By.Policy, e.Direction)
	default:
		text = fmt.Sprintf("denied by %s, direction %s", e.By, e.Direction)
	}
	if e.Nearest != nil {
		text += fmt.Sprintf("; nearest allow: %s, %s", e.Nearest.Rule, e.Nearest.Differs)
	}
	return text
}

// Explain says what Decide does, and why. It knows only plans that Compute made.
func (p *Plan) Explain(at Subject, peer netip.Addr, protocol model.Protocol, port uint16) Explanation {
	e := Explanation{Subject: at, Decision: Decision{Accept: true}}
	s, known := p.subjects.Get(at.Address)
	if !known {
		return e
	}
	side := &s.profile.sides[at.Direction]
	if s.pod == nil {
		e.Decision = Decision{By: *side.isolated}
		return e
	}
	q := question{side, p.membersAt(s.pod, at.Address, peer), protocol, port}
	if side.calls {
		q.port = p.nameserver.judged(peer, protocol, port)
	}
	return q.explain(e, peer)
}

// Keeps tells whether a connection that there is may go on: if Decide accepts it, or
// did while a name led to the peer that does not any more. It knows only plans that
// Compute made.
func (p *Plan) Keeps(at Subject, peer netip.Addr, protocol model.Protocol, port uint16) bool {
	if p.Decide(at, peer, protocol, port).Accept {
		return true
	}
	if p.from == nil {
		return false
	}
	resolved, ok := p.from.Resolved.Get(peer)
	s, known := p.subjects.Get(at.Address)
	if _, owned := p.owners.Get(peer); !ok || len(resolved.Lapsed) == 0 || owned || !known || s.pod == nil {
		return false
	}
	host, _ := p.hosts.Get(peer)
	members := p.unowned().own(slices.Concat(resolved.Names, resolved.Lapsed), host, peer)
	if members == nil {
		return false
	}
	q := question{&s.profile.sides[at.Direction], members, protocol, port}
	return q.explain(Explanation{Subject: at, Decision: Decision{Accept: true}}, peer).Accept
}

// explain asks all tiers about a peer.
func (q *question) explain(e Explanation, peer netip.Addr) Explanation {
	if q.ask(model.AdminTier, &e) {
		return e
	}
	switch {
	case q.isolated == nil:
		q.ask(model.BaselineTier, &e)
	case peer != e.Address && !q.ask(model.NamespaceTier, &e):
		e.Decision = Decision{By: *q.isolated}
		e.Nearest = q.nearest(model.NamespaceTier)
	}
	return e
}

// membersAt are what a peer of a pod is a member of.
func (p *Plan) membersAt(pod *model.Pod, at, peer netip.Addr) []member {
	owner, owned := p.owners.Get(peer)
	if peer == at {
		owner, owned = pod, isPeer(pod)
	}
	if !owned {
		resolved, _ := p.from.Resolved.Get(peer)
		host, _ := p.hosts.Get(peer)
		return p.unowned().members(resolved, host, peer)
	}
	search := p.matcher.search(func(namespace string) model.Labels { return labelsOf(p.from, namespace) })
	members, _ := sign(p.blocks, search, owner, peer)
	return members
}

// PodAt is the pod that has an address and is known by it at the other end of a
// connection; nil if there is none. Where nothing is restricted, nobody is known.
func (p *Plan) PodAt(addr netip.Addr) *model.Pod {
	pod, _ := p.owners.Get(addr)
	if p.nameserver != nil && pod == p.nameserver.pod {
		return nil // it stands for a Service
	}
	return pod
}

// question is what a side is asked.
type question struct {
	*side
	members  []member
	protocol model.Protocol
	port     uint16
}

// ask goes through a tier, and tells whether it decides.
func (q *question) ask(tier model.Tier, e *Explanation) bool {
	for _, r := range q.tiers[tier] {
		if !q.fits(r) {
			continue
		}
		by := r.by
		switch r.action {
		case model.Accept:
			e.Accepted = &by
			return true
		case model.Deny:
			e.Decision, e.Nearest = Decision{By: by}, q.nearest(tier)
			return true
		}
		return false
	}
	return false
}

func (q *question) fits(r *rule) bool {
	f := r.fit(q.members)
	return f != nil && (f.any || q.fitsPort(f.ports))
}

func (q *question) fitsPort(ports []model.PolicyPort) bool {
	return slices.ContainsFunc(ports, func(p model.PolicyPort) bool {
		return p.Protocol == q.protocol && p.Name == "" && p.From <= q.port && q.port <= p.To
	})
}

// nearest finds the rule of a tier that accepts with the least change; of
// several, the first one.
func (q *question) nearest(tier model.Tier) (best *Near) {
	for _, r := range q.tiers[tier] {
		if r.action != model.Accept {
			continue
		}
		near := Near{r.by, OtherAndPort}
		switch f := r.fit(q.members); {
		case f != nil && q.fits(r):
			near.Differs = Order
		case f != nil:
			near.Differs = Port
		case r.any || q.fitsPort(r.ports):
			near.Differs = Other
		}
		if best == nil || near.Differs < best.Differs {
			best = &near
		}
	}
	return best
}

// Effective is a rule as it is for one pod, in words for people.
type Effective struct {
	By     Rule
	Action model.Action
	Peers  string
	Ports  string
}

func (e Effective) String() string {
	return fmt.Sprintf("%s %s at %s (%s)", e.Action, e.Peers, e.Ports, e.By)
}

// Effective are the rules of a pod of this node in one direction, as they are
// asked: those of tier NetworkPolicy together, and those of tier Baseline only
// if no NetworkPolicy selects the pod. isolated says who denies what they leave;
// nil: it is allowed.
func (p *Plan) Effective(at Subject) (rules []Effective, isolated *Rule) {
	s, known := p.subjects.Get(at.Address)
	if !known {
		return nil, nil
	}
	side := &s.profile.sides[at.Direction]
	for tier, of := range side.tiers {
		if model.Tier(tier) == model.BaselineTier && side.isolated != nil {
			continue
		}
		for _, r := range of {
			rules = append(rules, Effective{r.by, r.action, r.peersText(), r.portsText()})
		}
	}
	if side.isolated != nil {
		by := *side.isolated
		isolated = &by
	}
	return rules, isolated
}

func (r *rule) peersText() string {
	var names []string
	for _, p := range r.peers {
		names = append(names, p.name)
	}
	switch {
	case r.anyone:
		return "anyone"
	case len(names) == 0:
		return "nobody"
	}
	return strings.Join(names, " or ")
}

func (r *rule) portsText() string {
	var texts []string
	for _, p := range r.ports {
		switch {
		case p.Name != "":
			texts = append(texts, portName{p.Protocol, p.Name}.String())
		case p.From == 0 && p.To == 65535:
			texts = append(texts, p.Protocol.String())
		case p.From == p.To:
			texts = append(texts, fmt.Sprintf("%d/%s", p.From, p.Protocol))
		default:
			texts = append(texts, fmt.Sprintf("%d-%d/%s", p.From, p.To, p.Protocol))
		}
	}
	switch {
	case r.any:
		return "any port"
	case len(texts) == 0:
		return "no port"
	}
	return strings.Join(texts, ", ")
}
