package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pairs are the fixed pods between which something flows all the time: on one
// link, and through the router both ways.
var pairs = [][2]string{{"fixed1", "fixed2"}, {"fixed1", "fixed3"}, {"fixed3", "fixed2"}}

// nodeOf is the node of a fixed pod.
func nodeOf(name string) string { return strings.Replace(name, "fixed", "node", 1) }

// runTraffic keeps all flows going until ctx ends.
func (s *soak) runTraffic(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	for _, pair := range pairs {
		all.Go(func() { s.runPair(ctx, pair[0], pair[1]) })
	}
	for _, from := range []string{"fixed1", "node1", "internet"} {
		all.Go(func() { s.runRequests(ctx, from) })
	}
	all.Go(func() { s.runDatagrams(ctx) })
}

// end finds a fixed pod: its process, which has the kubelet's /etc/hosts of the
// pod, and what its network has. The status may be older than a reboot.
func (s *soak) end(name string) (*end, error) {
	v := s.view()
	if v == nil {
		return nil, errors.New("the API server has not been seen")
	}
	at := slices.IndexFunc(v.pods, func(p pod) bool { return p.name() == namespace+"/"+name })
	if at < 0 {
		return nil, fmt.Errorf("there is no pod %s", name)
	}
	paths, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		text, _ := os.ReadFile(path) // none if it ends meanwhile
		if !strings.Contains(string(text), v.pods[at].Metadata.UID+"/etc-hosts /etc/hosts ") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return nil, err
		}
		netns, err := os.Open(filepath.Join(filepath.Dir(path), "ns", "net"))
		if err != nil {
			return nil, err
		}
		e := &end{name: name, node: nodeOf(name), pid: pid, netns: netns}
		err = e.within(func() (err error) {
			_, e.addrs, err = lookPod("/proc/thread-self/ns/net")
			return err
		})
		if err == nil && len(e.addrs) == 0 {
			err = fmt.Errorf("pod %s has no address", name)
		}
		if err != nil {
			netns.Close()
			return nil, err
		}
		return e, nil
	}
	return nil, fmt.Errorf("pod %s has no process", name)
}

// alive says whether the process of the pod is there.
func (e *end) alive() bool { return !errors.Is(syscall.Kill(e.pid, 0), syscall.ESRCH) }

// life is a context that ends with ctx or with one of the pods.
func life(ctx context.Context, ends ...*end) (context.Context, context.CancelFunc) {
	alive, cancel := context.WithCancel(ctx)
	go func() {
		for alive.Err() == nil {
			if slices.ContainsFunc(ends, func(e *end) bool { return !e.alive() }) {
				cancel()
			}
			pause(alive, 100*time.Millisecond)
		}
	}()
	return alive, cancel
}

// runPair keeps pings and streams between two pods going, over their reboots.
func (s *soak) runPair(ctx context.Context, from, to string) {
	for ; ctx.Err() == nil; pause(ctx, time.Second) {
		a, err := s.end(from)
		if err != nil {
			continue // watchCluster says if it is missing for too long
		}
		if b, err := s.end(to); err == nil {
			s.flow(ctx, a, b)
			b.netns.Close()
		}
		a.netns.Close()
	}
}

// flow runs pings and streams while both pods live.
func (s *soak) flow(ctx context.Context, a, b *end) {
	alive, cancel := life(ctx, a, b)
	defer cancel()
	nodes := []string{a.node, b.node}
	var all sync.WaitGroup
	defer all.Wait()
	for _, target := range b.addrs {
		family := map[bool]string{true: "IPv4", false: "IPv6"}[target.Is4()]
		what := func(kind string) string { return fmt.Sprintf("%s %s to %s, %s", kind, a.name, b.name, family) }
		all.Go(func() {
			err := ping(alive, a, target, func(n int) { s.sent(what("pings"), n) }, func(count int, since, until time.Time) {
				if alive.Err() != nil && ctx.Err() == nil {
					return // the pod has ended, which is told elsewhere
				}
				s.lost(loss{what("pings"), count, since, until, links | tunnels, nodes})
			})
			if err != nil && alive.Err() == nil {
				s.log("%v", err)
			}
		})
		all.Go(func() {
			opened := true
			for ; alive.Err() == nil; pause(alive, time.Second) {
				began := time.Now()
				err := stream(alive, a, b, target, func(n int) { s.sent(what("stream"), n) }, func(since, until time.Time) {
					if alive.Err() == nil {
						s.lost(loss{what("stall of stream"), 1, since, until, links | tunnels, nodes})
					}
				})
				// The pod may have ended a moment ago.
				if pause(alive, 500*time.Millisecond); err == nil || alive.Err() != nil {
					continue
				}
				if again := errors.Is(err, errNotOpened); !again || opened {
					s.streamEnded(what("stream"), err, began, nodes)
				}
				opened = !errors.Is(err, errNotOpened)
			}
		})
	}
}

// streamEnded tells of a stream that ended though its pods live. A window excuses
// one that could not be opened, but none that was established.
func (s *soak) streamEnded(what string, err error, began time.Time, nodes []string) {
	excuse := s.windows.excuse(links|tunnels, nodes, began, time.Now())
	if excuse != "" && errors.Is(err, errNotOpened) {
		s.log("%s: %v (%s)", what, err, excuse)
		return
	}
	s.breaks("%s ended: %v", what, err)
}

func (s *soak) sent(what string, count int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.r.traffic[what]
	t.sent += count
	s.r.traffic[what] = t
}

// lost judges a loss.
func (s *soak) lost(l loss) {
	excuse := s.windows.excuse(l.needs, l.nodes, l.from, l.until)
	busy := s.busy.around(l.from, l.until)
	s.mu.Lock()
	t := s.r.traffic[l.what]
	switch {
	case excuse != "":
		t.excused += l.count
	case busy:
		t.busy += l.count
	default:
		t.lost += l.count
	}
	t.gap = max(t.gap, l.until.Sub(l.from))
	s.r.traffic[l.what] = t
	s.mu.Unlock()
	text := fmt.Sprintf("%s: %d lost in %s from %s", l.what, l.count, l.until.Sub(l.from).Round(time.Millisecond), l.from.UTC().Format("15:04:05.000"))
	switch {
	case excuse != "":
		s.log("%s (%s)", text, excuse)
	case busy:
		s.log("%s (this machine was busy)", text)
	default:
		s.breaks("%s", text)
	}
}

// Of the fixed Service.
const (
	fixedService  = "fixed"
	fixedPort     = 80
	fixedNodePort = 30080
	fixedEndpoint = "fixed3"
	entryNode     = "node2" // whose node port is called from outside
)

// runRequests asks the fixed Service twice a second, from a pod, a node, or
// outside.
func (s *soak) runRequests(ctx context.Context, from string) {
	var source *end
	met, began := map[netip.AddrPort]bool{}, time.Now()
	for ; ctx.Err() == nil; pause(ctx, 500*time.Millisecond) {
		do := func(f func() error) error { return s.lab.World().Do(from, f) }
		leave, nodes := func() {}, []string{from, nodeOf(fixedEndpoint)}
		switch from {
		case "fixed1":
			if source != nil && !source.alive() {
				source.netns.Close()
				source = nil
			}
			if source == nil {
				var err error
				if source, err = s.end(from); err != nil {
					continue
				}
			}
			do, nodes[0] = source.within, source.node
		case "internet":
			nodes[0] = entryNode
		default:
			var ok bool
			if leave, ok = s.machine(from); !ok {
				continue
			}
		}
		// A node hears of the Service a moment after its pod is ready.
		s.request(ctx, from, do, nodes, func(at netip.AddrPort, err error) bool {
			met[at] = met[at] || err == nil || time.Since(began) > firstWithin
			return met[at]
		})
		leave()
	}
	if source != nil {
		source.netns.Close()
	}
}

// firstWithin is when the first request to an address has to be met.
const firstWithin = 20 * time.Second

// request asks once at each address. Those that do not count yet are left out.
func (s *soak) request(ctx context.Context, from string, do func(func() error) error, nodes []string, counts func(at netip.AddrPort, err error) bool) {
	var targets []netip.AddrPort
	if from == "internet" {
		for _, addr := range s.entry {
			targets = append(targets, netip.AddrPortFrom(addr, fixedNodePort))
		}
	} else if v := s.view(); v != nil {
		for _, found := range v.services {
			if found.Metadata.Name == fixedService {
				for _, addr := range found.Spec.Addresses {
					targets = append(targets, netip.AddrPortFrom(addr, fixedPort))
				}
			}
		}
	}
	for _, target := range targets {
		what := fmt.Sprintf("requests of %s at %s", from, target)
		began := time.Now()
		var status int
		var body []byte
		err := do(func() (err error) {
			status, body, err = ask(target.String(), "/hostname", 3*time.Second)
			return err
		})
		if err == nil && (status != http.StatusOK || string(body) != fixedEndpoint) {
			err = fmt.Errorf("status %d, %q", status, body)
		}
		if ctx.Err() != nil {
			return
		}
		if !counts(target, err) {
			continue
		}
		s.sent(what, 1)
		if err != nil {
			l := loss{what, 1, began, time.Now(), links | tunnels | services, nodes}
			where := ""
			if s.windows.excuse(l.needs, l.nodes, l.from, l.until) == "" {
				where = s.led(nodes[0], target)
			}
			s.log("%s: %v%s", what, err, where)
			s.lost(l)
		}
	}
}

// led tells where a node has led the last request to a Service that nobody answered.
func (s *soak) led(node string, service netip.AddrPort) (text string) {
	err := s.lab.World().Do(node, func() error {
		all, err := connections(unix.IPPROTO_TCP)
		if last, ok := lastOpening(all, service); ok {
			text = fmt.Sprintf("; the last that %s opened went %s, for %d s more", node, last, last.left)
		}
		return err
	})
	if err != nil {
		return fmt.Sprintf("; where it was led cannot be told: %v", err)
	}
	return text
}

// runDatagrams sends a datagram to each UDP Service each second, always from the
// same port, so that what the kernel remembers of it does not end by itself.
func (s *soak) runDatagrams(ctx context.Context) {
	sockets := map[netip.AddrPort]int{}
	closeAll := func() {
		for _, socket := range sockets {
			unix.Close(socket)
		}
		clear(sockets)
	}
	defer closeAll()
	var source *end
	defer func() {
		if source != nil {
			source.netns.Close()
		}
	}()
	for ; ctx.Err() == nil; pause(ctx, time.Second) {
		v := s.view()
		if source != nil && !source.alive() {
			closeAll()
			source.netns.Close()
			source = nil
		}
		if source == nil {
			source, _ = s.end("fixed1") // nil: later
		}
		if v == nil || source == nil {
			continue
		}
		wanted := udpServices(v)
		for target, socket := range sockets {
			if !slices.Contains(wanted, target) {
				unix.Close(socket)
				delete(sockets, target)
			}
		}
		for _, target := range wanted {
			if _, ok := sockets[target]; !ok {
				socket, err := openDatagrams(source, target)
				if err != nil {
					s.log("%v", err)
					continue
				}
				sockets[target] = socket
			}
			s.datagram(sockets[target])
		}
	}
}

func udpServices(v *view) (all []netip.AddrPort) {
	for _, found := range v.services {
		for _, port := range found.Spec.Ports {
			for _, addr := range found.Spec.Addresses {
				if port.Protocol == "UDP" && addr.IsValid() {
					all = append(all, netip.AddrPortFrom(addr, port.Port))
				}
			}
		}
	}
	return all
}

func openDatagrams(from *end, target netip.AddrPort) (socket int, err error) {
	err = from.within(func() (err error) {
		family, to := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(target.Port())})
		if target.Addr().Is4() {
			to.(*unix.SockaddrInet4).Addr = target.Addr().As4()
		} else {
			family, to = unix.AF_INET6, &unix.SockaddrInet6{Port: int(target.Port()), Addr: target.Addr().As16()}
		}
		if socket, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		if err = unix.Connect(socket, to); err != nil {
			unix.Close(socket)
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("opening a socket for datagrams to %s: %w", target, err)
	}
	return socket, nil
}

// datagram reads the answers that are there and sends one more. Nobody is blamed
// for one that is not answered: there may be no endpoint.
func (s *soak) datagram(socket int) {
	buffer := make([]byte, 256)
	answers := 0
	for range 16 {
		if n, err := unix.Read(socket, buffer); err == nil && n > 0 {
			answers++
		}
	}
	_, _ = unix.Write(socket, []byte("hostname\n"))
	s.sent("datagrams to Services", 1)
	s.sent("answers to datagrams", answers)
}
