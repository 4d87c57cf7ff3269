package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// Query is what pods ask for names: a port of the Service of DNS, at one of its
// addresses.
type Query struct {
	Protocol model.Protocol
	At       netip.AddrPort
}

func (q Query) String() string { return fmt.Sprintf("%s %s", q.Protocol, q.At) }

// nameserver is the Service of DNS as a peer. Who sends to it is judged as if the
// Service were a pod with the labels that it selects by, wherever queries are
// answered. It is immutable.
type nameserver struct {
	service *model.Service
	pod     *model.Pod // in the place of the Service, with its addresses and a name that no pod has
	shifts  []shift
}

// asService begins the name of what stands for a Service. No pod has such a name.
const asService = "service/"

// shift says that a port is judged as another one: that of the Service as that of
// its pods.
type shift struct {
	protocol model.Protocol
	from, to uint16
}

func (s shift) String() string { return fmt.Sprintf("%d/%s as %d", s.from, s.protocol, s.to) }

// findNameserver keeps the Service of DNS among the pods.
func (c *computation) findNameserver() {
	old, s := c.before.nameserver, c.nameservice()
	c.nameserver, c.queries = old, c.before.Queries
	if s == nil && old == nil || s != nil && old != nil && s == old.service && !c.moved(s) {
		return
	}
	next := c.newNameserver(s)
	if old.equal(next) {
		next.pod = old.pod // it is in place already
		c.nameserver = next
		return
	}
	c.nameserver, c.queries = next, next.queries()
	edit := func(pod *model.Pod, has bool) {
		of := space{}
		if known, ok := c.spaces.get(pod.Namespace); ok {
			of = *known
		}
		if of.pods = of.pods.Without(pod.Name); has {
			of.pods = of.pods.With(pod.Name, pod)
		}
		c.putSpace(pod.Namespace, of)
	}
	if old != nil {
		edit(old.pod, false)
		c.disown(old.pod, old.pod.Addresses)
	}
	if next != nil {
		edit(next.pod, true)
		c.own(next.pod, next.pod.Addresses)
	}
}

// nameservice is the Service of DNS; nil if there is none, or it selects nobody:
// then queries are judged as connections to any Service are.
func (c *computation) nameservice() *model.Service {
	if c.snapshot.Network == nil || c.before.idle {
		return nil
	}
	s, ok := c.snapshot.Services.Get(c.snapshot.Network.DNS.Service)
	if !ok || s.Serves == nil || len(s.ClusterIPs) == 0 {
		return nil
	}
	return s
}

// moved tells whether ports of the Service that have names may lead elsewhere.
func (c *computation) moved(s *model.Service) bool {
	if !slices.ContainsFunc(s.Serves.Ports, func(p model.ContainerPort) bool { return p.Port == 0 }) {
		return false
	}
	of := func(slice *model.EndpointSlice) bool {
		return slice.Namespace == s.Namespace && slice.Service == s.Name
	}
	for change := range model.Diff(c.before.from.Slices, c.snapshot.Slices) {
		if change.Had && of(change.Old) || change.Has && of(change.New) {
			return true
		}
	}
	return false
}

func (c *computation) newNameserver(s *model.Service) *nameserver {
	if s == nil {
		return nil
	}
	next := &nameserver{service: s, pod: &model.Pod{
		PodKey: model.PodKey{Namespace: s.Namespace, Name: asService + s.Name}, Addresses: s.ClusterIPs, Labels: s.Serves.Labels,
	}}
	for i, port := range s.Ports {
		target := s.Serves.Ports[i]
		if target.Port == 0 {
			target.Port = c.targetOf(s, &port)
		}
		for _, name := range []string{port.Name, target.Name} {
			if name != "" {
				next.pod.Ports = append(next.pod.Ports, model.ContainerPort{Name: name, Protocol: port.Protocol, Port: target.Port})
			}
		}
		if target.Port != port.Port {
			next.shifts = append(next.shifts, shift{port.Protocol, port.Port, target.Port})
		}
	}
	return next
}

// targetOf is where a port leads whose number only the pods know: as endpoints
// have it, the least if they differ, or else as the Service does.
func (c *computation) targetOf(s *model.Service, port *model.ServicePort) (least uint16) {
	for _, slice := range c.snapshot.Slices.All() {
		if slice.Namespace != s.Namespace || slice.Service != s.Name {
			continue
		}
		for _, target := range slice.Ports {
			if target.Name == port.Name && target.Protocol == port.Protocol && (least == 0 || target.Port < least) {
				least = target.Port
			}
		}
	}
	return cmp.Or(least, port.Port)
}

// equal tells whether nothing differs that anybody sees.
func (n *nameserver) equal(other *nameserver) bool {
	if n == nil || other == nil {
		return n == other
	}
	return n.pod.Equal(other.pod) && slices.Equal(n.shifts, other.shifts) && slices.Equal(n.service.Ports, other.service.Ports)
}

func (n *nameserver) queries() (all model.Map[Query, struct{}]) {
	if n == nil {
		return all
	}
	for _, addr := range n.service.ClusterIPs {
		for _, port := range n.service.Ports {
			all = all.With(Query{port.Protocol, netip.AddrPortFrom(addr, port.Port)}, struct{}{})
		}
	}
	return all
}

// Nameserver is the pod that the Service of DNS stands for at one of its addresses,
// and the port of it that a port of the Service means; nil if it is no query.
func (p *Plan) Nameserver(q Query) (stands *model.Pod, port uint16) {
	if _, is := p.Queries.Get(q); !is {
		return nil, 0
	}
	return p.nameserver.pod, p.nameserver.judged(q.At.Addr(), q.Protocol, q.At.Port())
}

// shiftsOf are those of a pod, which only the Service of DNS has.
func (n *nameserver) shiftsOf(pod *model.Pod) []shift {
	if n == nil || n.pod != pod {
		return nil
	}
	return n.shifts
}

// judged is the port that a query is judged as.
func (n *nameserver) judged(at netip.Addr, protocol model.Protocol, port uint16) uint16 {
	if n == nil || !slices.Contains(n.pod.Addresses, at) {
		return port
	}
	for _, s := range n.shifts {
		if s.protocol == protocol && s.from == port {
			return s.to
		}
	}
	return port
}

// shifted are the ports with what is said of others at some of them.
func (p *Ports) shifted(by []shift) *Ports {
	next := *p
	for _, s := range by {
		next.Ranges = next.without(s.protocol, s.from)
		if d := p.Decide(s.protocol, s.to); d != next.Default {
			next.Ranges = append(next.Ranges, PortRange{s.protocol, s.from, s.from, d})
		}
		slices.SortFunc(next.Ranges, func(a, b PortRange) int {
			if a.Protocol != b.Protocol {
				return int(a.Protocol) - int(b.Protocol)
			}
			return int(a.From) - int(b.From)
		})
	}
	return &next
}

// without are the ranges that leave a port out.
func (p *Ports) without(protocol model.Protocol, port uint16) (left []PortRange) {
	for _, r := range p.Ranges {
		if r.Protocol != protocol || port < r.From || r.To < port {
			left = append(left, r)
			continue
		}
		if below := r; below.From < port {
			below.To = port - 1
			left = append(left, below)
		}
		if above := r; port < above.To {
			above.From = port + 1
			left = append(left, above)
		}
	}
	return left
}
