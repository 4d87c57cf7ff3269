package cli

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/trace"
)

// target is where a packet goes.
type target struct {
	ends     []trace.End // of each family
	port     uint16      // 0: none
	protocol model.Protocol
}

// cutPort takes the port off the name of a destination; empty: there is none, or
// --port has it.
func (s *endSearch) cutPort(name string) (rest, port string, err error) {
	if addr, bad := netip.ParseAddrPort(name); bad == nil {
		rest, port = addr.Addr().String(), strconv.Itoa(int(addr.Port()))
	} else if _, bad := netip.ParseAddr(name); bad == nil {
		rest = name
	} else {
		rest, port, _ = strings.Cut(name, ":")
	}
	if port != "" && s.port != 0 {
		return "", "", refuse("give one of them", "--to %s and --port %d both say a port", name, s.port)
	}
	if s.port != 0 {
		port = strconv.Itoa(int(s.port))
	}
	return rest, port, nil
}

// serviceKey is that of svc/NAME and svc/NAMESPACE/NAME.
func (s *endSearch) serviceKey(name string) (key model.ServiceKey, ok bool) {
	kind, rest, _ := strings.Cut(name, "/")
	if !slices.Contains([]string{"svc", "service", "services"}, kind) || rest == "" {
		return key, false
	}
	if namespace, service, ok := strings.Cut(rest, "/"); ok {
		return model.ServiceKey{Namespace: namespace, Name: service}, true
	}
	return model.ServiceKey{Namespace: s.namespace, Name: rest}, true
}

// other finds what is not named as a Service. Its address may be one's all the
// same.
func (s *endSearch) other(ctx context.Context, name, port string) (t target, err error) {
	if t.ends, err = s.find(ctx, name); err != nil {
		return t, err
	}
	if len(t.ends) == 1 && t.ends[0].Node == "" {
		addr := t.ends[0].Address
		found, err := s.client.ServiceAt(ctx, addr)
		if err != nil {
			return t, err
		}
		if namespace, name, ok := strings.Cut(found, "/"); ok {
			return s.service(ctx, model.ServiceKey{Namespace: namespace, Name: name}, addr, port)
		}
	}
	t.protocol = cmp.Or(s.protocol, model.TCP)
	if port == "" {
		return t, nil
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return t, refuse("give a number from 1 to 65535; names are for Services (svc/NAME:PORT)", "%q is no port", port)
	}
	t.port = uint16(number)
	return t, nil
}

// service finds the addresses and the port of a Service: all ClusterIPs, or the
// one address that is given.
func (s *endSearch) service(ctx context.Context, key model.ServiceKey, addr netip.Addr, port string) (t target, err error) {
	serving, err := s.client.Serving(ctx, key)
	if err != nil {
		return t, err
	}
	if len(serving.Services) == 0 {
		return t, refuse("fairlead service list -A; another namespace is named with -n", "there is no Service %s", key)
	}
	object := &serving.Services[0]
	if object.Served == nil {
		return t, refuse(fmt.Sprintf("name one of its pods: kubectl -n %s get endpointslices -l kubernetes.io/service-name=%s", key.Namespace, key.Name),
			"nobody translates for Service %s: %s", key, object.Unserved)
	}
	if t.port, t.protocol, err = s.servicePort(object.Served, port); err != nil {
		return t, err
	}
	addresses := object.Served.ClusterIPs
	if addr.IsValid() {
		addresses = []netip.Addr{addr}
	}
	for _, addr := range addresses {
		t.ends = append(t.ends, trace.End{Name: "svc/" + key.String(), Address: addr, Service: key.String()})
	}
	return t, nil
}

// servicePort finds a port by its name or number. A number that the Service does
// not have is followed, too: the nodes say what becomes of it.
func (s *endSearch) servicePort(of *model.Service, port string) (uint16, model.Protocol, error) {
	var fit []model.ServicePort
	var all []string
	for _, p := range of.Ports {
		all = append(all, strings.TrimSpace(fmt.Sprintf("%s %d/%s", p.Name, p.Port, p.Protocol)))
		if (port == "" || p.Name == port || strconv.Itoa(int(p.Port)) == port) && (s.protocol == 0 || p.Protocol == s.protocol) {
			fit = append(fit, p)
		}
	}
	number, err := strconv.ParseUint(port, 10, 16)
	switch {
	case len(fit) == 0 && err == nil:
		return uint16(number), cmp.Or(s.protocol, model.TCP), nil
	case len(fit) == 0:
		return 0, 0, refuse("name one of them", "Service %s has no port %q; it has %s", of.ServiceKey, port, strings.Join(all, ", "))
	case slices.ContainsFunc(fit, func(p model.ServicePort) bool { return p.Port != fit[0].Port }):
		return 0, 0, refuse(fmt.Sprintf("name one of them, as in svc/%s:%d", of.ServiceKey, fit[0].Port),
			"Service %s has several ports: %s", of.ServiceKey, strings.Join(all, ", "))
	}
	// Of one number over several protocols, TCP.
	slices.SortFunc(fit, func(a, b model.ServicePort) int { return cmp.Compare(a.Protocol, b.Protocol) })
	return fit[0].Port, fit[0].Protocol, nil
}

// through names the endpoint that a Service is to lead each trip to.
func (s *endSearch) through(ctx context.Context, trips []trace.Trip, backend string) error {
	var asked []netip.AddrPort
	if addr, err := netip.ParseAddrPort(backend); err == nil {
		asked = append(asked, addr)
	} else if addr, err := netip.ParseAddr(backend); err == nil {
		asked = append(asked, netip.AddrPortFrom(addr, 0))
	} else {
		ends, err := s.find(ctx, backend)
		if err != nil {
			return err
		}
		for _, end := range ends {
			asked = append(asked, netip.AddrPortFrom(end.Address, 0))
		}
	}
	fits := false
	for i := range trips {
		for _, addr := range asked {
			if addr.Addr().Is4() == trips[i].To.Address.Is4() && !trips[i].Backend.IsValid() {
				trips[i].Backend, fits = addr, true
			}
		}
	}
	if !fits {
		return refuse("name one of the other family", "--backend %s has no address of a family that is followed", backend)
	}
	return nil
}
