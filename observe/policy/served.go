package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/service"
)

// served are the ways by a Service: to each of the endpoints that new
// connections of the sender may be led to.
func (f finder) served(e *Explanation, s *model.Service, port Port) (ways []way, err error) {
	of, err := portOf(s, port)
	if err != nil {
		return nil, err
	}
	node, err := f.nodeOf(e.From)
	if err != nil {
		return nil, err
	}
	planned, _ := service.Compute(nil, f.Snapshot, node)
	for _, vip := range e.To.Addresses {
		source := first(e.From.Addresses, model.FamilyOf(vip))
		if !source.IsValid() {
			continue
		}
		frontend, ok := planned.Frontends.Get(service.VIP{Protocol: of.Protocol, At: netip.AddrPortFrom(vip, of.Port)})
		if !ok || frontend.Port.Service != s.ServiceKey {
			return nil, &Untold{fmt.Sprintf("%s port %d is not served as that of Service %s", vip, of.Port, s), "fairlead service show " + s.String()}
		}
		answer := frontend.Inside
		if e.From.Kind == Outside {
			answer = frontend.Outside
		}
		if !frontend.Allows(source) {
			return nil, &Untold{fmt.Sprintf("no policy is asked: spec.loadBalancerSourceRanges of Service %s does not have %s", s, source), "fairlead service show " + s.String()}
		}
		if answer.Do != service.Forward {
			return nil, &Untold{fmt.Sprintf("no policy is asked: no endpoint of Service %s takes connections of %s", s, e.From.Name), "fairlead service show " + s.String()}
		}
		backends, _ := planned.Backends.Get(frontend.Pool(answer))
		for _, target := range backends.Targets {
			to, err := f.at(target.Addr())
			if err != nil {
				return nil, err
			}
			to.Addresses = []netip.Addr{target.Addr()}
			w := way{from: e.From, to: to, source: source, seenAs: source, at: target, protocol: of.Protocol, called: netip.AddrPortFrom(vip, of.Port)}
			if node, ok := f.Nodes.Get(e.From.Node); ok && frontend.Masquerade == service.FromAll && to.Node != node.Name {
				w.seenAs = node.Address(model.FamilyOf(source))
			}
			ways = append(ways, w)
		}
		if e.From.Kind == Outside && frontend.Masquerade != service.FromNode {
			e.Notes = []string{"where it does not enter by the node of the endpoint, the endpoint sees the address of the node that it enters by, and is judged by that (externalTrafficPolicy: Local keeps the client's)"}
		}
	}
	return ways, nil
}

// nodeOf is the node that leads packets of an end on: for one outside, any.
func (f finder) nodeOf(end End) (string, error) {
	name := end.Node
	for other := range f.Nodes.All() {
		if end.Kind == Outside && (name == "" || other < name) {
			name = other
		}
	}
	if _, ok := f.Nodes.Get(name); !ok {
		return "", &Untold{fmt.Sprintf("node %q, which leads packets of %s to endpoints, is not known", name, end.Name), "a snapshot needs nodes: kubectl get nodes -o yaml"}
	}
	return name, nil
}

// portOf finds a port of a Service by its name or number.
func portOf(s *model.Service, port Port) (model.ServicePort, error) {
	var fit []model.ServicePort
	var all []string
	for _, p := range s.Ports {
		all = append(all, strings.TrimSpace(fmt.Sprintf("%s %d/%s", p.Name, p.Port, p.Protocol)))
		if (port.Name == "" || p.Name == port.Name || strconv.Itoa(int(p.Port)) == port.Name) &&
			(port.Number == 0 || p.Port == port.Number) && (port.Protocol == 0 || p.Protocol == port.Protocol) {
			fit = append(fit, p)
		}
	}
	// Of the same number, that of TCP is meant.
	if len(fit) > 1 && port.Number != 0 {
		fit = slices.DeleteFunc(fit, func(p model.ServicePort) bool { return p.Protocol != model.TCP })
	}
	if len(fit) == 1 {
		return fit[0], nil
	}
	what := fmt.Sprintf("Service %s has no such port", s)
	if len(fit) > 1 {
		what = fmt.Sprintf("Service %s has several ports", s)
	}
	return model.ServicePort{}, &Untold{what, "--port with one of " + strings.Join(all, ", ")}
}
