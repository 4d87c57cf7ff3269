// Package fake is a kernel in memory, and a data plane over it that keeps to the
// same rules as the real ones: a route needs its device, its next hop and its
// source; who removes a device removes what is on it; what is foreign stands in
// the way and stays. Tests of everything above the data plane use it. It
// forwards no packets.
//
// A Kernel may be used concurrently; a Plane is for one goroutine at a time.
package fake

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/antispoof"
	"github.com/fairlead-net/fairlead/plan/hostport"
	"github.com/fairlead-net/fairlead/plan/masquerade"
	"github.com/fairlead-net/fairlead/plan/route"
	"github.com/fairlead-net/fairlead/plan/service"
)

// Kernel is what a kernel holds: ours, and what is foreign.
type Kernel struct {
	mu sync.Mutex // guards all below

	devices map[string][]netip.Prefix // foreign, with their addresses
	foreign map[netip.Prefix]string   // foreign routes and their devices

	vxlans    map[string]route.VXLAN
	sysctls   map[string]string
	addresses map[route.Address]struct{}
	neighbors map[route.Neighbor]model.MAC
	fdb       map[route.Station]netip.Addr
	routes    map[netip.Prefix]route.Route

	filters         bool // there is a table that masquerades, translates and filters
	pods            map[netip.Prefix]struct{}
	cluster         map[netip.Prefix]struct{}
	excluded        map[netip.Prefix]struct{}
	hostPorts       map[hostport.Port]netip.AddrPort
	hairpins        map[netip.Addr]struct{}
	sources         map[antispoof.Source]struct{}
	frontends       map[service.VIP]*service.Frontend
	backends        map[service.Pool]*service.Backends
	clusterIPs      map[netip.Addr]struct{}
	serviceCIDRs    map[netip.Prefix]struct{}
	outside, inside [len(model.Families)]netip.Addr // that masquerade and hairpins take
	randomPorts     bool

	refusals map[string]error
	failure  error // of the next Apply, after some more writes
	budget   int
	changes  []string
}

// NewKernel returns a kernel without a device but that of loopback.
func NewKernel() *Kernel {
	return &Kernel{
		devices: map[string][]netip.Prefix{"lo": nil}, foreign: map[netip.Prefix]string{},
		vxlans: map[string]route.VXLAN{}, sysctls: map[string]string{},
		addresses: map[route.Address]struct{}{}, neighbors: map[route.Neighbor]model.MAC{},
		fdb: map[route.Station]netip.Addr{}, routes: map[netip.Prefix]route.Route{},
		pods: map[netip.Prefix]struct{}{}, cluster: map[netip.Prefix]struct{}{},
		excluded: map[netip.Prefix]struct{}{}, hostPorts: map[hostport.Port]netip.AddrPort{},
		hairpins: map[netip.Addr]struct{}{}, sources: map[antispoof.Source]struct{}{},
		frontends: map[service.VIP]*service.Frontend{}, backends: map[service.Pool]*service.Backends{},
		clusterIPs: map[netip.Addr]struct{}{}, serviceCIDRs: map[netip.Prefix]struct{}{},
		refusals: map[string]error{},
	}
}

// AddDevice adds a network interface that is not ours, such as an uplink or the
// host side of a pod's veth, with addresses and the networks they are on.
func (k *Kernel) AddDevice(name string, addresses ...netip.Prefix) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.devices[name] = addresses
}

// RemoveDevice removes a network interface, ours or not, and what stands on it.
func (k *Kernel) RemoveDevice(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.devices, name)
	maps.DeleteFunc(k.foreign, func(_ netip.Prefix, device string) bool { return device == name })
	k.removeDevice(name)
	for _, vxlan := range k.vxlans {
		if vxlan.Device == name {
			k.removeDevice(vxlan.Name)
		}
	}
	k.dropSources()
}

// dropSources does what the kernel does to routes whose source address has gone:
// of IPv4 it drops them (fib_sync_down_addr), of IPv6 only the source
// (rt6_remove_prefsrc).
func (k *Kernel) dropSources() {
	for destination, r := range k.routes {
		switch {
		case !r.Source.IsValid() || k.hasAddress(r.Source):
		case r.Source.Is4():
			delete(k.routes, destination)
		default:
			r.Source = netip.Addr{}
			k.routes[destination] = r
		}
	}
}

func (k *Kernel) removeDevice(name string) {
	delete(k.vxlans, name)
	maps.DeleteFunc(k.addresses, func(a route.Address, _ struct{}) bool { return a.Device == name })
	maps.DeleteFunc(k.neighbors, func(n route.Neighbor, _ model.MAC) bool { return n.Device == name })
	maps.DeleteFunc(k.fdb, func(s route.Station, _ netip.Addr) bool { return s.Device == name })
	maps.DeleteFunc(k.routes, func(_ netip.Prefix, r route.Route) bool { return r.Device == name })
}

// AddForeignRoute adds a route that is not ours, with the metric that ours have.
func (k *Kernel) AddForeignRoute(destination netip.Prefix, device string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.foreign[destination] = device
}

// RemoveForeignRoute removes a route that is not ours.
func (k *Kernel) RemoveForeignRoute(destination netip.Prefix) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.foreign, destination)
}

// Refuse makes the kernel refuse an item, named as in the Field of the Problem,
// such as "route 10.244.2.0/24", until it is called with a nil error.
func (k *Kernel) Refuse(item string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refusals[item] = err
}

// FailAfter makes the next Apply that writes more than so many items, or reads
// back, fail as a whole at that point.
func (k *Kernel) FailAfter(writes int, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.failure, k.budget = err, writes
}

// Changes lists what was written since the last call, such as
// "replace route 10.244.2.0/24".
func (k *Kernel) Changes() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	changes := k.changes
	k.changes = nil
	return changes
}

// State is all that is ours, in the words of plan.Text: equal to that of a plan
// that was applied whole.
func (k *Kernel) State() string { return plan.Text(k.Observed()) }

// Observed is all that is ours, as a plan.
func (k *Kernel) Observed() *plan.Node {
	k.mu.Lock()
	defer k.mu.Unlock()
	node := &plan.Node{Route: &route.Plan{
		VXLANs:    model.MapOf(k.vxlans),
		Sysctls:   model.MapOf(k.sysctls),
		Addresses: model.MapOf(k.addresses),
		Neighbors: model.MapOf(k.neighbors),
		FDB:       model.MapOf(k.fdb),
		Routes:    model.MapOf(k.routes),
	}}
	if k.filters {
		node.Masquerade = &masquerade.Plan{
			Pods: model.MapOf(k.pods), Cluster: model.MapOf(k.cluster), Excluded: model.MapOf(k.excluded),
			Sources: k.outside, RandomPorts: k.randomPorts,
		}
		node.HostPort = &hostport.Plan{Ports: model.MapOf(k.hostPorts), Hairpins: model.MapOf(k.hairpins), Own: k.inside}
		node.AntiSpoof = &antispoof.Plan{Sources: model.MapOf(k.sources)}
		node.Service = &service.Plan{
			Frontends: model.MapOf(k.frontends), Backends: model.MapOf(k.backends),
			ClusterIPs: model.MapOf(k.clusterIPs), CIDRs: model.MapOf(k.serviceCIDRs),
		}
	}
	return node
}

// Foreign is what is not ours, as sorted text.
func (k *Kernel) Foreign() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var lines []string
	for name, addresses := range k.devices {
		lines = append(lines, fmt.Sprintf("link %s %v", name, addresses))
	}
	for destination, device := range k.foreign {
		lines = append(lines, fmt.Sprintf("route %s dev %s", destination, device))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// write counts a change that is about to be made, or refuses it.
func (k *Kernel) write(verb, item string) error {
	if err := k.refusals[item]; err != nil {
		return err
	}
	if err := k.fails(); err != nil {
		return err
	}
	k.changes = append(k.changes, verb+" "+item)
	return nil
}

func (k *Kernel) fails() error {
	if k.failure == nil {
		return nil
	}
	if k.budget > 0 {
		k.budget--
		return nil
	}
	err := k.failure
	k.failure = nil
	return &wholeError{err}
}

// wholeError is an error that is no answer to one item.
type wholeError struct{ error }

func (e *wholeError) Unwrap() error { return e.error }

func (k *Kernel) hasDevice(name string) bool {
	_, foreign := k.devices[name]
	_, ours := k.vxlans[name]
	return foreign || ours
}

// checkRoute keeps to the rules of the kernel's fib_check_nh and
// ip6_route_info_create, as far as a plan can break them.
func (k *Kernel) checkRoute(destination netip.Prefix, r route.Route) error {
	if _, taken := k.foreign[destination]; taken {
		return unix.EEXIST
	}
	switch {
	case r.Unreachable:
		return nil
	case !k.hasDevice(r.Device):
		return unix.ENODEV
	case r.Source.IsValid() && !k.hasAddress(r.Source):
		return unix.EINVAL
	case r.Via.IsValid() && !r.OnLink && !r.Via.IsLinkLocalUnicast() && !k.onLink(r.Device, r.Via):
		return unix.ENETUNREACH
	}
	return nil
}

func (k *Kernel) hasAddress(addr netip.Addr) bool {
	for a := range k.addresses {
		if a.Prefix.Addr() == addr {
			return true
		}
	}
	for _, prefixes := range k.devices {
		for _, prefix := range prefixes {
			if prefix.Addr() == addr {
				return true
			}
		}
	}
	return false
}

func (k *Kernel) onLink(device string, addr netip.Addr) bool {
	for _, prefix := range k.devices[device] {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}
