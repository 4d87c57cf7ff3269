package fake

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/antispoof"
	"github.com/fairlead-net/fairlead/plan/hostport"
	"github.com/fairlead-net/fairlead/plan/route"
	"github.com/fairlead-net/fairlead/plan/service"
)

// Plane is a data plane over a Kernel, for all parts of a plan.
type Plane struct {
	kernel *Kernel
	known  bool

	vxlans        dataplane.Delta[string, route.VXLAN]
	sysctls       dataplane.Delta[string, string]
	addresses     dataplane.Delta[route.Address, struct{}]
	neighbors     dataplane.Delta[route.Neighbor, model.MAC]
	fdb           dataplane.Delta[route.Station, netip.Addr]
	routes        dataplane.Delta[netip.Prefix, route.Route]
	pods, cluster dataplane.Delta[netip.Prefix, struct{}]
	excluded      dataplane.Delta[netip.Prefix, struct{}]
	hostPorts     dataplane.Delta[hostport.Port, netip.AddrPort]
	hairpins      dataplane.Delta[netip.Addr, struct{}]
	sources       dataplane.Delta[antispoof.Source, struct{}]
	frontends     dataplane.Delta[service.VIP, *service.Frontend]
	backends      dataplane.Delta[service.Pool, *service.Backends]
	clusterIPs    dataplane.Delta[netip.Addr, struct{}]
	serviceCIDRs  dataplane.Delta[netip.Prefix, struct{}]
}

// New returns a data plane as a process that starts has it: it knows nothing of
// what the kernel holds.
func New(kernel *Kernel) *Plane { return &Plane{kernel: kernel} }

// Forget makes the next Apply read back what the kernel holds.
func (p *Plane) Forget() { p.known = false }

// Apply implements dataplane.Dataplane.
func (p *Plane) Apply(ctx context.Context, node *plan.Node) ([]model.Problem, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("apply to fake kernel: %w", err)
	}
	p.kernel.mu.Lock()
	defer p.kernel.mu.Unlock()
	p.desire(node)
	if !p.known {
		if err := p.kernel.fails(); err != nil {
			return nil, fmt.Errorf("read back fake kernel: %w", err)
		}
		p.observe()
	}
	batch := &batch{Kernel: p.kernel, node: node.Name}
	p.run(batch, node)
	p.known = batch.err == nil
	if batch.err != nil {
		return nil, fmt.Errorf("apply to fake kernel: %w", batch.err)
	}
	return batch.problems, nil
}

func (p *Plane) desire(node *plan.Node) {
	if r := node.Route; r != nil {
		p.vxlans.Desire(r.VXLANs)
		p.sysctls.Desire(r.Sysctls)
		p.addresses.Desire(r.Addresses)
		p.neighbors.Desire(r.Neighbors)
		p.fdb.Desire(r.FDB)
		p.routes.Desire(r.Routes)
	}
	if m := node.Masquerade; m != nil {
		p.pods.Desire(m.Pods)
		p.cluster.Desire(m.Cluster)
		p.excluded.Desire(m.Excluded)
	}
	if h := node.HostPort; h != nil {
		p.hostPorts.Desire(h.Ports)
		p.hairpins.Desire(h.Hairpins)
	}
	if a := node.AntiSpoof; a != nil {
		p.sources.Desire(a.Sources)
	}
	if s := node.Service; s != nil {
		p.frontends.Desire(s.Frontends)
		p.backends.Desire(s.Backends)
		p.clusterIPs.Desire(s.ClusterIPs)
		p.serviceCIDRs.Desire(s.CIDRs)
	}
}

func (p *Plane) observe() {
	p.vxlans.Observe(maps.Clone(p.kernel.vxlans))
	p.sysctls.Observe(maps.Clone(p.kernel.sysctls))
	p.addresses.Observe(maps.Clone(p.kernel.addresses))
	p.neighbors.Observe(maps.Clone(p.kernel.neighbors))
	p.fdb.Observe(maps.Clone(p.kernel.fdb))
	p.routes.Observe(maps.Clone(p.kernel.routes))
	p.pods.Observe(maps.Clone(p.kernel.pods))
	p.cluster.Observe(maps.Clone(p.kernel.cluster))
	p.excluded.Observe(maps.Clone(p.kernel.excluded))
	p.hostPorts.Observe(maps.Clone(p.kernel.hostPorts))
	p.hairpins.Observe(maps.Clone(p.kernel.hairpins))
	p.sources.Observe(maps.Clone(p.kernel.sources))
	p.frontends.Observe(maps.Clone(p.kernel.frontends))
	p.backends.Observe(maps.Clone(p.kernel.backends))
	p.clusterIPs.Observe(maps.Clone(p.kernel.clusterIPs))
	p.serviceCIDRs.Observe(maps.Clone(p.kernel.serviceCIDRs))
}

// run keeps to the order of the real data planes: up from the links, then down.
func (p *Plane) run(b *batch, node *plan.Node) {
	p.runFilter(b, node)
	if node.Route == nil {
		return
	}
	if p.putVXLANs(b) {
		p.observe()
	}
	put(b, &p.sysctls, b.sysctls, named[string]("sysctl"), nil)
	put(b, &p.addresses, b.addresses, addressName, func(a route.Address, _ struct{}) error {
		return b.needsVXLAN(a.Device)
	})
	put(b, &p.neighbors, b.neighbors, neighborName, func(n route.Neighbor, _ model.MAC) error {
		return b.needsVXLAN(n.Device)
	})
	put(b, &p.fdb, b.fdb, stationName, func(s route.Station, _ netip.Addr) error {
		return b.needsVXLAN(s.Device)
	})
	put(b, &p.routes, b.routes, named[netip.Prefix]("route"), b.checkRoute)
	remove(b, &p.routes, b.routes, named[netip.Prefix]("route"))
	remove(b, &p.fdb, b.fdb, stationName)
	remove(b, &p.neighbors, b.neighbors, neighborName)
	remove(b, &p.addresses, b.addresses, addressName)
	for key := range p.sysctls.Removals() {
		p.sysctls.Removed(key) // the value stays
	}
	for name := range p.vxlans.Removals() {
		if b.wrote("remove", "link "+name, nil) {
			b.removeDevice(name)
			p.vxlans.Removed(name)
		}
	}
}

// runFilter does nothing unless all of it is known, as the table is one.
func (p *Plane) runFilter(b *batch, node *plan.Node) {
	if node.Masquerade == nil || node.HostPort == nil || node.AntiSpoof == nil || node.Service == nil {
		return
	}
	from, notTo := named[netip.Prefix]("masquerade from"), named[netip.Prefix]("masquerade not to")
	port, hairpin, source := named[hostport.Port]("hostport"), named[netip.Addr]("hairpin"), named[antispoof.Source]("source")
	b.filters, b.randomPorts = true, node.Masquerade.RandomPorts
	b.outside, b.inside = node.Masquerade.Sources, node.HostPort.Own
	put(b, &p.pods, b.pods, from, nil)
	put(b, &p.cluster, b.cluster, notTo, nil)
	put(b, &p.excluded, b.excluded, notTo, nil)
	put(b, &p.hostPorts, b.hostPorts, port, nil)
	put(b, &p.hairpins, b.hairpins, hairpin, nil)
	put(b, &p.sources, b.sources, source, nil)
	vip, pool := named[service.VIP]("service"), named[service.Pool]("backends")
	clusterIP, cidr := named[netip.Addr]("service refuse"), named[netip.Prefix]("service drop")
	put(b, &p.backends, b.backends, pool, nil)
	put(b, &p.frontends, b.frontends, vip, nil)
	put(b, &p.clusterIPs, b.clusterIPs, clusterIP, nil)
	put(b, &p.serviceCIDRs, b.serviceCIDRs, cidr, nil)
	remove(b, &p.serviceCIDRs, b.serviceCIDRs, cidr)
	remove(b, &p.clusterIPs, b.clusterIPs, clusterIP)
	remove(b, &p.frontends, b.frontends, vip)
	remove(b, &p.backends, b.backends, pool)
	remove(b, &p.sources, b.sources, source)
	remove(b, &p.hairpins, b.hairpins, hairpin)
	remove(b, &p.hostPorts, b.hostPorts, port)
	remove(b, &p.excluded, b.excluded, notTo)
	remove(b, &p.cluster, b.cluster, notTo)
	remove(b, &p.pods, b.pods, from)
}

// putVXLANs tells whether a device that was there was changed or made anew.
func (p *Plane) putVXLANs(b *batch) (disturbed bool) {
	put(b, &p.vxlans, b.vxlans, named[string]("link"), func(name string, want route.VXLAN) error {
		have, there := b.vxlans[name]
		disturbed = disturbed || there
		if there && have.MAC != want.MAC {
			maps.DeleteFunc(b.neighbors, func(n route.Neighbor, _ model.MAC) bool { return n.Device == name })
		}
		have.MTU, have.MAC = want.MTU, want.MAC
		if there && have != want {
			b.removeDevice(name)
		}
		if _, ok := b.devices[want.Device]; !ok {
			return unix.ENODEV
		}
		return nil
	})
	return disturbed
}

// batch is one Apply.
type batch struct {
	*Kernel
	node     string
	problems []model.Problem
	err      error // after which nothing more is done
}

// wrote tells whether a change may be made, and files a Problem if it may not.
func (b *batch) wrote(verb, item string, refused error) bool {
	if b.err != nil {
		return false
	}
	if refused == nil {
		refused = b.write(verb, item)
	}
	if whole := (*wholeError)(nil); errors.As(refused, &whole) {
		b.err = refused
		return false
	}
	if refused == nil {
		return true
	}
	reason := "KernelRefused"
	switch {
	case errors.Is(refused, unix.ENODEV):
		reason = "DeviceMissing"
	case errors.Is(refused, unix.EEXIST):
		reason = "Conflict"
	case errors.Is(refused, unix.ENETUNREACH):
		reason = "NextHopUnreachable"
	case errors.Is(refused, unix.EINVAL):
		reason = "SourceMissing"
	}
	b.problems = append(b.problems, model.Problem{
		Kind: "Node", Name: b.node, Field: item, Reason: reason,
		Message: fmt.Sprintf("the kernel refused to %s it: %v", verb, refused),
		Remedy:  "mend what the test broke",
	})
	return false
}

func (b *batch) needsVXLAN(name string) error {
	if _, ok := b.vxlans[name]; !ok {
		return unix.ENODEV
	}
	return nil
}

func put[K, V comparable](b *batch, delta *dataplane.Delta[K, V], state map[K]V, name func(K) string, check func(K, V) error) {
	for key, value := range delta.Puts() {
		var refused error
		if check != nil {
			refused = check(key, value)
		}
		verb := "add"
		if _, there := state[key]; there {
			verb = "replace"
		}
		if b.wrote(verb, name(key), refused) {
			state[key] = value
			delta.Did(key, value)
		}
	}
}

func remove[K, V comparable](b *batch, delta *dataplane.Delta[K, V], state map[K]V, name func(K) string) {
	for key := range delta.Removals() {
		if b.wrote("remove", name(key), nil) {
			delete(state, key)
			delta.Removed(key)
		}
	}
}

func named[K any](kind string) func(K) string {
	return func(key K) string { return fmt.Sprintf("%s %v", kind, key) }
}

func addressName(a route.Address) string   { return "address " + a.Prefix.String() }
func neighborName(n route.Neighbor) string { return "neighbor " + n.Address.String() }
func stationName(s route.Station) string   { return "fdb " + s.MAC.String() }
