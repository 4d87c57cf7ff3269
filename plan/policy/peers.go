package policy

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// peers are some that a rule names: one for all rules that name the same. They
// are immutable.
type peers struct {
	name   string // for people; no two that differ have the same
	anyone bool   // who has one of the ports that are named
	pods   *choice
	blocks []block
	domain string // a name, or a pattern of names
	nodes  *model.Selector
	names  []portName // of ports, of rules of egress: they are the peers'
}

// choice is of pods, by their namespaces' labels and their own.
type choice struct{ namespaces, pods selector }

// selector is a model.Selector with its text, which is costly to make.
type selector struct {
	text string
	*model.Selector
}

// block is of addresses.
type block struct {
	within netip.Prefix
	except []netip.Prefix
}

type portName struct {
	protocol model.Protocol
	name     string
}

func (n portName) String() string { return n.name + "/" + n.protocol.String() }

// namespaceName is the label that the API server gives each namespace.
const namespaceName = "kubernetes.io/metadata.name"

// peersOf are those of a rule: one for each choice of pods and each name, which
// many rules may have in common, and one for all blocks, of which there may be thousands.
// There are none if nobody has to be told apart: everyone fits, or nobody.
func peersOf(rule *model.PolicyRule, d model.Direction) (all []*peers) {
	var names []portName
	if d == model.Egress {
		names = namesIn(rule)
	}
	add := func(p *peers, name string) {
		p.name = brief(name)
		for i, name := range names {
			p.name += [...]string{" at ", ","}[min(i, 1)] + name.String()
		}
		p.names = names
		all = append(all, p)
	}
	if rule.Anyone {
		if len(names) > 0 {
			add(&peers{anyone: true}, "anyone")
		}
		return all
	}
	blocks, texts := &peers{}, []string{}
	for i := range rule.Peers {
		peer := &rule.Peers[i]
		switch {
		case peer.Block.IsValid():
			b := block{peer.Block, slices.SortedFunc(slices.Values(peer.Except), netip.Prefix.Compare)}
			blocks.blocks = append(blocks.blocks, b)
			texts = append(texts, b.String())
		case peer.Domain != "":
			add(&peers{domain: peer.Domain}, peer.Domain)
		case peer.Nodes != nil && possible(peer.Nodes):
			add(&peers{nodes: peer.Nodes}, nodesText(peer.Nodes))
		case peer.Namespaces != nil && peer.Pods != nil && possible(peer.Namespaces) && possible(peer.Pods):
			c := choice{selector{peer.Namespaces.String(), peer.Namespaces}, selector{peer.Pods.String(), peer.Pods}}
			add(&peers{pods: &c}, c.String())
		}
	}
	if len(texts) > 0 {
		slices.Sort(texts)
		add(blocks, strings.Join(slices.Compact(texts), " or "))
	}
	return sorted(all)
}

// namesIn are the names of ports in a rule, sorted.
func namesIn(rule *model.PolicyRule) (names []portName) {
	for _, port := range rule.Ports {
		if port.Name != "" {
			names = append(names, portName{port.Protocol, port.Name})
		}
	}
	slices.SortFunc(names, func(a, b portName) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(names)
}

// possible tells whether a selector could choose anything.
func possible(s *model.Selector) bool {
	return !slices.ContainsFunc(s.Requirements, func(r model.Requirement) bool { return r.Operator == model.Never })
}

func (c choice) String() string {
	pods := "pods " + c.pods.text
	if len(c.pods.Requirements) == 0 {
		pods = "all pods"
	}
	switch of := c.namespaces.Requirements; {
	case len(of) == 0:
		return pods
	case len(of) == 1 && of[0].Key == namespaceName && of[0].Operator == model.In && len(of[0].Values) == 1:
		return pods + " of " + of[0].Values[0]
	}
	return pods + " of namespaces " + c.namespaces.text
}

func (b block) String() string {
	text := b.within.String()
	for i, prefix := range b.except {
		text += [...]string{" except ", ","}[min(i, 1)] + prefix.String()
	}
	return text
}

// maxName is how long a name may become, in bytes, before it is cut short.
const maxName = 160

// brief cuts a long name short. What tells it from others then is a hash that
// nobody can find a second text for.
func brief(name string) string {
	if len(name) <= maxName {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return fmt.Sprintf("%s… (%x)", name[:maxName/2], sum[:16])
}

// contains tells whether an address is in one of the blocks.
func (p *peers) contains(addr netip.Addr) bool {
	return slices.ContainsFunc(p.blocks, func(b block) bool {
		return b.within.Contains(addr) && !slices.ContainsFunc(b.except, func(e netip.Prefix) bool { return e.Contains(addr) })
	})
}

// chooses tells whether a pod is one of them, of a namespace that is theirs.
func (p *peers) chooses(pod *model.Pod) bool {
	if p.anyone {
		return p.member(pod).ports != nil
	}
	return p.pods.pods.Matches(pod.Labels)
}

// member says that somebody is one of the peers.
type member struct {
	*peers
	ports []uint16 // numbers of the named ports, 0 for those that it lacks; nil: of none
}

// member is of a pod that is one of the peers.
func (p *peers) member(pod *model.Pod) member {
	m := member{peers: p}
	for i, name := range p.names {
		if number := numberOf(pod.Ports, name); number != 0 {
			if m.ports == nil {
				m.ports = make([]uint16, len(p.names))
			}
			m.ports[i] = number
		}
	}
	return m
}

// numberOf is the port that has a name; 0 if none has. Of several containers
// that give the name, the first one counts, as for Services.
func numberOf(ports []model.ContainerPort, name portName) uint16 {
	for _, port := range ports {
		if port.Name == name.name && port.Protocol == name.protocol {
			return port.Port
		}
	}
	return 0
}

// groupOf names those that are members of the same. The members are sorted by
// name.
func groupOf(all []member) Group {
	if len(all) == 1 && all[0].ports == nil {
		return Group(all[0].name)
	}
	var text strings.Builder
	for i, m := range all {
		if i > 0 {
			text.WriteString("; ")
		}
		text.WriteString(m.name)
		if m.ports != nil {
			fmt.Fprint(&text, " ", m.ports)
		}
	}
	return Group(brief(text.String()))
}
