package policy

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// claimants are attachments of one address.
type claimants struct{ all []*model.Attachment }

// subject is an address of a pod of this node. It is immutable.
type subject struct {
	who     model.PodKey
	pod     *model.Pod                 // nil: not known
	key     profileKey                 // of the pod
	profile *profile                   // as it was planned last
	itself  [len(model.Directions)]Row // empty: that of others
	among   Group                      // what its pod was a member of then
}

// expected is a pod that was given to this node, which is going to connect it: what its
// policies need of others is in the kernel by then, as a container runtime takes longer
// to come to CNI ADD than a plan does. It is immutable.
type expected struct {
	pod *model.Pod
	key profileKey
}

// expect notes a pod that is this node's, or forgets one that is not any more.
func (c *computation) expect(name model.PodKey, pod *model.Pod) {
	if pod != nil && pod.Node == c.node && isPeer(pod) {
		c.expected.put(name, &expected{pod, keyOf(pod)})
	} else if _, known := c.expected.get(name); known {
		c.expected.remove(name)
	}
}

// unknown is the profile of pods that are not known: what they do is denied.
func (c *computation) unknown(who model.PodKey) *profile {
	p := &profile{unknown: who}
	for d := range p.sides {
		p.sides[d].isolated = &Rule{Policy: model.PolicyKey(who), Rule: Unknown}
		p.sides[d].cells = p.sides[d].cells.With(Others, c.row(&p.sides[d], &group{}, false))
	}
	return p
}

// claim notes or forgets that an attachment has an address.
func (c *computation) claim(addr netip.Addr, a *model.Attachment, on bool) {
	next := &claimants{}
	if known, ok := c.claims.get(addr); ok {
		next.all = slices.DeleteFunc(slices.Clone(known.all), func(other *model.Attachment) bool { return other == a })
	}
	if on {
		next.all = append(next.all, a)
	}
	if len(next.all) == 0 {
		c.claims.remove(addr)
	} else {
		c.claims.put(addr, next)
	}
	c.reselect[addr] = struct{}{}
}

// touchSubject looks again at a pod of this node.
func (c *computation) touchSubject(key model.PodKey) {
	if at, ok := c.here.get(key); ok {
		for _, addr := range at.addresses {
			c.reselect[addr.Addr] = struct{}{}
		}
	}
}

// planSubjects finds which pod has an address, of those that changed.
func (c *computation) planSubjects() {
	for addr := range c.reselect {
		claims, ok := c.claims.get(addr)
		if !ok {
			c.dropSubject(addr)
			continue
		}
		c.planSubject(addr, claims.all)
	}
}

func (c *computation) planSubject(addr netip.Addr, claims []*model.Attachment) {
	a := slices.MinFunc(claims, c.compareClaims)
	next := &subject{who: a.Pod}
	if pod := c.snapshot.PodOf(a, c.node); pod != nil {
		next.pod, next.key = pod, keyOf(pod)
	}
	if next.pod != nil && next.pod.HostNetwork {
		c.dropSubject(addr)
		return
	}
	if old, ok := c.subjects.get(addr); ok {
		next.profile, next.itself, next.among = old.profile, old.itself, old.among
	}
	c.subjects.put(addr, next)
}

// compareClaims orders attachments that have the same address: the first has
// it. That is one whose pod runs; and one whose pod may be running goes before
// one whose pod has ended.
func (c *computation) compareClaims(a, b *model.Attachment) int {
	rank := func(of *model.Attachment) int {
		switch pod := c.snapshot.PodOf(of, c.node); {
		case pod == nil:
			return 1
		case pod.Finished:
			return 2
		}
		return 0
	}
	if by := rank(a) - rank(b); by != 0 {
		return by
	}
	return strings.Compare(a.Pod.String()+" "+a.ContainerID+" "+a.Interface, b.Pod.String()+" "+b.ContainerID+" "+b.Interface)
}

// dropSubject takes out all cells of an address.
func (c *computation) dropSubject(addr netip.Addr) {
	if old, ok := c.subjects.get(addr); ok {
		c.subjects.remove(addr)
		for _, d := range model.Directions {
			at := Subject{d, addr}
			c.planSide(at, old.cellsOf(d), model.Map[Group, Row]{})
			c.planItself(at, old.itself[d], "")
		}
	}
}

func (s *subject) cellsOf(d model.Direction) model.Map[Group, Row] { return s.profile.cellsOf(d) }
