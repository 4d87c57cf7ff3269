package policy

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// space is a namespace: what can be a peer in it, and its NetworkPolicies, by
// their names.
type space struct {
	pods     model.Map[string, *model.Pod]
	policies model.Map[string, *model.Policy]
}

// contest are pods that have the same address, for the moment that one takes it
// over from another.
type contest struct{ pods []*model.Pod }

// attached is where pods of one name are on this node: one, but for the moment
// that another takes its place.
type attached struct{ addresses []attachedAddress }

type attachedAddress struct {
	netip.Addr
	of *model.Attachment
}

// addressesOf are those of one of the pods; nil if it is not here.
func (a *attached) addressesOf(pod *model.Pod, node string) (addresses []netip.Addr) {
	for _, addr := range a.addresses {
		if addr.of.IsOf(pod, node) {
			addresses = append(addresses, addr.Addr)
		}
	}
	return addresses
}

// isPeer tells whether a pod can be at the other end as itself: not if it has
// its node's addresses, and not if it has ended, since its address may be
// another's by then.
func isPeer(pod *model.Pod) bool { return !pod.HostNetwork && !pod.Finished }

// addressesOf are a pod's as this node gave them, or else as the API server
// says, which learns them later.
func (c *computation) addressesOf(pod *model.Pod) []netip.Addr {
	if at, ok := c.here.get(pod.PodKey); ok {
		if addresses := at.addressesOf(pod, c.node); addresses != nil {
			return addresses
		}
	}
	return pod.Addresses
}

// addressesBefore are those of the last plan.
func (c *computation) addressesBefore(pod *model.Pod) []netip.Addr {
	if at, ok := c.here.base.Get(pod.PodKey); ok {
		if addresses := at.addressesOf(pod, c.node); addresses != nil {
			return addresses
		}
	}
	return pod.Addresses
}

// findPods keeps spaces and owners of addresses up to date.
func (c *computation) findPods() {
	spaces := map[string]*draft[string, *model.Pod]{}
	edit := func(pod *model.Pod) *draft[string, *model.Pod] {
		of, ok := spaces[pod.Namespace]
		if !ok {
			known, _ := c.spaces.get(pod.Namespace)
			of = &draft[string, *model.Pod]{}
			if known != nil {
				of.base = known.pods
			}
			spaces[pod.Namespace] = of
		}
		return of
	}
	for change := range model.Diff(c.before.from.Pods, c.snapshot.Pods) {
		c.touchSubject(change.Key)
		if c.before.idle {
			continue
		}
		c.expect(change.Key, change.New)
		if change.Had && isPeer(change.Old) {
			edit(change.Old).remove(change.Key.Name)
			c.disown(change.Old, c.addressesBefore(change.Old))
		}
		if change.Has && isPeer(change.New) {
			edit(change.New).put(change.Key.Name, change.New)
			c.own(change.New, c.addressesOf(change.New))
		}
	}
	c.movePods()
	for name, pods := range spaces {
		next := space{}
		if known, ok := c.spaces.get(name); ok {
			next = *known
		}
		next.pods = pods.done()
		c.putSpace(name, next)
	}
}

func (c *computation) putSpace(name string, next space) {
	if next.pods.Len() == 0 && next.policies.Len() == 0 {
		c.spaces.remove(name)
		return
	}
	c.spaces.put(name, &next)
}

func (c *computation) withPolicy(key model.PolicyKey, policy *model.Policy, has bool) {
	next := space{}
	if known, ok := c.spaces.get(key.Namespace); ok {
		next = *known
	}
	if has {
		next.policies = next.policies.With(key.Name, policy)
	} else {
		next.policies = next.policies.Without(key.Name)
	}
	c.putSpace(key.Namespace, next)
}

// findHere keeps the addresses that pods have on this node.
func (c *computation) findHere() {
	for change := range model.Diff(c.before.from.Attachments, c.snapshot.Attachments) {
		if change.Key == model.ProbeEndpoint {
			continue
		}
		if change.Had {
			c.connect(change.Old, false)
		}
		if change.Has {
			c.connect(change.New, true)
		}
	}
}

// connect notes or forgets where an attachment is. Of a pod that has two, which
// is when its sandbox was made anew, both count.
func (c *computation) connect(a *model.Attachment, on bool) {
	known, ok := c.here.get(a.Pod)
	next := &attached{}
	if ok {
		next.addresses = slices.Clone(known.addresses)
	}
	for _, addr := range a.Addresses {
		is := attachedAddress{addr, a}
		if at := slices.Index(next.addresses, is); on {
			next.addresses = append(next.addresses, is)
		} else if at >= 0 {
			next.addresses = slices.Delete(next.addresses, at, at+1)
		}
		c.claim(addr, a, on)
	}
	if len(next.addresses) == 0 {
		c.here.remove(a.Pod)
	} else {
		c.here.put(a.Pod, next)
	}
}

// movePods follows those whose addresses on this node changed, and that did not
// change themselves.
func (c *computation) movePods() {
	moved := func(key model.PodKey) {
		old, had := c.before.from.Pods.Get(key)
		pod, has := c.snapshot.Pods.Get(key)
		if c.before.idle || !has || !had || old != pod || !isPeer(pod) {
			return
		}
		c.disown(pod, c.addressesBefore(pod))
		c.own(pod, c.addressesOf(pod))
	}
	for key := range c.here.set {
		moved(key)
	}
	for key := range c.here.gone {
		moved(key)
	}
}

// own gives addresses to a pod.
func (c *computation) own(pod *model.Pod, addresses []netip.Addr) {
	for _, addr := range addresses {
		c.touched[addr] = struct{}{}
		current, taken := c.owners.get(addr)
		if !taken {
			c.owners.put(addr, pod)
			continue
		}
		next := &contest{pods: []*model.Pod{current}}
		if known, ok := c.contests.get(addr); ok {
			next.pods = slices.Clone(known.pods)
		}
		next.pods = append(next.pods, pod)
		c.settle(addr, next)
	}
}

// disown takes them from it.
func (c *computation) disown(pod *model.Pod, addresses []netip.Addr) {
	for _, addr := range addresses {
		c.touched[addr] = struct{}{}
		known, contested := c.contests.get(addr)
		if !contested {
			c.owners.remove(addr)
			continue
		}
		next := &contest{pods: slices.Clone(known.pods)}
		if at := slices.Index(next.pods, pod); at >= 0 {
			next.pods = slices.Delete(next.pods, at, at+1)
		}
		c.settle(addr, next)
	}
}

// settle gives an address to the pod that is first by name.
func (c *computation) settle(addr netip.Addr, of *contest) {
	first := slices.MinFunc(of.pods, func(a, b *model.Pod) int { return strings.Compare(a.String(), b.String()) })
	c.owners.put(addr, first)
	if len(of.pods) == 1 {
		c.contests.remove(addr)
	} else {
		c.contests.put(addr, of)
	}
}

// touch looks again at the addresses of a pod.
func (c *computation) touch(pod *model.Pod) {
	for _, addr := range c.addressesOf(pod) {
		c.touched[addr] = struct{}{}
	}
}
