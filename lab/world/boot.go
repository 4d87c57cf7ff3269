package world

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"
)

// Boot makes the world: its segments and then all machines, several at a time.
// It returns when every machine has its interfaces and its services are being
// started. What it leaves on an error, or when ctx ends, Destroy cleans.
func (w *World) Boot(ctx context.Context, segments []Segment, machines []Machine) error {
	if err := check(segments, machines...); err != nil {
		return err
	}
	list, err := hierarchies()
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(w.Dir, "world.json")); err == nil {
		return fmt.Errorf("boot world %s: %s exists: destroy it first", w.Name, w.Dir)
	}
	for _, dir := range []string{w.Dir, w.Disk} {
		if err := insist(func() error { return os.MkdirAll(dir, 0o755) }); err != nil {
			return fmt.Errorf("boot world %s: %w", w.Name, err)
		}
	}
	r := record{World: *w, Segments: segments, Hierarchies: list}
	if err := writeJSON(filepath.Join(w.Dir, "world.json"), r); err != nil {
		return fmt.Errorf("boot world %s: %w", w.Name, err)
	}
	if err := install(ctx, w, Machine{Name: fabricName}); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, m := range machines {
		g.Go(func() error { return install(ctx, w, m) })
	}
	return g.Wait()
}

// insist repeats the making of directories when the end of another world takes
// away the parent of all in between.
func insist(mkdir func() error) error {
	err := mkdir()
	for i := 0; i < 10 && errors.Is(err, fs.ErrNotExist); i++ {
		err = mkdir()
	}
	return err
}

// AddMachine makes and starts one more machine.
func (w *World) AddMachine(ctx context.Context, m Machine) error {
	r, err := w.record()
	if err != nil {
		return err
	}
	if err := check(r.Segments, m); err != nil {
		return err
	}
	if _, err := w.machine(m.Name); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("add machine %s: it exists", m.Name), err)
	}
	return install(ctx, w, m)
}

func install(ctx context.Context, w *World, m Machine) error {
	dir := w.machineDir(m.Name)
	if err := os.MkdirAll(filepath.Join(dir, "log"), 0o755); err != nil {
		return fmt.Errorf("install machine %s: %w", m.Name, err)
	}
	if err := writeJSON(filepath.Join(dir, "machine.json"), m); err != nil {
		return fmt.Errorf("install machine %s: %w", m.Name, err)
	}
	return w.StartMachine(ctx, m.Name)
}

// StartMachine boots a machine that was stopped or has died.
func (w *World) StartMachine(ctx context.Context, name string) error {
	r, err := w.record()
	if err != nil {
		return err
	}
	if _, err := w.machine(name); err != nil {
		return err
	}
	if _, err := w.control(ctx, name, request{Verb: verbStatus}); err == nil {
		return fmt.Errorf("start machine %s: it is running", name)
	}
	if err := purge(ctx, r.Hierarchies, w.Name, name); err != nil {
		return fmt.Errorf("start machine %s: %w", name, err)
	}
	cmd := exec.CommandContext(ctx, w.Executable, "lab", "machine-init", w.machineDir(name))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true}
	for _, h := range r.Hierarchies {
		if err := insist(func() error { return h.create(w.Name, name) }); err != nil {
			return fmt.Errorf("start machine %s: %w", name, err)
		}
		if h.Unified {
			// Born there, it is found by Destroy from its first instruction on.
			d, err := os.Open(h.path(w.Name, name))
			if err != nil {
				return fmt.Errorf("start machine %s: %w", name, err)
			}
			defer d.Close()
			cmd.SysProcAttr.CgroupFD = int(d.Fd())
		}
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("start machine %s: %w: %s", name, err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// StopMachine switches a machine off. A graceful stop ends its services first,
// the last one first; otherwise it is as if the power failed. What it has on
// disk stays.
func (w *World) StopMachine(ctx context.Context, name string, graceful bool) error {
	r, err := w.record()
	if err != nil {
		return err
	}
	if _, err := w.machine(name); err != nil {
		return err
	}
	if graceful {
		if _, err := w.control(ctx, name, request{Verb: verbShutdown}); err != nil && !errors.Is(err, ErrNotRunning) {
			return err
		}
	}
	if err := purge(ctx, r.Hierarchies, w.Name, name); err != nil {
		return fmt.Errorf("stop machine %s: %w", name, err)
	}
	return nil
}

// RemoveMachine switches a machine off and forgets it with its disk.
func (w *World) RemoveMachine(ctx context.Context, name string) error {
	if err := w.StopMachine(ctx, name, false); err != nil {
		return err
	}
	if err := (fabric{w}).forget(ctx, name); err != nil {
		return err
	}
	for _, dir := range []string{filepath.Join(w.Disk, name), w.machineDir(name)} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove machine %s: %w", name, err)
		}
	}
	return nil
}

// Destroy ends all processes of the world and removes all it left: cgroups,
// disk and state. It works from any state, also one that a crash left, and may
// be repeated. Other worlds are not touched.
func (w *World) Destroy(ctx context.Context) error {
	list, err := hierarchies()
	if err != nil {
		return err
	}
	if r, err := w.record(); err == nil {
		// Made by a process that was in other cgroups than we are.
		list = append(list, r.Hierarchies...)
	}
	if err := purge(ctx, list, w.Name, ""); err != nil {
		return fmt.Errorf("destroy world %s: %w", w.Name, err)
	}
	for _, h := range list {
		_ = os.Remove(filepath.Join(h.Base, parentName)) // stays while other worlds are in it
	}
	// Dir is last: it is what a repeated Destroy needs.
	for _, dir := range []string{w.Disk, w.Dir} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("destroy world %s: %w", w.Name, err)
		}
		if parent := filepath.Dir(dir); filepath.Base(parent) == parentName {
			_ = os.Remove(parent) // as above
		}
	}
	return nil
}

// StopService ends a service; it stays stopped until StartService or a reboot.
func (w *World) StopService(ctx context.Context, machine, service string) error {
	_, err := w.control(ctx, machine, request{Verb: verbStop, Service: service})
	return err
}

// StartService starts a service that was stopped.
func (w *World) StartService(ctx context.Context, machine, service string) error {
	_, err := w.control(ctx, machine, request{Verb: verbStart, Service: service})
	return err
}
