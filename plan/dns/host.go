package dns

import (
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// hostChange is what one label below a Service meant and means.
type hostChange struct{ was, is []netip.Addr }

// redoHosts plans the names of endpoints anew that changed, below that of their
// Service, and the reverse names.
func (c *computation) redoHosts(service Name, was, is []*model.Hosts) {
	labels := map[string]*hostChange{}
	var buffer []byte
	touch := func(all, others []*model.Hosts) {
		for _, hosts := range all {
			if slices.Contains(others, hosts) {
				continue
			}
			for i := range hosts.Hosts {
				if buffer = appendHost(buffer[:0], &hosts.Hosts[i]); labels[string(buffer)] == nil {
					labels[string(buffer)] = &hostChange{}
				}
			}
		}
	}
	touch(was, is)
	touch(is, was)
	if len(labels) == 0 {
		return
	}
	each := func(all []*model.Hosts, do func(*hostChange, netip.Addr)) {
		for _, hosts := range all {
			for i := range hosts.Hosts {
				buffer = appendHost(buffer[:0], &hosts.Hosts[i])
				if change := labels[string(buffer)]; change != nil {
					do(change, hosts.Hosts[i].Address)
				}
			}
		}
	}
	each(was, func(change *hostChange, addr netip.Addr) { change.was = append(change.was, addr) })
	each(is, func(change *hostChange, addr netip.Addr) { change.is = append(change.is, addr) })
	for label, change := range labels {
		change.was, change.is = sorted(change.was), sorted(change.is)
		if !slices.Equal(change.was, change.is) {
			c.redoHost(service.child(label), change)
		}
	}
}

func (c *computation) redoHost(name Name, change *hostChange) {
	if name == "" {
		return
	}
	if len(change.is) == 0 {
		c.names.without(name)
	} else {
		c.names.with(name, recordsOf(change.is))
	}
	for _, addr := range change.was {
		if !slices.Contains(change.is, addr) {
			c.unpoint(addr, name)
		}
	}
	for _, addr := range change.is {
		if !slices.Contains(change.was, addr) {
			c.point(addr, name)
		}
	}
}

// appendHost appends the label of an endpoint: its hostname or, without one, a
// label made of its address, which is as stable as the endpoint itself.
func appendHost(to []byte, host *model.Host) []byte {
	if host.Hostname == "" {
		return appendDashed(to, host.Address)
	}
	for i := range len(host.Hostname) {
		b := host.Hostname[i]
		if b >= 'A' && b <= 'Z' {
			b += 'a' - 'A'
		}
		to = append(to, b)
	}
	return to
}

// appendDashed appends the label of an address: 10-0-0-1, or 2001-db8--1. It
// begins and ends with a digit, as hostnames do that everybody understands.
func appendDashed(to []byte, addr netip.Addr) []byte {
	start := len(to)
	to = addr.WithZone("").AppendTo(to)
	if to[start] == ':' {
		to = slices.Insert(to, start, '0')
	}
	if to[len(to)-1] == ':' {
		to = append(to, '0')
	}
	for i := start; i < len(to); i++ {
		if to[i] == '.' || to[i] == ':' {
			to[i] = '-'
		}
	}
	return to
}

// hostName is the name of an endpoint below that of its Service. It is the one
// that its reverse name has, so that all are the same piece of memory.
func (c *computation) hostName(addr netip.Addr, label []byte, service Name) Name {
	if records := c.reverse.get(addr); records != nil {
		for _, name := range records.PTR {
			if name.label() == string(label) && name.parent() == service {
				return name
			}
		}
	}
	return service.child(string(label))
}

// point makes a name one of those that an address has.
func (c *computation) point(addr netip.Addr, name Name) {
	var all []Name
	if old := c.reverse.get(addr); old != nil {
		all = old.PTR
	}
	if at, ok := slices.BinarySearch(all, name); !ok {
		c.reverse.with(addr, pointersTo(slices.Insert(slices.Clone(all), at, name)))
	}
}

// unpoint is point's inverse.
func (c *computation) unpoint(addr netip.Addr, name Name) {
	old := c.reverse.get(addr)
	if old == nil {
		return
	}
	all := slices.DeleteFunc(slices.Clone(old.PTR), func(n Name) bool { return n == name })
	if len(all) == 0 {
		c.reverse.without(addr)
		return
	}
	c.reverse.with(addr, pointersTo(all))
}

// recordsOf is one piece of memory if there is one address, which is how nearly
// all names of a large cluster are.
func recordsOf(addrs []netip.Addr) *Records {
	if len(addrs) != 1 {
		return &Records{Addrs: addrs}
	}
	one := &struct {
		Records
		addrs [1]netip.Addr
	}{addrs: [1]netip.Addr(addrs)}
	one.Addrs = one.addrs[:]
	return &one.Records
}

// pointersTo is like recordsOf.
func pointersTo(names []Name) *Records {
	if len(names) != 1 {
		return &Records{PTR: names}
	}
	one := &struct {
		Records
		names [1]Name
	}{names: [1]Name(names)}
	one.PTR = one.names[:]
	return &one.Records
}

// addressesOf are those of a headless Service.
func addressesOf(all []*model.Hosts) (addrs []netip.Addr) {
	count := 0
	for _, hosts := range all {
		count += len(hosts.Hosts)
	}
	addrs = make([]netip.Addr, 0, count)
	for _, hosts := range all {
		for i := range hosts.Hosts {
			addrs = append(addrs, hosts.Hosts[i].Address)
		}
	}
	return sorted(addrs)
}

// sorted sorts in place, and leaves out what comes twice.
func sorted(addrs []netip.Addr) []netip.Addr {
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}
