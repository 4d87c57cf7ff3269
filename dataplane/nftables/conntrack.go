package nftables

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/hostport"
)

// stalePorts are host ports of UDP that lead elsewhere than before, until their
// connections are forgotten. UDP has no end that the kernel could see: while a
// client goes on sending, its packets go where the first one went, to a pod that
// is gone or to nobody.
type stalePorts map[hostport.Port]struct{}

// note takes in what is about to change.
func (s *stalePorts) note(ports *portMap) {
	add := func(port hostport.Port) {
		if port.Protocol != model.UDP {
			return
		}
		if *s == nil {
			*s = stalePorts{}
		}
		(*s)[port] = struct{}{}
	}
	for port := range ports.Puts() {
		add(port)
	}
	for port := range ports.Removals() {
		add(port)
	}
}

// forget removes the connections that go elsewhere than the ports say.
func (s *stalePorts) forget(node string, ports *portMap) []model.Problem {
	if len(*s) == 0 {
		return nil
	}
	if err := s.deleteFlows(ports); err != nil {
		return []model.Problem{{
			Kind: "Node", Name: node, Field: "hostport", Reason: "StaleConnections",
			Message: fmt.Sprintf("clients of changed UDP host ports may go on talking to pods that are gone: %v", err),
			Remedy:  "it is tried again; if it stays so, load the kernel's module nf_conntrack_netlink",
		}}
	}
	*s = nil
	return nil
}

func (s *stalePorts) deleteFlows(ports *portMap) error {
	addresses, err := rtnl.AddrList(nil, rtnl.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	filter := staleFlows{ports: ports, stale: *s, local: map[netip.Addr]bool{}}
	for _, address := range addresses {
		filter.local[addrOf(address.IP)] = true
	}
	for _, family := range []rtnl.InetFamily{unix.AF_INET, unix.AF_INET6} {
		for attempt := 1; ; attempt++ {
			_, err := rtnl.ConntrackDeleteFilters(rtnl.ConntrackTable, family, filter)
			if errors.Is(err, rtnl.ErrDumpInterrupted) && attempt < 5 {
				continue
			}
			if err != nil {
				return fmt.Errorf("delete connections: %w", err)
			}
			break
		}
	}
	return nil
}

// staleFlows matches connections to stale ports that were led elsewhere than
// the ports now say.
type staleFlows struct {
	ports *portMap
	stale stalePorts
	local map[netip.Addr]bool // the node's own addresses
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f staleFlows) MatchConntrackFlow(flow *rtnl.ConntrackFlow) bool {
	if model.Protocol(flow.Forward.Protocol) != model.UDP {
		return false
	}
	to := netip.AddrPortFrom(addrOf(flow.Forward.DstIP), flow.Forward.DstPort)
	led := netip.AddrPortFrom(addrOf(flow.Reverse.SrcIP), flow.Reverse.SrcPort)
	if led == to {
		led = netip.AddrPort{} // to no pod
	}
	any := netip.AddrPortFrom(netip.IPv4Unspecified(), to.Port())
	if to.Addr().Is6() {
		any = netip.AddrPortFrom(netip.IPv6Unspecified(), to.Port())
	}
	_, stale := f.stale[hostport.Port{Protocol: model.UDP, At: to}]
	if _, all := f.stale[hostport.Port{Protocol: model.UDP, At: any}]; all {
		stale = stale || f.local[to.Addr()] || to.Addr().IsLoopback()
	}
	want, ok := f.ports.Wanted(hostport.Port{Protocol: model.UDP, At: to})
	if !ok {
		want, _ = f.ports.Wanted(hostport.Port{Protocol: model.UDP, At: any})
	}
	return stale && led != want
}

func addrOf(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}
