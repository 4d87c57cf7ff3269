// Package netnstest gives tests network namespaces of their own, without a link
// to the machine's network. It is for tests only. Tests may use it in parallel.
package netnstest

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Enter moves the calling goroutine into a new network namespace whose loopback
// is up, and keeps it there: its thread ends with it. A subtest is a goroutine
// of its own and has to enter by itself. Without root the test is skipped.
func Enter(t testing.TB) *Namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	runtime.LockOSThread()
	return fresh(t)
}

// New makes a network namespace whose loopback is up, without entering it. Its
// addresses of IPv6 are there at once: duplicates are not looked for. While they are,
// for up to two seconds, a node that forwards has no address to ask for a neighbour
// with (RFC 4862 5.4), and what it forwards waits.
func New(t testing.TB) *Namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	var namespace *Namespace
	apart(t, func() { namespace = fresh(t) })
	return namespace
}

// Of is a namespace that is there; the caller closes the handle.
func Of(t testing.TB, handle netns.NsHandle) *Namespace { return &Namespace{t, handle} }

// Namespace is a network namespace. It is gone after the test.
type Namespace struct {
	t      testing.TB
	Handle netns.NsHandle
}

// Do runs f in the namespace, on another goroutine, and waits for it. Sockets
// that f opens stay in the namespace. f may fail the test only by t.Error.
func (n *Namespace) Do(f func()) {
	n.t.Helper()
	apart(n.t, func() {
		if err := netns.Set(n.Handle); err != nil {
			n.t.Errorf("enter network namespace: %v", err)
			return
		}
		f()
	})
}

// Go is like Do, but only the end of the test waits for f.
func (n *Namespace) Go(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // a thread that is not used again
		if err := netns.Set(n.Handle); err != nil {
			n.t.Errorf("enter network namespace: %v", err)
			return
		}
		f()
	}()
	n.t.Cleanup(func() { <-done })
}

// apart runs f on a thread that is not used again.
func apart(t testing.TB, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done
	if t.Failed() {
		t.FailNow()
	}
}

func fresh(t testing.TB) *Namespace {
	handle, err := netns.New()
	if err != nil {
		t.Errorf("make network namespace: %v", err)
		return nil
	}
	t.Cleanup(func() { _ = handle.Close() })
	err = os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6
		t.Errorf("duplicate address detection: %v", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Errorf("set lo up: %v", err)
	}
	return &Namespace{t: t, Handle: handle}
}
