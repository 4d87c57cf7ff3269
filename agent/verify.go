package agent

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/whole"
)

// difference says in what a pair is not as create left it.
type difference struct{ error }

func differs(format string, args ...any) error { return difference{fmt.Errorf(format, args...)} }

// verify returns a difference, or another error if it could not look.
func (v *veth) verify() error {
	node, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer node.Close()
	host, err := v.verifyHost(node)
	if err != nil {
		return err
	}
	return inside(v.netns, func() error {
		pod, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("open netlink in the pod: %w", err)
		}
		defer pod.Close()
		return v.verifyPod(pod, host.Attrs().Index)
	})
}

// lookUp calls it a difference if there is no such interface, or if it is not as
// it was made.
func lookUp(on *netlink.Handle, name string, mac model.MAC) (netlink.Link, error) {
	link, err := on.LinkByName(name)
	switch {
	case errors.As(err, new(netlink.LinkNotFoundError)):
		return nil, differs("there is no %s: %w", name, err)
	case err != nil:
		return nil, fmt.Errorf("find %s: %w", name, err)
	case link.Attrs().Flags&net.FlagUp == 0:
		return nil, differs("%s is down", name)
	case !bytes.Equal(link.Attrs().HardwareAddr, mac[:]):
		return nil, differs("%s has the MAC address %s, not %s", name, link.Attrs().HardwareAddr, mac)
	}
	return link, nil
}

// verifyTold compares the pair with what the runtime was told of it: the result
// of ADD, to which other plugins may have added.
func (v *veth) verifyTold(told *types100.Result) error {
	of := slices.IndexFunc(told.Interfaces, func(i *types100.Interface) bool {
		return i.Name == v.Interface && i.Sandbox != ""
	})
	if of < 0 {
		return differs("the runtime was told of no %s in the pod", v.Interface)
	}
	if _, mac := hardware(v.AttachmentKey); told.Interfaces[of].Mac != mac.String() {
		return differs("the runtime was told that %s has the MAC address %s, not %s", v.Interface, told.Interfaces[of].Mac, mac)
	}
	for _, want := range v.Addresses {
		if !slices.ContainsFunc(told.IPs, func(ip *types100.IPConfig) bool {
			return ip.Interface != nil && *ip.Interface == of && prefixOf(ip.Address) == model.HostPrefix(want)
		}) {
			return differs("the runtime was not told that %s has the address %s", v.Interface, want)
		}
	}
	return nil
}

func (v *veth) verifyHost(node *netlink.Handle) (netlink.Link, error) {
	host, pod := hardware(v.AttachmentKey)
	link, err := lookUp(node, v.Device, host)
	if err != nil {
		return nil, err
	}
	if want := alias(v.Attachment); link.Attrs().Alias != want {
		return nil, differs("%s has the alias %q, not %q", v.Device, link.Attrs().Alias, want)
	}
	if link.Attrs().Group != model.PodGroup {
		return nil, differs("%s is in the group %d, not %d", v.Device, link.Attrs().Group, model.PodGroup)
	}
	for _, addr := range v.Addresses {
		if err := verifyAddress(link, gateways[model.FamilyOf(addr)]); err != nil {
			return nil, err
		}
		if err := verifyNeighbor(link, addr, pod); err != nil {
			return nil, err
		}
	}
	return link, nil
}

func (v *veth) verifyPod(pod *netlink.Handle, host int) error {
	hostMAC, podMAC := hardware(v.AttachmentKey)
	link, err := lookUp(pod, v.Interface, podMAC)
	if err != nil {
		return fmt.Errorf("in the pod: %w", err)
	}
	if link.Attrs().ParentIndex != host {
		return differs("%s in the pod is not the other end of %s", v.Interface, v.Device)
	}
	for _, addr := range v.Addresses {
		family := model.FamilyOf(addr)
		gateway := gateways[family].Addr()
		err := verifyAddress(link, model.HostPrefix(addr))
		if err == nil && family == model.IPv4 {
			err = verifyRoute(pod, link, model.HostPrefix(gateway), netip.Addr{})
		}
		if err == nil {
			err = verifyRoute(pod, link, defaults[family], gateway)
		}
		if err == nil {
			err = verifyNeighbor(link, gateway, hostMAC)
		}
		if err != nil {
			return fmt.Errorf("in the pod: %w", err)
		}
	}
	return nil
}

// verifyRoutes is of the routes of the node to the pod.
func (v *veth) verifyRoutes() error {
	node, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer node.Close()
	link, err := node.LinkByName(v.Device)
	if err != nil {
		return fmt.Errorf("find %s: %w", v.Device, err)
	}
	for _, addr := range v.Addresses {
		if err := verifyRoute(node, link, model.HostPrefix(addr), netip.Addr{}); err != nil {
			return fmt.Errorf("on the node: %w", err)
		}
	}
	return nil
}

func netlinkFamily(addr netip.Addr) int {
	if addr.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

// verifyRoute wants a route that leaves by the link, through the gateway if it
// is valid.
func verifyRoute(on *netlink.Handle, link netlink.Link, to netip.Prefix, gateway netip.Addr) error {
	found, err := whole.List(func() ([]netlink.Route, error) {
		return on.RouteListFiltered(netlinkFamily(to.Addr()), &netlink.Route{LinkIndex: link.Attrs().Index}, netlink.RT_FILTER_OIF)
	})
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	if !slices.ContainsFunc(found, func(r netlink.Route) bool {
		via, _ := netip.AddrFromSlice(r.Gw)
		return r.Dst != nil && prefixOf(*r.Dst) == to && via.Unmap() == gateway
	}) {
		return differs("there is no route to %s by %s", to, link.Attrs().Name)
	}
	return nil
}
