package dataplane

import (
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/policy"
)

// Counter is how much a rule of a data plane has met. It begins anew with the
// rule.
type Counter struct {
	Rule           string // what it is for, in words; rules of the same words count together
	Packets, Bytes uint64
}

// Counted is a Dataplane whose rules count. Counters reads them from the kernel,
// and may be called concurrently with Apply. It is for people who look on now
// and then, not for every event.
type Counted interface {
	Counters() ([]Counter, error)
}

// Denial is how much a rule of a policy has denied, of connections that would
// have begun. It begins anew when the rule is no longer of any pod of the node,
// and when the agent starts.
type Denial struct {
	Direction      model.Direction
	Rule           policy.Rule
	Packets, Bytes uint64
}

// Denier is a Dataplane that counts what policies deny. Denials reads it from
// the kernel, and may be called concurrently with Apply.
type Denier interface {
	Denials() ([]Denial, error)
}
