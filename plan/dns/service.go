package dns

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// view is what there is to know of a Service. The zero value is one that is not
// there.
type view struct {
	exists   bool
	addrs    []netip.Addr // its own
	ports    []model.ServicePort
	external string
	hosts    []*model.Hosts // of a headless one, sorted by name
}

// viewOf is how a Service was or is. One that has just become another kind may be
// known as both for a moment; as the one with addresses it has most to say.
func (m *made) viewOf(key model.ServiceKey) view {
	if s, ok := m.services.Get(key); ok {
		return view{exists: true, addrs: s.ClusterIPs, ports: s.Ports}
	}
	n, ok := m.others.Get(key)
	if !ok {
		return view{}
	}
	v := view{exists: true, addrs: n.ClusterIPs, external: n.External}
	if len(v.addrs) > 0 {
		v.ports = n.Ports // of others, only endpoints have ports
	}
	if g, ok := m.groups.Get(key); ok && len(v.addrs) == 0 && v.external == "" {
		for _, key := range g.keys {
			if hosts, ok := m.hosts.Get(key); ok {
				v.hosts = append(v.hosts, hosts)
			}
		}
	}
	return v
}

// headless tells whether the names of a Service are those of its endpoints.
func (v *view) headless() bool { return v.exists && len(v.addrs) == 0 && v.external == "" }

// redo plans a Service anew.
func (c *computation) redo(key model.ServiceKey) {
	name := c.svc.child(key.Namespace).child(strings.ToLower(key.Name))
	was, is := c.before.viewOf(key), c.viewOf(key)
	c.wrong = c.wrong.Without(key)
	if name == "" {
		if is.exists {
			c.wrong = c.wrong.With(key, tooLong(key, c.Origin))
		}
		return
	}
	c.redoHosts(name, was.hosts, is.hosts)
	for _, addr := range was.addrs {
		if !slices.Contains(is.addrs, addr) {
			c.unpoint(addr, name)
		}
	}
	for _, addr := range is.addrs {
		if !slices.Contains(was.addrs, addr) {
			c.point(addr, name)
		}
	}
	for _, of := range was.portNames() {
		protocol := name.child(of.protocol)
		c.names.without(protocol.child(of.name))
		c.names.without(protocol)
	}
	own := c.records(name, &is, key)
	if own == nil {
		c.names.without(name)
		return
	}
	c.names.with(name, own)
}

// records are those of the name of a Service; nil if there is no such name. Those
// of its ports it plans itself.
func (c *computation) records(name Name, v *view, key model.ServiceKey) *Records {
	switch {
	case !v.exists, v.headless() && len(v.hosts) == 0:
		return nil
	case v.external != "":
		return &Records{CNAME: c.external(name, v.external, key)}
	}
	own := &Records{Addrs: v.addrs}
	if v.headless() {
		if own.Addrs = addressesOf(v.hosts); len(own.Addrs) == 0 {
			return nil
		}
	}
	var from []int // where the SRV of each port begin
	names := v.portNames()
	for _, of := range names {
		from = append(from, len(own.SRV))
		own.SRV = c.places(own.SRV, name, v, of)
	}
	all := own.SRV
	for i, of := range names {
		to := len(all)
		if i+1 < len(names) {
			to = from[i+1]
		}
		if places := all[from[i]:to:to]; of.name != "" && len(places) > 0 {
			protocol := name.child(of.protocol)
			c.names.with(protocol, c.empty)
			c.names.with(protocol.child(of.name), &Records{SRV: places})
		}
	}
	if len(names) > 1 {
		own.SRV = distinct(all)
	}
	return own
}

// external is what a Service of type ExternalName stands for; empty if that is no
// name.
func (c *computation) external(name Name, text string, key model.ServiceKey) Name {
	target, err := ParseName(text)
	switch {
	case err == nil && target == name:
		err = fmt.Errorf("%s is the name of the Service itself", text)
	case err == nil:
		if _, address := netip.ParseAddr(text); address == nil {
			err = fmt.Errorf("%s is an address, and not a name", text)
		}
	}
	if err != nil {
		c.wrong = c.wrong.With(key, badExternal(key, err))
		return ""
	}
	return target
}

// portName is a port as names say it: _http, of _tcp. A port without a name has
// none in either place.
type portName struct {
	protocol, name string
	of             model.EndpointPort // without its number
}

// portNames are those of a Service, sorted: of its own or, if it is headless, of
// its endpoints.
func (v *view) portNames() (all []portName) {
	add := func(name string, protocol model.Protocol) {
		p := portName{protocol: "_" + strings.ToLower(protocol.String()), of: model.EndpointPort{Name: name, Protocol: protocol}}
		if name != "" {
			p.name = "_" + strings.ToLower(name)
		}
		if !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	if v.external != "" {
		return nil
	}
	if !v.headless() {
		for i := range v.ports {
			add(v.ports[i].Name, v.ports[i].Protocol)
		}
	}
	for _, hosts := range v.hosts {
		for _, port := range hosts.Ports {
			add(port.Name, port.Protocol)
		}
	}
	slices.SortFunc(all, func(a, b portName) int {
		return cmp.Or(cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.name, b.name))
	})
	return all
}

// weight is that of all SRV records: no place is better than another.
const weight = 100

// places appends where a port is.
func (c *computation) places(to []SRV, name Name, v *view, of portName) []SRV {
	start := len(to)
	if !v.headless() {
		for _, port := range v.ports {
			if port.Name == of.of.Name && port.Protocol == of.of.Protocol {
				to = append(to, SRV{Target: name, Port: port.Port, Weight: weight})
			}
		}
	}
	var buffer []byte
	for _, hosts := range v.hosts {
		for _, port := range hosts.Ports {
			if port.Name != of.of.Name || port.Protocol != of.of.Protocol {
				continue
			}
			to = slices.Grow(to, len(hosts.Hosts))
			for i := range hosts.Hosts {
				buffer = appendHost(buffer[:0], &hosts.Hosts[i])
				if target := c.hostName(hosts.Hosts[i].Address, buffer, name); target != "" {
					to = append(to, SRV{Target: target, Port: port.Port, Weight: weight})
				}
			}
		}
	}
	places := to[start:]
	slices.SortFunc(places, compareSRV)
	return to[:start+len(slices.Compact(places))]
}

func compareSRV(a, b SRV) int {
	return cmp.Or(strings.Compare(string(a.Target), string(b.Target)), cmp.Compare(a.Port, b.Port))
}

// distinct leaves out what comes twice, as DNS over UDP and TCP does, which have
// the same number. It is the same slice if nothing does.
func distinct(all []SRV) []SRV {
	sorted := slices.Clone(all)
	slices.SortFunc(sorted, compareSRV)
	if sorted = slices.Compact(sorted); len(sorted) == len(all) {
		return all
	}
	return sorted
}
