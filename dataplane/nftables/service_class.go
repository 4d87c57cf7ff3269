package nftables

import (
	"fmt"

	"github.com/fairlead-net/fairlead/plan/service"
)

// A class says what is done with packets to a VIP, as 32 bits that nft lists as
// major:minor. To choose among n targets is a class for each n, and so is a
// chain, because the kernel takes the range of a random number from the rule.
const (
	majorPick   = 0 // minor: how many targets
	majorInside = 1 // the same, with the pool that is for pods and the node
	majorFixed  = 2
	majorSticky = 16 // and above: as the first two, for each time that clients stay

	classReject     = majorFixed<<16 | 1
	classDrop       = majorFixed<<16 | 2
	classSpecial    = majorFixed<<16 | 3 // it depends on who asks
	classRestricted = majorFixed<<16 | 4 // and not all may
)

// stays are the times that clients stay with a target, in seconds, in the order
// in which they were first met.
type stays []uint32

// class is that of an answer of a frontend. Inside is of an answer that is
// looked up among those for pods and the node.
func (s *services) class(f *service.Frontend, a service.Answer, inside bool) uint32 {
	switch a.Do {
	case service.Reject:
		return classReject
	case service.Drop:
		return classDrop
	}
	major, most := uint32(majorPick), mostTargets
	if f.Sticky != 0 {
		major, most = s.stays.major(f.Sticky), mostSticky
	}
	if inside {
		major += majorInside
	}
	return major<<16 | uint32(min(a.Count, most))
}

func (s *stays) major(seconds uint32) uint32 {
	for i, known := range *s {
		if known == seconds {
			return majorSticky + 2*uint32(i)
		}
	}
	*s = append(*s, seconds)
	return majorSticky + 2*uint32(len(*s)-1)
}

// choice is what a class that forwards says.
type choice struct {
	inside bool
	count  uint32
	stay   uint32 // seconds; 0: none
}

// read is the inverse of class, for one that forwards.
func (s stays) read(class uint32) choice {
	major := class >> 16
	c := choice{count: class & 0xffff, inside: major%2 == majorInside}
	if major >= majorSticky {
		c.stay = s[(major-majorSticky)/2]
	}
	return c
}

// forwards tells whether a class leads to one of several chains.
func forwards(class uint32) bool { return class>>16 != majorFixed }

func (c choice) String() string {
	text := fmt.Sprintf("1-of-%d", c.count)
	if c.inside {
		text += "-inside"
	}
	if c.stay != 0 {
		text += fmt.Sprintf("-for-%ds", c.stay)
	}
	return text
}
