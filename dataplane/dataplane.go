// Package dataplane is the contract between a plan and what carries it out,
// and the tracker of differences that every data plane is built on. It knows
// no kernel; the packages below it do.
package dataplane

import (
	"context"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

// Dataplane makes one part of a kernel, or of a server, be as a plan says.
//
// Apply takes the whole desired node and carries out what differs from what it
// last applied, adding before it deletes. It touches only what is marked as
// ours. A part of the plan that is nil is not known yet and is left as it is.
// The first Apply, and the next one after an error, compares with what the
// kernel really holds, so that debris of an earlier life goes away.
//
// An item that the kernel refuses does not keep the others from being applied:
// it comes back as a Problem, and is tried again at the next Apply. An error
// means that nothing can be said of what was applied.
//
// Apply is not called concurrently.
type Dataplane interface {
	Apply(ctx context.Context, node *plan.Node) ([]model.Problem, error)
}

// Forgetter is a Dataplane that trusts what it last applied until it is told
// not to. Forget makes the next Apply compare with what the kernel really holds:
// the kernel drops routes by itself when an interface goes down or an address
// goes. It is not called concurrently with Apply.
type Forgetter interface {
	Forget()
}

// ServiceCarrier is a Dataplane that carries out what a plan says of Services. As
// long as it does, load balancers need not turn to other nodes, whatever others
// do not.
type ServiceCarrier interface {
	CarriesServices()
}

// Disturber is a Dataplane that notices when somebody else changes what it has
// applied, as the kernel notifies of it. A value of Disturbed means that Apply
// has something to mend; of what, the Dataplane knows itself. What it does
// itself is no disturbance, and neither is what it is refused. Disturbed may be
// read beside Apply.
type Disturber interface {
	Disturbed() <-chan struct{}
}
