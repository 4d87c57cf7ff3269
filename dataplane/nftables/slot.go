package nftables

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/plan/service"
)

// slots are how a pool lies in the kernel: its targets are numbered from 0
// without a hole, so that a random number finds one. Of a change, as few slots
// differ as can be. A value is immutable.
type slots struct {
	number  uint32           // of the pool
	targets []netip.AddrPort // by slot
	sticky  bool
	names   []uint32 // of the targets of a sticky pool, by slot: each keeps its own
}

// The number of a sticky pool and the name of a target share 32 bits.
const (
	nameBits    = 12
	mostTargets = 1<<16 - 1 // of a pool: what a class can say
	mostSticky  = 1 << nameBits
	mostPools   = 1 << (32 - nameBits)
)

// id is what a pool is known by in the kernel; 0 of none.
func (s *slots) id() uint32 {
	switch {
	case s == nil:
		return 0
	case s.sticky:
		return s.number << nameBits
	}
	return s.number
}

// usable are as many of the targets as a pool can have.
func usable(b *service.Backends) []netip.AddrPort {
	most := mostTargets
	if b.Sticky != 0 {
		most = mostSticky
	}
	return b.Targets[:min(len(b.Targets), most)]
}

func newSlots(backends *service.Backends, number uint32) *slots {
	s := &slots{number: number, targets: usable(backends), sticky: backends.Sticky != 0}
	if s.sticky {
		for slot := range s.targets {
			s.names = append(s.names, uint32(slot))
		}
	}
	return s
}

// become is how the pool lies after a change: who comes takes the place of who
// goes; else the last one is moved into the hole.
func (s *slots) become(old, backends *service.Backends) *slots {
	next := &slots{number: s.number, sticky: s.sticky, targets: slices.Clone(s.targets), names: slices.Clone(s.names)}
	gone, come := difference(usable(old), usable(backends))
	var holes []int // from the last on
	for slot := len(next.targets) - 1; len(gone) > 0 && slot >= 0; slot-- {
		if _, ok := slices.BinarySearchFunc(gone, next.targets[slot], netip.AddrPort.Compare); ok {
			holes = append(holes, slot)
		}
	}
	for _, target := range come {
		if n := len(holes); n > 0 {
			next.targets[holes[n-1]] = target
			holes = holes[:n-1]
			continue
		}
		next.targets = append(next.targets, target)
		if next.sticky {
			next.names = append(next.names, next.freeName())
		}
	}
	for _, slot := range holes {
		last := len(next.targets) - 1
		next.targets[slot], next.targets = next.targets[last], next.targets[:last]
		if next.sticky {
			next.names[slot], next.names = next.names[last], next.names[:last]
		}
	}
	return next
}

// freeName is the lowest that no target has. Who is bound to the former holder
// of a name goes to the new one, which is as good as any.
func (s *slots) freeName() uint32 {
	used := make([]bool, len(s.names)+1)
	for _, name := range s.names {
		if int(name) < len(used) {
			used[name] = true
		}
	}
	return uint32(slices.Index(used, false))
}

// difference is what only the one and only the other of two sorted lists has.
func difference(old, next []netip.AddrPort) (gone, come []netip.AddrPort) {
	for len(old) > 0 || len(next) > 0 {
		order := 0
		switch {
		case len(old) == 0:
			order = 1
		case len(next) == 0:
			order = -1
		default:
			order = old[0].Compare(next[0])
		}
		if order <= 0 {
			if order < 0 {
				gone = append(gone, old[0])
			}
			old = old[1:]
		}
		if order >= 0 {
			if order > 0 {
				come = append(come, next[0])
			}
			next = next[1:]
		}
	}
	return gone, come
}

// poolElements are those of a pool that another state of it lacks. Either may
// be nil.
func (m *serviceMaps) poolElements(s, other *slots) (all []element) {
	if s == nil {
		return nil
	}
	if s.sticky {
		return m.stickyElements(s, other)
	}
	if other == nil {
		all = make([]element, 0, len(s.targets))
	}
	for slot, target := range s.targets {
		if other == nil || slot >= len(other.targets) || other.targets[slot] != target {
			all = append(all, element{set: m.slots, key: slotKey(s.id(), slot), value: targetValue(target)})
		}
	}
	return all
}

func (m *serviceMaps) stickyElements(s, other *slots) (all []element) {
	known := map[uint32]netip.AddrPort{}
	if other != nil {
		for slot, name := range other.names {
			known[name] = other.targets[slot]
		}
	}
	for slot, target := range s.targets {
		name := native(s.id() | s.names[slot])
		if other == nil || slot >= len(other.names) || other.names[slot] != s.names[slot] {
			all = append(all, element{set: m.picks, key: slotKey(s.id(), slot), value: name})
		}
		if was, ok := known[s.names[slot]]; !ok || was != target {
			all = append(all, element{set: m.targets, key: name, value: targetValue(target)})
		}
	}
	return all
}

func slotKey(pool uint32, slot int) []byte {
	return binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(make([]byte, 0, 8), pool), uint32(slot))
}

func targetValue(target netip.AddrPort) []byte {
	if addr := target.Addr(); addr.Is4() {
		bytes := addr.As4()
		return appendPort(append(make([]byte, 0, 8), bytes[:]...), target.Port())
	}
	return appendPort(target.Addr().AsSlice(), target.Port())
}

// numbers are those that pools have, from 1.
type numbers struct {
	last uint32
	free []uint32
}

func (n *numbers) clone() numbers { return numbers{n.last, slices.Clone(n.free)} }

func (n *numbers) take() uint32 {
	if last := len(n.free) - 1; last >= 0 {
		number := n.free[last]
		n.free = n.free[:last]
		return number
	}
	n.last++
	return n.last
}

func (n *numbers) give(number uint32) { n.free = append(n.free, number) }
