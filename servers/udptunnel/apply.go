package udptunnel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/route"
)

// Apply makes, changes or removes the tunnel in the network namespace of the
// calling thread. See dataplane.Dataplane. What the kernel refuses is a
// Problem, and what was there of it stays. Unlike routes, the device is looked
// at each time: nothing else tells that somebody has removed it.
func (t *Tunnel) Apply(ctx context.Context, node *plan.Node) ([]model.Problem, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("apply the UDP tunnel: %w", err)
	}
	if node.Route == nil {
		return nil, nil
	}
	want, ok := node.Route.UDPs.Get(route.UDPDevice)
	if !ok {
		return nil, t.remove()
	}
	return t.put(node.Name, &want, node.Route.UDPPeers), nil
}

// Ahead returns all of Apply but the removal of the device: it is applied before
// routes lead there, and Behind after they have gone elsewhere.
func (t *Tunnel) Ahead() dataplane.Dataplane { return phase{t, true} }

// Behind returns what Ahead leaves out.
func (t *Tunnel) Behind() dataplane.Dataplane { return phase{t, false} }

type phase struct {
	*Tunnel
	puts bool // else it removes
}

func (p phase) Apply(ctx context.Context, node *plan.Node) ([]model.Problem, error) {
	if node.Route == nil || (node.Route.UDPs.Len() > 0) != p.puts {
		return nil, nil
	}
	return p.Tunnel.Apply(ctx, node)
}

func (t *Tunnel) put(node string, want *route.UDP, ranges model.Map[netip.Prefix, netip.Addr]) (problems []model.Problem) {
	refused := func(err error) { problems = append(problems, refusal(node, want, err)) }
	old := t.path.Load()
	if old == nil {
		old = &path{peers: &peers{}}
		t.ranges = model.Map[netip.Prefix, netip.Addr]{}
	}
	next := *old
	if next.device == nil || next.device.lost() {
		device, err := openDevice(want.Name)
		if err != nil {
			refused(err)
			return problems
		}
		next.device = device
	}
	if err := setLink(want.Name, want.MTU); err != nil {
		refused(err)
	}
	for family := range want.Locals {
		for _, err := range next.listen(family, want, old) {
			refused(err)
		}
	}
	next.peers = old.peers.with(t.ranges, ranges)
	t.ranges, t.removed = ranges, false
	t.publish(&next)
	return problems
}

// listen opens the sockets of one family that old does not have. Without a
// socket on the new port, the old one goes on.
func (p *path) listen(family int, want *route.UDP, old *path) (failed []error) {
	open := func(port uint16) *socket {
		at := netip.AddrPortFrom(want.Locals[family], port)
		if !at.Addr().IsValid() || port == 0 {
			return nil
		}
		for _, s := range []*socket{old.current[family], old.other[family]} {
			if s != nil && s.at == at {
				return s
			}
		}
		s, err := listen(at)
		if err != nil {
			failed = append(failed, err)
		}
		return s
	}
	p.other[family] = open(want.OtherPort)
	p.current[family] = open(want.Port)
	if p.current[family] == nil && want.Locals[family].IsValid() {
		p.current[family] = old.current[family]
	}
	return failed
}

func (t *Tunnel) remove() error {
	if t.removed {
		return nil
	}
	if err := removeLink(route.UDPDevice); err != nil {
		return err
	}
	t.publish(nil)
	t.removed = true
	return nil
}

// publish makes packets take the path, and closes what only the old one used.
func (t *Tunnel) publish(next *path) {
	kept := next.files()
	for file := range t.path.Swap(next).files() {
		if _, ok := kept[file]; !ok {
			_ = file.Close()
		}
	}
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// refusal is the Problem of what the kernel refused.
func refusal(node string, want *route.UDP, err error) model.Problem {
	reason, remedy := "KernelRefused", "report it with the output of fairlead status"
	switch {
	case errors.Is(err, errForeign):
		reason, remedy = "Conflict", "remove or rename it (ip link); it is not overwritten"
	case errors.Is(err, unix.EADDRINUSE):
		reason = "PortInUse"
		remedy = "stop the program that uses it (ss -ulpn), or change spec.udp.port of Network/default"
	case errors.Is(err, unix.EBUSY):
		reason, remedy = "DeviceInUse", "another process holds the device; if it is not an agent that is about to end, stop it"
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		reason = "KernelUnsupported"
		remedy = "load the kernel's module tun, and let the agent's container have " + tunPath
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		reason = "PermissionDenied"
		remedy = "run the agent privileged, with CAP_NET_ADMIN and access to " + tunPath
	case errors.Is(err, unix.EAFNOSUPPORT):
		reason, remedy = "KernelUnsupported", "enable IPv6 on the node, or remove its IPv6 address from the Node"
	}
	return model.Problem{
		Kind: "Node", Name: node, Field: "link " + want.Name, Reason: reason,
		Message: "the kernel refused a part of the UDP tunnel: " + err.Error(),
		Remedy:  remedy,
	}
}
