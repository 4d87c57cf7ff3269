package world

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"
)

// fabric is the machine that holds the segments, and the place of all faults.
type fabric struct{ world *World }

// faults are the faults in force. They last over reboots of machines, as a
// pulled cable does. Keys are the fabric's names of ports.
type faults struct {
	Down       map[string]bool
	Loss       map[string]float64 // percent
	Rate       map[string]uint64  // bits per second
	Partitions [][2]string        // pairs of machines, each pair sorted
}

func (b fabric) faults() (faults, error) {
	f := faults{Down: map[string]bool{}, Loss: map[string]float64{}, Rate: map[string]uint64{}}
	err := readJSON(filepath.Join(b.world.Dir, "faults.json"), &f)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f, fmt.Errorf("read faults: %w", err)
	}
	return f, nil
}

// SetLink plugs a machine's cable in or out. The machine sees its carrier go.
func (w *World) SetLink(ctx context.Context, machine, iface string, up bool) error {
	return fabric{w}.setPort(ctx, machine, iface, func(f *faults, port string) {
		setOrDelete(f.Down, port, !up)
	})
}

// SetLoss drops a share of the packets of a port, by chance and in both
// directions. percent is from 0, which ends the fault, to 100, in steps of 0.01.
func (w *World) SetLoss(ctx context.Context, machine, iface string, percent float64) error {
	if !(percent >= 0 && percent <= 100) { // NaN is refused too
		return fmt.Errorf("set loss of %s on machine %s: %v is not from 0 to 100 percent", iface, machine, percent)
	}
	return fabric{w}.setPort(ctx, machine, iface, func(f *faults, port string) {
		setOrDelete(f.Loss, port, percent)
	})
}

// SetRate limits a port to bitsPerSecond in each direction; 0 ends the fault.
// What is beyond the rate waits, and is dropped when 50 ms of it wait. The
// queues are token buckets on both ends of the port: one that the machine sees,
// because a packet that has arrived can only be dropped, no longer delayed.
func (w *World) SetRate(ctx context.Context, machine, iface string, bitsPerSecond uint64) error {
	if bitsPerSecond > 0 && bitsPerSecond < 8000 {
		return fmt.Errorf("set rate of %s on machine %s: %d bit/s is less than 8000", iface, machine, bitsPerSecond)
	}
	return fabric{w}.setPort(ctx, machine, iface, func(f *faults, port string) {
		setOrDelete(f.Rate, port, bitsPerSecond)
	})
}

// Partition drops what two machines send each other: by their addresses, also
// through routers, and by their hardware addresses, so that on a common segment
// packets of pods are dropped too. What a third machine tunnels is not seen.
func (w *World) Partition(ctx context.Context, a, b string, on bool) error {
	if a == b {
		return fmt.Errorf("partition: %s is on both sides", a)
	}
	for _, name := range []string{a, b} {
		if _, err := w.machine(name); err != nil {
			return err
		}
	}
	pair := [2]string{min(a, b), max(a, b)}
	return fabric{w}.change(ctx, func(f *faults) {
		f.Partitions = slices.DeleteFunc(f.Partitions, func(p [2]string) bool { return p == pair })
		if on {
			f.Partitions = append(f.Partitions, pair)
		}
	})
}

func setOrDelete[V comparable](m map[string]V, key string, value V) {
	var zero V
	if m[key] = value; value == zero {
		delete(m, key)
	}
}

// setPort changes the faults of one port, which exists in the machine's
// description; if the machine is switched off they wait for its boot.
func (b fabric) setPort(ctx context.Context, machine, iface string, change func(*faults, string)) error {
	m, err := b.world.machine(machine)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(m.Ports, func(p Port) bool { return p.Interface == iface }) {
		return fmt.Errorf("set fault: machine %s has no port %q", machine, iface)
	}
	port := portName(machine, iface)
	if err := b.change(ctx, func(f *faults) { change(f, port) }); err != nil {
		return err
	}
	f, err := b.faults()
	if err != nil {
		return err
	}
	err = onLink(b.world, machine, iface, func(h *netlink.Handle, l netlink.Link) error { return limitRate(h, l, f.Rate[port]) })
	if errors.Is(err, ErrNotRunning) {
		return nil
	}
	if err != nil {
		return err
	}
	return onLink(b.world, fabricName, port, func(h *netlink.Handle, l netlink.Link) error { return applyPort(h, l, f) })
}

// onLink does something to an interface in a machine's network.
func onLink(w *World, machine, name string, f func(*netlink.Handle, netlink.Link) error) error {
	return w.Do(machine, func() error {
		h, err := netlink.NewHandle()
		if err != nil {
			return fmt.Errorf("reach the network of machine %s: %w", machine, err)
		}
		defer h.Close()
		link, err := h.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find %s on machine %s: %w", name, machine, err)
		}
		return f(h, link)
	})
}

// change remembers the change before it makes it: a crash in between is
// mended by the next change.
func (b fabric) change(ctx context.Context, change func(*faults)) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("change faults: %w", err)
	}
	f, err := b.faults()
	if err != nil {
		return err
	}
	change(&f)
	if err := writeJSON(filepath.Join(b.world.Dir, "faults.json"), f); err != nil {
		return fmt.Errorf("change faults: %w", err)
	}
	cuts, err := b.cuts(f)
	if err != nil {
		return err
	}
	return b.world.Do(fabricName, func() error { return applyRules(f, cuts) })
}

// forget ends all faults of a machine.
func (b fabric) forget(ctx context.Context, machine string) error {
	m, err := b.world.machine(machine)
	if err != nil {
		return err
	}
	return b.change(ctx, func(f *faults) {
		for _, p := range m.Ports {
			port := portName(machine, p.Interface)
			maps.DeleteFunc(f.Down, func(k string, _ bool) bool { return k == port })
			maps.DeleteFunc(f.Loss, func(k string, _ float64) bool { return k == port })
			maps.DeleteFunc(f.Rate, func(k string, _ uint64) bool { return k == port })
		}
		f.Partitions = slices.DeleteFunc(f.Partitions, func(p [2]string) bool {
			return p[0] == machine || p[1] == machine
		})
	})
}

// applyPort sets the fabric's side of a port up or down and limits its rate.
func applyPort(h *netlink.Handle, port netlink.Link, f faults) error {
	name := port.Attrs().Name
	set := h.LinkSetUp
	if f.Down[name] {
		set = h.LinkSetDown
	}
	if err := set(port); err != nil {
		return fmt.Errorf("set port %s up or down: %w", name, err)
	}
	return limitRate(h, port, f.Rate[name])
}

// limitRate limits what leaves through a link to bitsPerSecond; 0 is no limit.
func limitRate(h *netlink.Handle, link netlink.Link, bitsPerSecond uint64) error {
	name := link.Attrs().Name
	old, err := h.QdiscList(link)
	if err != nil {
		return fmt.Errorf("list queues of %s: %w", name, err)
	}
	for _, q := range old {
		if q.Type() == "tbf" {
			if err := h.QdiscDel(q); err != nil {
				return fmt.Errorf("remove the rate of %s: %w", name, err)
			}
		}
	}
	if bitsPerSecond == 0 {
		return nil
	}
	rate := bitsPerSecond / 8 // bytes per second
	// A full frame with its Ethernet header and tag at least; beyond that what passes in 10 ms.
	burst := uint32(min(max(rate/100, uint64(link.Attrs().MTU)+18), 1<<30))
	tbf := &netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
		Rate:       rate,
		Buffer:     netlink.Xmittime(rate, burst),
		Limit:      burst + uint32(min(max(rate/20, 64<<10), 1<<30)), // bytes; TCP hands over 64 KiB at once
	}
	if err := h.QdiscAdd(tbf); err != nil {
		return fmt.Errorf("limit the rate of %s: %w", name, err)
	}
	return nil
}
