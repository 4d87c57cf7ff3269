// Package world makes a private world of machines on one host: each machine is
// a network, mount, UTS and cgroup namespace held by a process of its own, and
// machines are joined by segments (bridges) inside the world. No link leads
// from the world to the host's own network.
//
// It knows nothing of Kubernetes; package lab puts a cluster on it. Operations
// that change one world are serialised by its caller (lab holds a lock file per
// world); Command, Do, Machines and Capture may run beside them and each other.
package world

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// fabricName is the machine whose network namespace holds the segments.
const fabricName = "fabric"

// statusTimeout is how long inits may take to tell their state, which they keep
// in memory.
const statusTimeout = 10 * time.Second

// ErrNotRunning is wrapped by operations on a machine that is switched off.
var ErrNotRunning = errors.New("machine is not running")

// Service is a process that a machine's init keeps running.
type Service struct {
	Name         string   // unique on the machine; its log is <machine dir>/log/<Name>.log
	Argv         []string // Argv[0] is a path as seen inside the machine
	Env          []string // in addition to a minimal PATH
	Dir          string   // working directory, "/" if empty
	RestartDelay int      // milliseconds between an exit and the next start; 0 means 500
}

// Bind makes a host path visible at a path inside a machine.
type Bind struct {
	Source   string // host path, mounts below it included: a directory or a file; made as a directory if missing below World.Disk
	Target   string // path inside; made if missing
	ReadOnly bool
}

// Port joins a machine to a segment.
type Port struct {
	Segment   string
	Interface string // name inside the machine, such as eth0
	MTU       int    // bytes; 0 means the segment's
	Addresses []netip.Prefix
}

// Machine describes one machine of a world. It is stored as JSON beside the
// machine's state, so that a reboot makes the same machine again.
//
// Its root is an overlay over the host's: it sees the host's programs, and what
// it writes is its own and stays over a reboot. Files that appear on the host
// after boot may stay invisible inside; pass them through a Bind. /dev is the
// host's, except for /dev/shm.
type Machine struct {
	Name     string // a DNS label
	Ports    []Port
	Gateways []netip.Addr // default routes, at most one per family
	Routes   []Route      // further static routes
	Forward  bool         // a router: forwards both families
	Binds    []Bind       // private or shared paths, mounted in order
	Tmpfs    []string     // paths that are empty after each boot, such as /run

	// Sysctls are set at boot; keys as below /proc/sys with slashes. Those below
	// net/ are the machine's own. All others belong to the host and are never
	// written: the machine sees the value given here in a file of its own, which
	// satisfies programs that insist on one, and the rest read-only.
	Sysctls  map[string]string
	Services []Service
}

// Route is a static route of a machine.
type Route struct {
	Destination netip.Prefix
	Via         netip.Addr
}

// Segment is an L2 network of the world.
type Segment struct {
	Name string // at most 15 bytes of a-z, 0-9 and -
	MTU  int    // bytes
}

// World is one world. Its machines live on when the program that made it ends,
// and are found again through Dir and the world's cgroup.
type World struct {
	Name       string // a DNS label, unique on the host
	Dir        string // state, below /run: gone after a reboot of the host, as the machines are
	Disk       string // what machines write, on a disk; default /var/lib/fairlead-lab/NAME
	Executable string // program whose hidden verbs "lab machine-init" and "lab machine-enter" are RunMachine and Enter
}

// Open names a world; it neither needs to exist nor is it touched.
func Open(name, dir, executable string) *World {
	return &World{Name: name, Dir: dir, Disk: "/var/lib/" + parentName + "/" + name, Executable: executable}
}

// MachineState is what a machine does now.
type MachineState struct {
	Name     string
	Running  bool
	PID      int // of its init, 0 if not running
	Services []ServiceState
}

// record is what a world's Dir remembers, so that any later process can find
// everything that belongs to the world.
type record struct {
	World       World
	Segments    []Segment
	Hierarchies []hierarchy
}

func (w *World) machineDir(name string) string { return filepath.Join(w.Dir, name) }

// LogPath is the host path of a service's log.
func (w *World) LogPath(machine, service string) string {
	return filepath.Join(w.machineDir(machine), "log", service+".log")
}

func (w *World) record() (record, error) {
	var r record
	if err := readJSON(filepath.Join(w.Dir, "world.json"), &r); err != nil {
		return r, fmt.Errorf("read world %s: %w", w.Name, err)
	}
	return r, nil
}

func (w *World) machine(name string) (Machine, error) {
	var m Machine
	if err := readJSON(filepath.Join(w.machineDir(name), "machine.json"), &m); err != nil {
		return m, fmt.Errorf("read machine %s of world %s: %w", name, w.Name, err)
	}
	return m, nil
}

// names lists the machines that are described in Dir, without the fabric.
func (w *World) names() ([]string, error) {
	files, err := filepath.Glob(filepath.Join(w.Dir, "*", "machine.json"))
	if err != nil {
		return nil, fmt.Errorf("list machines of world %s: %w", w.Name, err)
	}
	var names []string
	for _, f := range files {
		if name := filepath.Base(filepath.Dir(f)); name != fabricName {
			names = append(names, name)
		}
	}
	return names, nil
}

// Machines tells the state of every machine, in the order of their names.
func (w *World) Machines() ([]MachineState, error) {
	names, err := w.names()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
	defer cancel()
	var states []MachineState
	for _, name := range names {
		s := MachineState{Name: name}
		reply, err := w.control(ctx, name, request{Verb: verbStatus})
		switch {
		case err == nil:
			s.Running, s.PID, s.Services = true, reply.PID, reply.Services
		case !errors.Is(err, ErrNotRunning):
			return nil, err
		}
		states = append(states, s)
	}
	return states, nil
}

// check refuses descriptions that the kernel would refuse later, or worse,
// take for something else.
func check(segments []Segment, machines ...Machine) error {
	label := regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	known := map[string]bool{}
	for _, s := range segments {
		if !label.MatchString(s.Name) || len(s.Name) > 15 || known[s.Name] {
			return fmt.Errorf("segment name %q: want at most 15 of a-z, 0-9, -, used once", s.Name)
		}
		known[s.Name] = true
	}
	seen := map[string]bool{fabricName: true}
	for _, m := range machines {
		if !label.MatchString(m.Name) || seen[m.Name] {
			return fmt.Errorf("machine name %q: want a DNS label, used once, not %q", m.Name, fabricName)
		}
		seen[m.Name] = true
		for _, p := range m.Ports {
			if !known[p.Segment] {
				return fmt.Errorf("machine %s: port %s: no segment %q", m.Name, p.Interface, p.Segment)
			}
		}
		for _, s := range m.Services {
			if !label.MatchString(s.Name) || len(s.Argv) == 0 {
				return fmt.Errorf("machine %s: service %q: want a DNS label and an argv", m.Name, s.Name)
			}
		}
	}
	return nil
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("parse %s: %w", path, err)
	}
	return nil
}

// writeJSON replaces the file at once: a reader, or a crash, sees the old or
// the new content.
func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
