package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

const rushUsage = "usage: rush NAME FROM TO NUMBER [never], and then rush NAME stop"

// rushers are those who connect side by side, so that one that waits keeps no other
// from its time.
const rushers = 5

// rush NAME FROM TO NUMBER begins to connect as many times a second over each address
// family, all of which have to be answered, or, with never, none may come about; rush
// NAME stop ends it, and fails if that was not so.
func (s *stories) rush(ts *testscript.TestScript, neg bool, args []string) {
	never := len(args) == 5 && args[4] == "never"
	switch {
	case neg, len(args) < 2:
		ts.Fatalf(rushUsage)
	case args[1] == "stop" && len(args) == 2:
		s.stopTraffic(ts, args[0], allowance{})
	case len(args) == 4 || never:
		number, err := strconv.Atoi(args[3])
		if err != nil || number < rushers {
			ts.Fatalf("%s: want a number from %d on; %s", args[3], rushers, rushUsage)
		}
		s.startRush(ts, args[0], args[1], args[2], time.Second*rushers/time.Duration(number), never)
	default:
		ts.Fatalf(rushUsage)
	}
}

func (s *stories) startRush(ts *testscript.TestScript, name, from, to string, every time.Duration, never bool) {
	if s.flowing[name] != nil {
		ts.Fatalf("traffic %s flows already", name)
	}
	namespace := ts.Getenv(namespaceVariable)
	targets, err := s.addresses(namespace, to)
	ts.Check(err)
	source, err := s.netns(namespace, from)
	ts.Check(err)
	ts.Defer(func() { source.Close() })
	ctx, cancel := context.WithCancel(context.Background())
	flow := &traffic{full: queuesFull(ts), stop: cancel}
	ts.Defer(func() {
		flow.end()
		delete(s.flowing, name)
	})
	for _, target := range targets {
		flow.flows.Go(func() { flow.note(rushTo(ctx, source, target, every, never)) })
	}
	s.flowing[name] = flow
}

// rushTo adds up what becomes of all who connect to a target.
func rushTo(ctx context.Context, source *os.File, target netip.Addr, every time.Duration, never bool) result {
	all := result{name: "rush to " + target.String(), tcp: true}
	one := func() result { return connectEvery(ctx, target, every, hurried) }
	if never {
		all.name = "never to " + target.String()
		one = func() result { return intrude(ctx, target, every) }
	}
	var mu sync.Mutex // guards all
	var running sync.WaitGroup
	began := time.Now()
	for range rushers {
		running.Go(func() {
			var r result
			if err := within(source, func() error { r = one(); return nil }); err != nil {
				r.broken = err
			}
			mu.Lock()
			defer mu.Unlock()
			all.sent, all.lost, all.gap = all.sent+r.sent, all.lost+r.lost, max(all.gap, r.gap)
			all.broken = errors.Join(all.broken, r.broken)
			if all.detail == "" {
				all.detail = r.detail
			}
		})
	}
	running.Wait()
	all.detail += fmt.Sprintf(", %.0f a second", float64(all.sent)/time.Since(began).Seconds())
	return all
}

// hurried is an exchange whose connection ends with RST: an orderly end keeps its port
// for a minute, in which there would be more of them than ports.
func hurried(target netip.Addr) error { return exchangeBy(target, &unix.Linger{Onoff: 1}) }

// intrude begins connections that must not come about, and looks a second later whether
// one did.
func intrude(ctx context.Context, target netip.Addr, every time.Duration) result {
	var r result
	type attempt struct {
		fd int
		at time.Time
	}
	var waiting []attempt
	look := func() {
		first := waiting[0]
		waiting = waiting[1:]
		if _, err := unix.Getpeername(first.fd); err == nil && r.broken == nil {
			r.broken = fmt.Errorf("a connection of %s came about", first.at.Format("05.000"))
		}
		_ = unix.Close(first.fd)
	}
	for due := time.Now(); ctx.Err() == nil; due = due.Add(every) {
		pause(ctx, time.Until(due))
		for len(waiting) > 0 && time.Since(waiting[0].at) > straggle {
			look()
		}
		fd, err := socketTo(target, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			r.broken = err
			break
		}
		waiting = append(waiting, attempt{fd, time.Now()})
		r.sent++
		if err := unix.Connect(fd, sockaddr(target, 8080)); !errors.Is(err, unix.EINPROGRESS) {
			r.broken = errors.Join(r.broken, fmt.Errorf("a connection of %s was answered with %v", time.Now().Format("05.000"), err))
		}
	}
	pause(context.Background(), straggle)
	for len(waiting) > 0 {
		look()
	}
	return r
}
