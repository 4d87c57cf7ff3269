package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
)

// serviceAddress is the ClusterIP of Service n.
func serviceAddress(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{172, 16 + byte(n>>16), byte(n >> 8), byte(n)})
}

// withServices adds Services that lead to the pod of node 1, ten endpoints each
// but for the last one, which is the one that is called: it has only that one.
func withServices(s *model.Snapshot, services int) *model.Snapshot {
	for n := range services {
		key := model.ServiceKey{Namespace: "default", Name: fmt.Sprint("service", n)}
		s.Services = s.Services.With(key, &model.Service{
			ServiceKey: key, ClusterIPs: []netip.Addr{serviceAddress(n)},
			Ports: []model.ServicePort{{Protocol: model.TCP, Port: 80}},
		})
		slice := &model.EndpointSlice{
			SliceKey: model.SliceKey{Namespace: "default", Name: key.Name}, Service: key.Name,
			Ports: []model.EndpointPort{{Protocol: model.TCP, Port: port}},
		}
		slice.Endpoints = append(slice.Endpoints, model.Endpoint{Address: podAddress(1), Node: nodeName(1), Ready: true, Serving: true})
		for more := 1; more < 10 && n < services-1; more++ {
			addr := netip.AddrFrom4([4]byte{10, 244, 1, byte(5 + more)})
			slice.Endpoints = append(slice.Endpoints, model.Endpoint{Address: addr, Node: nodeName(1), Ready: true, Serving: true})
		}
		s.Slices = s.Slices.With(slice.SliceKey, slice)
	}
	if services > 0 {
		s.ServiceCIDRs = s.ServiceCIDRs.With("all", &model.ServiceCIDR{Name: "all", Prefixes: []netip.Prefix{netip.MustParsePrefix("172.16.0.0/12")}})
	}
	return s
}

// called makes who connects do so by the last of so many Services.
func called(services int) recipe {
	return func(ctx context.Context, w *world, node int) error {
		w.service = serviceAddress(services - 1)
		return fairlead(model.BackendVXLAN, true, services)(ctx, w, node)
	}
}

// connects returns how many connections can be made and ended in a second, one
// after the other: without the slowest in twenty, in which something else had the
// processor.
func (w *world) connects(duration time.Duration) (float64, error) {
	_, whole, err := w.connecting(duration)
	if err != nil {
		return 0, err
	}
	slices.Sort(whole)
	whole = whole[:len(whole)-len(whole)/20]
	sum := 0.0
	for _, seconds := range whole {
		sum += seconds
	}
	return float64(len(whole)) / sum, nil
}

// connectsFast returns the inverse of the median time to connect, in seconds.
func (w *world) connectsFast(duration time.Duration) (float64, error) {
	times, _, err := w.connecting(duration)
	if err != nil {
		return 0, err
	}
	return 1 / times.median(), nil
}

// connecting returns the seconds that each connection took to be made, and those
// from its beginning to its end.
//
// One thread is both ends: the kernel carries a packet from pod to pod while the
// call that sends it lasts, so that no scheduler is between them. With a thread
// for the other end, on two processors that others use as well, the queue of
// connections that nobody had accepted yet was full after a hundred, and the
// next one waited a second to be sent again.
func (w *world) connecting(duration time.Duration) (made, whole sample, err error) {
	to := &unix.SockaddrInet4{Addr: podAddress(1).As4(), Port: port}
	if w.service.IsValid() {
		to = &unix.SockaddrInet4{Addr: w.service.As4(), Port: 80}
	}
	for _, node := range w.nodes {
		if err := node.do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }); err != nil {
			return nil, nil, fmt.Errorf("forget connections: %w", err)
		}
	}
	listener, err := w.listen()
	if err != nil {
		return nil, nil, err
	}
	defer unix.Close(listener)
	err = w.pods[0].do(func() error {
		defer w.on(0)()
		for began := time.Now(); time.Since(began) < duration; {
			one := time.Now()
			took, err := connect(to, listener)
			if err != nil {
				return err
			}
			made, whole = append(made, took.Seconds()), append(whole, time.Since(one).Seconds())
		}
		return nil
	})
	return made, whole, err
}

// connect makes a connection and accepts it. It ends with a reset, so that no
// port waits for its end.
func connect(to unix.Sockaddr, listener int) (took time.Duration, err error) {
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := unix.Connect(client, to); err != nil {
		return 0, errors.Join(fmt.Errorf("connect: %w", err), unix.Close(client))
	}
	took = time.Since(began)
	server, _, err := unix.Accept(listener)
	if err != nil {
		return 0, errors.Join(fmt.Errorf("accept: %w", err), unix.Close(client))
	}
	return took, errors.Join(
		unix.SetsockoptLinger(client, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
		unix.Close(client), unix.Close(server))
}
