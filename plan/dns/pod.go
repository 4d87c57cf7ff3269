package dns

import (
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
)

// podsNamed are the pods that have names: none, if that is not asked for.
func podsNamed(s *model.Snapshot) (none model.Map[model.PodKey, *model.Pod]) {
	if s.Network.DNS.PodNames {
		return s.Pods
	}
	return none
}

// podName is who counts a name: an address in a namespace. Pods of the host's
// network share theirs.
type podName struct {
	namespace string
	addr      netip.Addr
}

// redoPods plans the names of pods anew that changed.
func (c *computation) redoPods() {
	now := podsNamed(c.snapshot)
	counted := map[podName]int{}
	count := func(pod *model.Pod, by int) {
		if pod == nil || pod.Finished {
			return
		}
		for _, addr := range pod.Addresses {
			counted[podName{pod.Namespace, addr}] += by
		}
	}
	for change := range model.Diff(c.pods, now) {
		count(change.Old, -1)
		count(change.New, 1)
	}
	c.pods = now
	all := c.Origin.child("pod")
	for of, by := range counted {
		namespace := all.child(of.namespace)
		name := namespace.child(string(appendDashed(nil, of.addr)))
		if by == 0 || name == "" {
			continue
		}
		n, several := c.podCount.Get(name)
		if was := c.names.get(name) != nil; was && !several {
			n = 1
		}
		if n += by; n > 1 {
			c.podCount = c.podCount.With(name, n)
		} else if several {
			c.podCount = c.podCount.Without(name)
		}
		if n == 0 {
			c.names.without(name)
			c.countPodNames(of.namespace, namespace, -1)
		} else if n == by {
			c.names.with(name, recordsOf([]netip.Addr{of.addr}))
			c.countPodNames(of.namespace, namespace, 1)
		}
	}
	if c.podsIn.Len() > 0 {
		c.names.with(all, c.empty)
	} else {
		c.names.without(all)
	}
}

// countPodNames makes namespaces exist that have pods.
func (c *computation) countPodNames(namespace string, name Name, by int) {
	n, _ := c.podsIn.Get(namespace)
	if n += by; n == 0 {
		c.podsIn = c.podsIn.Without(namespace)
		c.names.without(name)
		return
	}
	c.podsIn = c.podsIn.With(namespace, n)
	c.names.with(name, c.empty)
}
