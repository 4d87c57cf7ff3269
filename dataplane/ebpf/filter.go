package ebpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/whole"
)

// Where our filters are. The preference is before those that the kernel gives
// to filters without one.
const (
	preference = 250
	handle     = 1
)

// putFilter puts a program on one way of a network interface, in the place of
// the one of this name that is there, without a packet between.
func putFilter(link rtnl.Link, parent uint32, name string, program *ebpf.Program) error {
	if err := needClsact(link); err != nil {
		return err
	}
	device := link.Attrs().Name
	filters, err := listFilters(link, parent)
	if err != nil {
		return err
	}
	for _, filter := range filters {
		if attrs := filter.Attrs(); attrs.Priority == preference && !isNamed(filter, name) {
			return fmt.Errorf("a foreign tc filter of %s has preference %d: %w", device, preference, unix.EEXIST)
		}
	}
	filter := &rtnl.BpfFilter{
		FilterAttrs:  filterAttrs(link, parent),
		Fd:           program.FD(),
		Name:         name,
		DirectAction: true,
	}
	if err := rtnl.FilterReplace(filter); err != nil {
		return fmt.Errorf("add tc filter %s (CONFIG_NET_CLS_BPF) to %s: %w", name, device, err)
	}
	return nil
}

// needClsact adds the qdisc that filters are in, if it is not there.
func needClsact(link rtnl.Link) error {
	qdisc := &rtnl.Clsact{QdiscAttrs: rtnl.QdiscAttrs{
		LinkIndex: link.Attrs().Index,
		Handle:    rtnl.MakeHandle(0xffff, 0),
		Parent:    rtnl.HANDLE_CLSACT,
	}}
	if err := rtnl.QdiscAdd(qdisc); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add qdisc clsact (Linux 4.5, CONFIG_NET_SCH_INGRESS) to %s: %w", link.Attrs().Name, err)
	}
	return nil
}

// findFilter returns the filter of a name, or nil.
func findFilter(link rtnl.Link, parent uint32, name string) (*rtnl.BpfFilter, error) {
	filters, err := listFilters(link, parent)
	if err != nil {
		return nil, err
	}
	for _, filter := range filters {
		if isNamed(filter, name) {
			return filter.(*rtnl.BpfFilter), nil
		}
	}
	return nil, nil
}

// removeFilter removes the filter of a name, if it is there.
func removeFilter(link rtnl.Link, parent uint32, name string) error {
	filter, err := findFilter(link, parent, name)
	if filter == nil {
		return err
	}
	if err := rtnl.FilterDel(filter); err != nil && !gone(err) {
		return fmt.Errorf("remove tc filter %s from %s: %w", name, link.Attrs().Name, err)
	}
	return nil
}

func listFilters(link rtnl.Link, parent uint32) ([]rtnl.Filter, error) {
	var filters []rtnl.Filter
	err := whole.Read(func() (err error) {
		filters, err = rtnl.FilterList(link, parent)
		return err
	})
	if err != nil && !gone(err) {
		return nil, fmt.Errorf("list tc filters of %s: %w", link.Attrs().Name, err)
	}
	return filters, nil
}

func filterAttrs(link rtnl.Link, parent uint32) rtnl.FilterAttrs {
	return rtnl.FilterAttrs{
		LinkIndex: link.Attrs().Index,
		Parent:    parent,
		Handle:    handle,
		Priority:  preference,
		Protocol:  unix.ETH_P_ALL,
	}
}

func isNamed(filter rtnl.Filter, name string) bool {
	program, ok := filter.(*rtnl.BpfFilter)
	return ok && program.Name == name
}

// gone tells that what was to be changed or listed is not there any more.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)
}
