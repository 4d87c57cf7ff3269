package udptunnel

import (
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/route"
)

// loss asks every few milliseconds until change is done, and tells what failed.
func (w *world) loss(change func()) (lost, asked int) {
	w.t.Helper()
	to := w.echo(w.nodes[1], model.IPv4)
	conn := open(w.t, w.nodes[0].pod, netip.AddrPortFrom(w.nodes[0].podAddress(model.IPv4), 0))
	done := make(chan struct{})
	go func() {
		defer close(done)
		change()
	}()
	for {
		select {
		case <-done:
			return lost, asked
		default:
		}
		asked++
		if err := ask(conn, to, 100); err != nil {
			lost++
		}
	}
}

func TestPortChangesWithoutLoss(t *testing.T) {
	w := newWorld(t, 2, 1500, false)
	all := w.startAll(model.IPv4, 1500)
	const port, mtu = testPort + 1, 1468
	lost, asked := w.loss(func() {
		// All listen to the new port before any sends from it.
		for _, ports := range [][2]uint16{{testPort, port}, {port, testPort}, {port, 0}} {
			for i := range all {
				all[i].apply(w.plan(w.nodes[i], model.IPv4, ports[0], ports[1], mtu))
				time.Sleep(100 * time.Millisecond) // the nodes hear of it at different times
			}
		}
	})
	if lost > 0 || asked < 20 {
		t.Errorf("%d of %d questions were not answered", lost, asked)
	}
	open(t, w.nodes[0].machine, netip.AddrPortFrom(w.nodes[0].outer(model.IPv4), testPort)) // is free again
}

// TestLoopEndsWithItsFile: of a tunnel that is not used any more, nothing goes on; also
// where the device went first.
func TestLoopEndsWithItsFile(t *testing.T) {
	for name, before := range map[string]func(*socket) error{
		"while it waits": func(s *socket) error { return s.raw.Read(func(uintptr) bool { return false }) },
		"after a fault":  func(*socket) error { return unix.EBADFD },
	} {
		t.Run(name, func(t *testing.T) {
			s, err := listen(netip.MustParseAddrPort("127.0.0.1:0"))
			must(t, err)
			began, ended := make(chan struct{}, 100), make(chan struct{})
			go func() {
				defer close(ended)
				New(slog.New(slog.DiscardHandler)).repeat(t.Context(), s.file, func() error {
					began <- struct{}{}
					return before(s)
				})
			}()
			<-began
			must(t, s.file.Close())
			select {
			case <-ended:
			case <-time.After(30 * time.Second):
				t.Fatal("the loop goes on")
			}
		})
	}
}

func TestRestart(t *testing.T) {
	w := newWorld(t, 2, 1500, false)
	all := w.startAll(model.IPv4, 1500)
	index := w.nodes[0].link(route.UDPDevice).Attrs().Index
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.transfer(w.nodes[0], w.nodes[1], model.IPv4, 200<<20)
	}()
	time.Sleep(20 * time.Millisecond)
	all[0].stop()
	all[0].run() // the same
	time.Sleep(20 * time.Millisecond)
	all[0].stop()
	all[0].Close()
	w.start(w.nodes[0], w.plan(w.nodes[0], model.IPv4, testPort, 0, 1468)) // another process
	<-done
	w.transfer(w.nodes[0], w.nodes[1], model.IPv6, 1<<20)
	if now := w.nodes[0].link(route.UDPDevice).Attrs().Index; now != index {
		t.Errorf("the device was made anew: %d, then %d", index, now)
	}
}

func TestProblems(t *testing.T) {
	w := newWorld(t, 2, 1500, false)
	n := w.nodes[0]
	r := &running{Tunnel: New(slog.New(slog.DiscardHandler)), w: w, n: n}
	defer r.Close()
	p := w.plan(n, model.IPv4, testPort, 0, 1468)
	reason := func(p *plan.Node, want ...string) {
		t.Helper()
		var have []string
		for _, problem := range r.apply(p) {
			have = append(have, problem.Reason)
			if problem.Name != "node1" || problem.Field == "" || problem.Remedy == "" {
				t.Errorf("a problem that does not help: %s", problem)
			}
		}
		if strings.Join(have, " ") != strings.Join(want, " ") {
			t.Errorf("problems %v, want %v", have, want)
		}
	}
	none := &plan.Node{Name: "node1", Route: &route.Plan{}}

	attrs := netlink.NewLinkAttrs()
	attrs.Name = route.UDPDevice
	must(t, n.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	reason(none) // what is not ours stays
	reason(p, "Conflict")
	must(t, n.LinkDel(n.link(route.UDPDevice)))

	other := open(t, n.machine, netip.AddrPortFrom(n.outer(model.IPv4), testPort))
	reason(p, "PortInUse")
	_ = other.Close()
	reason(p)
	reason(p)

	must(t, n.LinkDel(n.link(route.UDPDevice))) // by somebody
	reason(p)
	must(t, n.LinkSetDown(n.link(route.UDPDevice)))
	must(t, n.LinkSetTxQLen(n.link(route.UDPDevice), 500))
	reason(w.plan(n, model.IPv4, testPort, 0, 1400))
	if attrs := n.link(route.UDPDevice).Attrs(); attrs.MTU != 1400 || attrs.TxQLen != queue || attrs.Flags&net.FlagUp == 0 {
		t.Errorf("MTU %d, queue %d, flags %s", attrs.MTU, attrs.TxQLen, attrs.Flags)
	}

	busy := &running{Tunnel: New(slog.New(slog.DiscardHandler)), w: w, n: n}
	if problems := busy.apply(p); len(problems) != 1 || problems[0].Reason != "DeviceInUse" {
		t.Errorf("a second process: %v", problems)
	}

	reason(&plan.Node{Name: "node1"}) // not known yet: stays
	n.link(route.UDPDevice)
	reason(none)
	if _, err := n.LinkByName(route.UDPDevice); err == nil {
		t.Error("the device is left")
	}
	reason(p) // and back
}
