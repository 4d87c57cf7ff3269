package ebpf

import (
	"sync/atomic"
	"testing"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestUplinkLosesNothing: what a node sends by its uplink arrives while the first
// programs come to it, and while they go. With the qdisc clsact, each coming lost what
// was sent in 4 to 20 ms.
func TestUplinkLosesNothing(t *testing.T) {
	enter(t)
	needChain(t)
	for _, name := range []string{"up0", "up1"} {
		must(t, rtnl.LinkSetUp(link(t, name)))
	}
	// Where there are no programs yet, the kernel rewrites its own code for the first one
	// and after the last one. That is no matter here, and QEMU's emulation of two
	// processors may not survive it while packets flow.
	attachForeign(t, link(t, "up1"), ingress)
	attachForeign(t, link(t, "up1"), egress)
	uplink := link(t, "up0")
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, 0) // of this namespace, and receives nothing
	must(t, err)
	defer unix.Close(fd)
	const experimental = 0xb588 // 0x88b5, an EtherType for experiments, in network order
	to := &unix.SockaddrLinklayer{Ifindex: uplink.Attrs().Index, Protocol: experimental, Halen: 6}
	received := func() uint64 { return link(t, "up1").Attrs().Statistics.RxPackets }
	before := received()

	var stop atomic.Bool
	sent := make(chan uint64)
	go func() {
		var n uint64
		for ; !stop.Load() && err == nil; n++ {
			err = unix.Sendto(fd, make([]byte, 64), 0, to)
		}
		sent <- n
	}()
	for range 20 {
		must(t, AttachIPIP(wanted))
		must(t, DetachIPIP(device))
	}
	stop.Store(true)
	n := <-sent
	must(t, err)
	if got := received() - before; got < n {
		t.Errorf("of %d packets, %d were lost", n, n-got)
	}
}
