package policy

import (
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
)

// pace is how many addresses one plan looks at again for tidiness alone: of a change,
// which somebody waits for, and of a snapshot that was planned before.
type pace struct{ ofChange, ofNone int }

var usual = pace{ofChange: 32, ofNone: 64}

// Untidy tells whether groups tell apart what no policy of this node does any more.
// It says the same of every connection as if they did not. Another plan of the same
// snapshot has less of it; of changes, nobody waits for that.
func (p *Plan) Untidy() bool { return p != nil && p.later.Len() > 0 }

// leave looks again at pods that peers chose for whom nobody asks any more, as when the
// last pod of an app leaves the node: at once if they are few, else later. Their
// groups are finer than they need be until then, and say the same; who waits
// for the change does not wait for hundreds of pods of other nodes to be regrouped.
func (c *computation) leave(gone []*peers) {
	var left []netip.Addr
	c.eachChosen(gone, func(pod *model.Pod) { left = append(left, c.addressesOf(pod)...) })
	for _, addr := range left {
		if len(left) <= c.pace.ofChange {
			c.touched[addr] = struct{}{}
		} else {
			c.later.put(addr, struct{}{})
		}
	}
}

// comeBack looks at pods whose groups still tell of peers that are asked for again:
// those may not choose all of them any more, as namespaces change. A group tells of
// nobody else whom no policy asks for: whoever was chosen is looked at with the change
// that ends it, or is in later. It comes before leave, and before pods change groups.
func (c *computation) comeBack(come []*peers) {
	stale := map[Group]struct{}{}
	for _, p := range come {
		of, _ := c.among.get(p.name)
		for group := range of.All() {
			stale[group] = struct{}{}
		}
	}
	if len(stale) == 0 {
		return
	}
	for addr := range c.later.base.All() {
		group, _ := c.pods.get(addr)
		if _, is := stale[group]; is {
			c.touched[addr] = struct{}{}
		}
	}
}

// tidy looks at some of those that were left, if the snapshot is that of before.
func (c *computation) tidy() {
	if !alike(c.before.from, c.snapshot) {
		return
	}
	for addr := range c.later.base.All() {
		if len(c.touched) >= c.pace.ofNone {
			return
		}
		c.touched[addr] = struct{}{}
	}
}
