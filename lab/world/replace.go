package world

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
)

// ReplacePort takes a port out of a running machine and puts a new one in its
// place, as when a virtual card is taken out and put back: another interface
// index, the same name, hardware address, addresses and routes of the machine's
// description. Faults of the port last.
func (w *World) ReplacePort(ctx context.Context, machine, iface string) error {
	r, err := w.record()
	if err != nil {
		return err
	}
	m, err := w.machine(machine)
	if err != nil {
		return err
	}
	for _, p := range m.Ports {
		if p.Interface != iface {
			continue
		}
		fabricNS, err := w.openNetns(fabricName)
		if err != nil {
			return err
		}
		defer fabricNS.Close()
		err = w.Do(machine, func() error {
			old, err := netlink.LinkByName(iface)
			if err == nil {
				err = netlink.LinkDel(old)
			}
			if err != nil {
				return err
			}
			if err := plug(&r, machine, p, fabricNS); err != nil {
				return err
			}
			return addRoutes(m)
		})
		if err != nil {
			return fmt.Errorf("replace %s on machine %s: %w", iface, machine, err)
		}
		return ctx.Err()
	}
	return fmt.Errorf("replace %s: machine %s has no such port", iface, machine)
}

// ChangeMachine describes a machine anew that is off: what it has on disk
// stays, all else is as the description says at its next start.
func (w *World) ChangeMachine(ctx context.Context, m Machine) error {
	r, err := w.record()
	if err != nil {
		return err
	}
	if err := check(r.Segments, m); err != nil {
		return err
	}
	if _, err := w.machine(m.Name); err != nil {
		return err
	}
	if _, err := w.control(ctx, m.Name, request{Verb: verbStatus}); !errors.Is(err, ErrNotRunning) {
		return errors.Join(fmt.Errorf("change machine %s: it is running; stop it first", m.Name), err)
	}
	if err := writeJSON(filepath.Join(w.machineDir(m.Name), "machine.json"), m); err != nil {
		return fmt.Errorf("change machine %s: %w", m.Name, err)
	}
	return nil
}

// Processes are the ids of all processes of a machine, those of its containers
// as well.
func (w *World) Processes(machine string) (pids []int, err error) {
	r, err := w.record()
	if err != nil {
		return nil, err
	}
	for _, h := range r.Hierarchies {
		if !h.Unified { // all of them are in this one, see purgeOnce
			continue
		}
		err = filepath.WalkDir(h.path(w.Name, machine), func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // gone meanwhile
			}
			if err != nil || entry.Name() != "cgroup.procs" {
				return err
			}
			text, _ := os.ReadFile(path) // none of a cgroup that ends meanwhile
			for _, field := range strings.Fields(string(text)) {
				pid, err := strconv.Atoi(field)
				if err != nil {
					return err
				}
				pids = append(pids, pid)
			}
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("list the processes of machine %s: %w", machine, err)
	}
	return pids, nil
}
