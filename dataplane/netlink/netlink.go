// Package netlink makes the kernel route as a plan says: tunnel devices, their
// addresses, neighbours and forwarding entries, routes, and the few sysctls
// that routing needs. It does not filter or translate packets, and it decides
// nothing.
//
// What is ours: routes of Protocol, and network interfaces whose name begins
// with route.TunnelPrefix, with all that is on them. Nothing else is changed.
//
// A Plane is for one goroutine at a time, but for its Run and Disturbed.
package netlink

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/route"
)

// Plane is the part of a data plane that routes.
type Plane struct {
	// Guarded, if set, tells whether somebody drops what gets to 127.0.0.0/8 from
	// elsewhere, which the kernel does no more with route_localnet (CVE-2020-8558):
	// until then those sysctls wait.
	Guarded func() bool
	// Former, if set, is told what a sysctl (a path below /proc/sys) was before
	// each change of it, and what it is set to.
	Former func(path, was, set string)

	disturbed chan struct{} // see Disturbed

	mu     sync.Mutex // guards what is below, against Run
	handle *rtnl.Handle
	known  bool // the actual sides of the deltas are what the kernel holds
	reread bool // the next Apply reads it back though it is known

	vxlans    dataplane.Delta[string, route.VXLAN]
	ipips     dataplane.Delta[string, route.IPIP]
	sysctls   dataplane.Delta[string, string]
	addresses dataplane.Delta[route.Address, struct{}]
	neighbors dataplane.Delta[route.Neighbor, model.MAC]
	fdb       dataplane.Delta[route.Station, netip.Addr]
	routes    dataplane.Delta[netip.Prefix, route.Route]
	yields    model.Map[netip.Prefix, struct{}] // of routes
	debris    []rtnl.Route                      // of Protocol, but not as this version writes them

	// Of Run.
	looked   time.Time                    // at the sysctls
	names    map[int]string               // of all network interfaces, by index
	udps     model.Map[string, route.UDP] // made by servers/udptunnel; their loss is noticed here
	suspects map[suspect]func() bool      // what others seem to have changed; true: it differs still
}

// New returns a data plane for the network namespace of the calling thread.
// Apply must be called in the same one: sysctls are found through the thread.
func New() (*Plane, error) {
	handle, err := rtnl.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a route netlink socket: %w", err)
	}
	return &Plane{handle: handle, disturbed: make(chan struct{}, 1)}, nil
}

// Close gives back the socket. What was applied stays.
func (p *Plane) Close() { p.handle.Close() }

// Forget makes the next Apply read back what the kernel holds.
func (p *Plane) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known = false
}

// Apply carries out the routing part of a plan. See dataplane.Dataplane.
func (p *Plane) Apply(ctx context.Context, node *plan.Node) ([]model.Problem, error) {
	if node.Route == nil {
		return nil, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.desire(node.Route)
	if p.known && !p.reread && p.pending() == 0 {
		return nil, nil
	}
	batch := &batch{Plane: p, ctx: ctx, node: node.Name, indexes: map[string]int{}}
	err := batch.run()
	p.known = err == nil
	// When IPv6 is switched off, the kernel does not tell of that, nor of all that goes.
	p.reread = slices.ContainsFunc(batch.problems, func(problem model.Problem) bool { return problem.Reason == ipv6Disabled })
	slices.SortFunc(batch.problems, model.Problem.Compare)
	return batch.problems, err
}

func (p *Plane) desire(plan *route.Plan) {
	p.vxlans.Desire(plan.VXLANs)
	p.ipips.Desire(plan.IPIPs)
	p.sysctls.Desire(plan.Sysctls)
	p.addresses.Desire(plan.Addresses)
	p.neighbors.Desire(plan.Neighbors)
	p.fdb.Desire(plan.FDB)
	p.routes.Desire(plan.Routes)
	p.udps = plan.UDPs
	p.yields = plan.Yields
}

func (p *Plane) pending() int {
	return p.vxlans.Pending() + p.ipips.Pending() + p.sysctls.Pending() + p.addresses.Pending() +
		p.neighbors.Pending() + p.fdb.Pending() + p.routes.Pending() + len(p.debris)
}

// batch is one Apply.
type batch struct {
	*Plane
	ctx      context.Context
	node     string
	indexes  map[string]int // of network interfaces, by name, as far as looked up
	pair     *bool          // our ipip device is a pair with programs; nil: not looked at
	problems []model.Problem
}

// run adds from the links up and removes from the routes down, so that nothing
// is ever there without what it stands on.
func (b *batch) run() error {
	if !b.known || b.reread {
		if err := b.observe(); err != nil {
			return err
		}
	}
	disturbed := false
	for _, put := range []func() (bool, error){b.putVXLANs, b.putIPIPs} {
		changed, err := put()
		if err != nil {
			return err
		}
		disturbed = disturbed || changed
	}
	if disturbed {
		if err := b.observe(); err != nil {
			return err
		}
	}
	// Sysctls follow the links: those of a device come with it.
	steps := []func() error{
		b.putSysctls, b.putAddresses, b.putNeighbors, b.putFDB, b.putRoutes,
		b.removeRoutes, b.removeFDB, b.removeNeighbors, b.removeAddresses, b.removeIPIPs, b.removeVXLANs,
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// index is that of a network interface.
func (b *batch) index(device string) (int, error) {
	if index, ok := b.indexes[device]; ok {
		return index, nil
	}
	link, err := b.handle.LinkByName(device)
	var missing rtnl.LinkNotFoundError
	if errors.As(err, &missing) {
		return 0, fmt.Errorf("network interface %s: %w", device, unix.ENODEV)
	}
	if err != nil {
		return 0, fmt.Errorf("look up network interface %s: %w", device, err)
	}
	b.indexes[device] = link.Attrs().Index
	return link.Attrs().Index, nil
}

// put carries out what a delta lacks, except what the kernel refuses.
func put[K, V comparable](b *batch, delta *dataplane.Delta[K, V], item item[K, V], do func(K, V) error) error {
	for key, value := range delta.Puts() {
		if err := b.ctx.Err(); err != nil {
			return fmt.Errorf("apply routing: %w", err)
		}
		if err := do(key, value); err != nil {
			if errors.Is(err, errLeft) {
				continue
			}
			if err := b.refused(item.named(key), item.asked(key, value), err); err != nil {
				return err
			}
			continue
		}
		delta.Did(key, value)
	}
	return nil
}

// remove carries out what a delta has too much. What is gone already is not
// missed.
func remove[K, V comparable](b *batch, delta *dataplane.Delta[K, V], item item[K, V], do func(K, V) error) error {
	for key, value := range delta.Removals() {
		if err := b.ctx.Err(); err != nil {
			return fmt.Errorf("apply routing: %w", err)
		}
		if err := do(key, value); err != nil && !gone(err) {
			if err := b.refused(item.named(key), "remove "+item.asked(key, value), err); err != nil {
				return err
			}
			continue
		}
		delta.Removed(key)
	}
	return nil
}

// gone tells that what was to be removed is not there, or its device is not.
func gone(err error) bool {
	for _, errno := range []syscall.Errno{unix.ESRCH, unix.ENOENT, unix.ENODEV, unix.ENXIO, unix.EADDRNOTAVAIL} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
