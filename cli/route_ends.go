package cli

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/trace"
)

// finder is what the API server is asked for to find pods; kube.Client has it.
type finder interface {
	FindPod(ctx context.Context, namespace, name string) (kube.PodPlace, error)
	PodAt(ctx context.Context, node string, addr netip.Addr) (model.PodKey, error)
	ServiceAt(ctx context.Context, addr netip.Addr) (string, error)
	Serving(ctx context.Context, of model.ServiceKey) (*kube.Serving, error)
}

// endSearch finds where a packet comes from and goes to.
type endSearch struct {
	client    finder
	cluster   []trace.Place
	namespace string         // of pods and Services that are named without
	port      uint16         // of the destination, if its name does not say it; 0: none
	protocol  model.Protocol // of any port; 0: TCP, unless a Service has only another
}

// trips are from one end to the other, one for each family that both have.
func (s *endSearch) trips(ctx context.Context, from, to string) ([]trace.Trip, error) {
	if _, ok := s.serviceKey(from); ok {
		return nil, refuse("name the pod that sends", "--from %s is a Service: it sends nothing", from)
	}
	sources, err := s.find(ctx, from)
	if err != nil {
		return nil, err
	}
	to, port, err := s.cutPort(to)
	if err != nil {
		return nil, err
	}
	var t target
	if key, ok := s.serviceKey(to); ok {
		t, err = s.service(ctx, key, netip.Addr{}, port)
	} else {
		t, err = s.other(ctx, to, port)
	}
	if err != nil {
		return nil, err
	}
	var trips []trace.Trip
	for _, target := range t.ends {
		for _, source := range sources {
			if source.Node == "" {
				return nil, refuse("kubectl get pods -A -o wide; kubectl get nodes -o wide", "--from %s: no pod and no node of the cluster has this address", from)
			}
			if source.Address.Is4() != target.Address.Is4() {
				continue
			}
			if !source.Pod {
				source.Address = netip.Addr{} // the node chooses by the route
			}
			trip := trace.Trip{From: source, To: target, Port: t.port}
			if t.port != 0 {
				trip.Protocol = t.protocol
			}
			trips = append(trips, trip)
			break
		}
	}
	return trips, nil
}

// refuse says what is wrong with what the user has asked for.
func refuse(next, text string, args ...any) error {
	return &trace.Unasked{Err: fmt.Errorf(text, args...), Next: next}
}

// find finds an end by what the user calls it: an end for each of its
// addresses, the first of each family.
func (s *endSearch) find(ctx context.Context, name string) ([]trace.End, error) {
	if addr, err := netip.ParseAddr(name); err == nil {
		return s.address(ctx, addr.Unmap())
	}
	kind, rest, slash := strings.Cut(name, "/")
	switch {
	case !slash:
		return s.podOrNode(ctx, name)
	case kind == "node" || kind == "nodes":
		return s.node(rest)
	case kind == "pod" || kind == "pods":
		if namespace, pod, ok := strings.Cut(rest, "/"); ok {
			return s.pod(ctx, namespace, pod)
		}
		return s.pod(ctx, s.namespace, rest)
	default:
		return s.pod(ctx, kind, rest)
	}
}

func (s *endSearch) podOrNode(ctx context.Context, name string) ([]trace.End, error) {
	ends, err := s.pod(ctx, s.namespace, name)
	if err == nil || !kube.IsNotFound(err) {
		return ends, err
	}
	if nodes, nodeErr := s.node(name); nodeErr == nil {
		return nodes, nil
	}
	return nil, err
}

func (s *endSearch) pod(ctx context.Context, namespace, name string) ([]trace.End, error) {
	place, err := s.client.FindPod(ctx, namespace, name)
	if kube.IsNotFound(err) {
		return nil, refuse("kubectl get pods -A | grep "+name+"; another namespace is named with -n", "%w", err)
	} else if err != nil {
		return nil, err
	}
	full := namespace + "/" + name
	describe := fmt.Sprintf("see why: kubectl -n %s describe pod %s", namespace, name)
	switch {
	case place.Node == "":
		return nil, refuse(describe, "pod %s is on no node yet", full)
	case place.Phase == "Succeeded" || place.Phase == "Failed":
		return nil, refuse("name a pod that runs: kubectl -n "+namespace+" get pods", "pod %s has finished (%s), and has no address any more", full, place.Phase)
	case len(place.Addresses) == 0:
		return nil, refuse(describe, "pod %s on node %s has no address yet (%s)", full, place.Node, place.Phase)
	}
	var ends []trace.End
	for _, text := range place.Addresses {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("read the addresses of pod %s: %w", full, err)
		}
		ends = append(ends, trace.End{Name: full, Node: place.Node, Address: addr.Unmap(), Pod: !place.HostNetwork})
	}
	return ends, nil
}

func (s *endSearch) node(name string) ([]trace.End, error) {
	at := slices.IndexFunc(s.cluster, func(p trace.Place) bool { return p.Name == name })
	if at < 0 {
		return nil, refuse("kubectl get nodes", "there is no node %s", name)
	}
	var ends []trace.End
	for _, family := range model.Families {
		if addr := s.cluster[at].Address(family); addr.IsValid() {
			ends = append(ends, trace.End{Name: "node/" + name, Node: name, Address: addr})
		}
	}
	if len(ends) == 0 {
		return nil, refuse("give its kubelet --node-ip", "node %s has no address", name)
	}
	return ends, nil
}

// address finds whose an address is: a node's, a pod's, or nobody's of the
// cluster.
func (s *endSearch) address(ctx context.Context, addr netip.Addr) ([]trace.End, error) {
	for _, place := range s.cluster {
		if slices.Contains(place.Addresses, addr) {
			return []trace.End{{Name: "node/" + place.Name, Node: place.Name, Address: addr}}, nil
		}
	}
	end := trace.End{Name: addr.String(), Node: trace.OwnerOf(s.cluster, addr), Address: addr}
	switch {
	case addr.IsLoopback() || addr.IsUnspecified() || addr.IsMulticast() || addr.IsLinkLocalUnicast() && addr.Is6():
		return nil, refuse("name a pod, a node or another address", "%s is no address that packets go to from one machine to another", addr)
	case end.Node == "":
		return []trace.End{end}, nil
	}
	end.Pod = true
	pod, err := s.client.PodAt(ctx, end.Node, addr)
	if err != nil {
		return nil, err
	}
	if pod != (model.PodKey{}) {
		end.Name = pod.String()
	}
	return []trace.End{end}, nil
}
