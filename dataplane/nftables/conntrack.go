package nftables

import (
	"errors"
	"fmt"
	"net/netip"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/hostport"
	"github.com/fairlead-net/fairlead/plan/masquerade"
	"github.com/fairlead-net/fairlead/plan/service"
)

// stale is what connections of UDP may be older than, until those are
// forgotten. UDP has no end that the kernel could see: while somebody goes on
// sending, his packets are translated as the first one was.
type stale struct {
	ports   map[hostport.Port]struct{}         // that lead elsewhere than before: to a pod that is gone, or to nobody
	kept    model.Map[hostport.Kept, struct{}] // endpoints whose connections stay, though a port leads elsewhere
	tunnels masquerade.Tunnels                 // that pods' packets could look like packets of
	served  servedFlows                        // Services as they were when they were last looked at
}

// note takes in what is about to change.
func (s *stale) note(ports *portMap, kept model.Map[hostport.Kept, struct{}]) {
	add := func(port hostport.Port) {
		if port.Protocol != model.UDP {
			return
		}
		if s.ports == nil {
			s.ports = map[hostport.Port]struct{}{}
		}
		s.ports[port] = struct{}{}
	}
	for port := range ports.Puts() {
		add(port)
	}
	for port := range ports.Removals() {
		add(port)
	}
	for change := range model.Diff(s.kept, kept) {
		if !change.Has {
			add(change.Key.Port)
		}
	}
	s.kept = kept
}

// forget removes the connections that go elsewhere than the ports say, or look
// like those of tunnels.
func (s *stale) forget(node string, ports *portMap, services *service.Plan) []model.Problem {
	served, changed := s.served.become(services)
	if len(s.ports) == 0 && s.tunnels == (masquerade.Tunnels{}) && !changed {
		s.served = served
		return nil
	}
	if err := s.deleteFlows(ports, served); err != nil {
		return []model.Problem{{
			Kind: "Node", Name: node, Field: "hostport", Reason: "StaleConnections",
			Message: fmt.Sprintf("clients of changed UDP host ports and Services may go on talking to pods that are gone, and pods to other nodes' tunnels: %v", err),
			Remedy:  "it is tried again; if it stays so, load the kernel's module nf_conntrack_netlink",
		}}
	}
	served.gone = nil
	*s = stale{served: served, kept: s.kept}
	return nil
}

func (s *stale) deleteFlows(ports *portMap, served servedFlows) error {
	own, err := rtnl.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open a socket of netlink: %w", err)
	}
	defer own.Close()
	local, err := addressesOf(own)
	if err != nil {
		return err
	}
	kernel, err := openTracker()
	if err != nil {
		return err
	}
	defer kernel.close()
	flows := staleFlows{ports: ports, stale: s, served: served, local: local}
	for _, family := range model.Families {
		err = errors.Join(err, kernel.deleteAll(family, model.UDP, flows.match))
	}
	return err
}

// staleFlows matches connections to stale ports that were led elsewhere than
// the ports now say, and those that look like a tunnel's.
type staleFlows struct {
	ports  *portMap
	stale  *stale
	served servedFlows
	local  map[netip.Addr]bool // the node's own addresses
}

func (f staleFlows) match(flow *tracked) bool {
	if flow.zone {
		return false
	}
	to, led := flow.forward.to, flow.called()
	if f.stale.tunnels.Has(led.Port()) && f.looksLikeTunnel(flow) {
		return true
	}
	if stale, ok := f.served.stale(to, led); ok {
		return stale
	}
	if led == to {
		led = netip.AddrPort{} // to no pod
	}
	any := netip.AddrPortFrom(netip.IPv4Unspecified(), to.Port())
	if to.Addr().Is6() {
		any = netip.AddrPortFrom(netip.IPv6Unspecified(), to.Port())
	}
	_, stale := f.stale.ports[hostport.Port{Protocol: model.UDP, At: to}]
	if _, all := f.stale.ports[hostport.Port{Protocol: model.UDP, At: any}]; all {
		stale = stale || f.local[to.Addr()] || to.Addr().IsLoopback()
	}
	if _, kept := f.stale.kept.Get(hostport.Kept{Port: hostport.Port{Protocol: model.UDP, At: any}, At: led}); kept {
		return false
	}
	want, ok := f.ports.Wanted(hostport.Port{Protocol: model.UDP, At: to})
	if !ok {
		want, _ = f.ports.Wanted(hostport.Port{Protocol: model.UDP, At: any})
	}
	return stale && led != want
}

// looksLikeTunnel tells whether the source was translated to a tunnel's port,
// or is a tunnel's own that had to take another port because of such a one.
func (f staleFlows) looksLikeTunnel(flow *tracked) bool {
	from, as := flow.forward.from, flow.reverse.to
	return from != as && (f.stale.tunnels.Has(as.Port()) || from.Addr() == as.Addr())
}
