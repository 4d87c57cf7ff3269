// Package udptunnel carries pods' packets to other nodes in UDP datagrams, in
// user space, through networks that let nothing else through. A TUN device
// gives it what the node routes to those nodes.
//
// It is fast because it never looks at payload: the kernel hands over and
// takes super-packets of up to 64 KiB, which are cut into datagrams of one
// packet each, and joined again, by lists of slices; so a lost datagram is one
// lost packet. It is not private: there is no encryption, and what it believes
// of a sender rests on the addresses of the outer packets. Routes, addresses
// and sysctls are not its own but dataplane/netlink's.
//
// Apply and Run are for one goroutine each, at the same time; Counters is for
// any.
package udptunnel

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// Tunnel is the end of a node's tunnels to all others. It is made by New.
type Tunnel struct {
	log     *slog.Logger
	path    atomic.Pointer[path] // nil: there is no tunnel
	changed chan struct{}        // of one element: the path has other files
	counters

	// Of Apply.
	removed bool // and nothing was made since
	ranges  model.Map[netip.Prefix, netip.Addr]
}

// New returns a Tunnel that does nothing until a plan is applied.
func New(log *slog.Logger) *Tunnel {
	return &Tunnel{log: log, changed: make(chan struct{}, 1)}
}

// Close gives back the files, when Run has ended. The device stays, and another
// process may take it over.
func (t *Tunnel) Close() { t.publish(nil) }

// Counters are what was moved and dropped since New.
func (t *Tunnel) Counters() map[Counter]uint64 {
	values := make(map[Counter]uint64, numberOfCounters)
	for which := range numberOfCounters {
		values[which] = t.counters[which].Load()
	}
	return values
}

// Run moves packets until ctx ends. The device stays, with what was applied,
// and Run may be called again.
func (t *Tunnel) Run(ctx context.Context) error {
	var loops sync.WaitGroup
	running := map[*os.File]bool{}
	defer func() {
		for file := range running {
			_ = file.SetDeadline(time.Unix(1, 0)) // fails for what is closed, which has ended
		}
		loops.Wait()
		for file := range running {
			_ = file.SetDeadline(time.Time{})
		}
	}()
	start := func(file *os.File, loop func() error) {
		if !running[file] {
			running[file] = true
			loops.Go(func() { t.repeat(ctx, file, loop) })
		}
	}
	for {
		p := t.path.Load()
		for file := range running {
			if _, used := p.files()[file]; !used {
				delete(running, file) // it is closed, and its loop ends of that
			}
		}
		if p != nil {
			start(p.device.file, func() error { return t.newOutbound(p).run() })
			for _, s := range p.sockets() {
				start(s.file, func() error { return t.newInbound(p).run(s) })
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.changed:
		}
	}
}

// repeat runs a loop until its file is closed or its deadline has come. What
// else ends it may pass, or be mended by the next plan: the device may be gone.
func (t *Tunnel) repeat(ctx context.Context, file *os.File, loop func() error) {
	said := ""
	for {
		err := loop()
		if errors.Is(err, os.ErrDeadlineExceeded) || isClosed(file) {
			return
		}
		if said != err.Error() {
			said = err.Error()
			t.log.Warn("tunnel interrupted", "reading", file.Name(), "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// isClosed asks the file: the error of a syscall.RawConn whose file is closed while
// it waits is none that a program can name (poll.ErrFileClosing).
func isClosed(file *os.File) bool {
	_, err := file.Stat()
	return errors.Is(err, os.ErrClosed)
}
