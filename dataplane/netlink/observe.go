package netlink

import (
	"fmt"
	"strings"

	rtnl "github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/plan/route"
	"github.com/fairlead-net/fairlead/whole"
)

// observe reads back all that is ours. Network interfaces come first: the kernel
// lists them under the lock under which it drops routes, and it notifies of a
// lost link or address before it does (6.18: __dev_notify_flags, __inet_del_ifa).
func (b *batch) observe() error {
	var links []rtnl.Link
	err := dump("network interfaces", func() (err error) {
		links, err = b.handle.LinkList()
		return err
	})
	if err != nil {
		return err
	}
	clear(b.indexes)
	names, ours := map[int]string{}, map[int]string{}
	for _, link := range links {
		name, index := link.Attrs().Name, link.Attrs().Index
		names[index] = name
		b.indexes[name] = index
		if strings.HasPrefix(name, route.TunnelPrefix) {
			ours[index] = name
		}
	}
	b.names = names
	b.observeVXLANs(links, names)
	if err := b.observeIPIPs(links); err != nil {
		return err
	}
	if err := b.observeAddresses(ours); err != nil {
		return err
	}
	if err := b.observeNeighbors(ours); err != nil {
		return err
	}
	if err := b.observeRoutes(names); err != nil {
		return err
	}
	b.observeSysctls()
	return nil
}

// dump repeats a listing that the kernel says was interrupted by changes.
func dump(what string, list func() error) error {
	if err := whole.Read(list); err != nil {
		return fmt.Errorf("read back %s: %w", what, err)
	}
	return nil
}
