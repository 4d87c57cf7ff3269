// Package lab makes real Kubernetes clusters out of the namespaces of one host:
// upstream components, containerd and runc on machines of a private world
// (package world) that no packet leaves. A cluster lives on when the program
// that made it ends; all that is known of it is on disk.
//
// It is for trying and testing Fairlead, which is installed in it like
// anywhere: by its image and its manifest. It is not a way to run Kubernetes
// for anything that must last.
//
// Methods of one Lab may be called concurrently, except for those that change
// its nodes (AddNode, DeleteNode) and Down.
package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/lab/world"
)

// DefaultName is the name of a lab that was given none.
const DefaultName = "lab"

// State is lost with the machines when the host reboots; disks are not, and
// the next up or down of the same name removes them.
const stateRoot = "/run/fairlead-lab"

// ErrNoLab says that there is no lab of this name.
var ErrNoLab = errors.New("no such lab")

// Lab is one cluster with its machines.
type Lab struct {
	dir   string
	world *world.World
	state state
}

// state is what is kept of a lab in its directory.
type state struct {
	Config   Config
	Nodes    []Node
	Port     int    // of the API server on 127.0.0.1 of the host
	Binaries string // directory of the programs of Kubernetes
	Fairlead string // the program that machines were started by
	Started  time.Time
	Ready    time.Duration // how long up took; zero until it was done
}

// named returns a lab that need not exist.
func named(name string) (*Lab, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding the running program: %w", err)
	}
	dir := filepath.Join(stateRoot, name)
	return &Lab{dir: dir, world: world.Open(name, filepath.Join(dir, "world"), self), state: state{Config: Config{Name: name}}}, nil
}

// Open returns the lab of this name, or ErrNoLab.
func Open(name string) (*Lab, error) {
	l, err := named(name)
	if err != nil {
		return nil, err
	}
	content, err := os.ReadFile(l.statePath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %q; `fairlead lab up --name %s` makes it, `fairlead lab list` lists labs", ErrNoLab, name, name)
	} else if err != nil {
		return nil, fmt.Errorf("opening lab %s: %w", name, err)
	}
	if err := json.Unmarshal(content, &l.state); err != nil {
		return nil, fmt.Errorf("opening lab %s: %w; `fairlead lab down --name %s` removes it", name, err, name)
	}
	l.world.Executable = l.state.Fairlead
	return l, nil
}

// List returns the names of all labs.
func List() ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(stateRoot, "*", "lab.json"))
	if err != nil {
		return nil, fmt.Errorf("listing labs: %w", err)
	}
	names := make([]string, len(paths))
	for i, path := range paths {
		names[i] = filepath.Base(filepath.Dir(path))
	}
	return names, nil
}

// Name returns the name of the lab.
func (l *Lab) Name() string { return l.state.Config.Name }

// Config returns what the lab was made from.
func (l *Lab) Config() Config { return l.state.Config }

// Ready tells whether the lab has come up.
func (l *Lab) Ready() bool { return l.state.Ready != 0 }

// Nodes returns the nodes of the lab.
func (l *Lab) Nodes() []Node { return slices.Clone(l.state.Nodes) }

// World returns the machines that the lab is made of.
func (l *Lab) World() *world.World { return l.world }

// Kubeconfig returns the path of a kubeconfig for use on the host.
func (l *Lab) Kubeconfig() string { return filepath.Join(l.dir, "kubeconfig") }

func (l *Lab) statePath() string { return filepath.Join(l.dir, "lab.json") }

func (l *Lab) save() error {
	content, err := json.MarshalIndent(l.state, "", "  ")
	if err != nil {
		return fmt.Errorf("saving lab %s: %w", l.Name(), err)
	}
	if err := writeFile(l.statePath()+".new", content); err != nil {
		return err
	}
	if err := os.Rename(l.statePath()+".new", l.statePath()); err != nil {
		return fmt.Errorf("saving lab %s: %w", l.Name(), err)
	}
	return nil
}

// Down ends all of a lab and removes what it left, also what a crash left. It
// is not an error if there is no such lab.
func Down(ctx context.Context, name string) error {
	l, err := named(name)
	if err != nil {
		return err
	}
	unlock, err := lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	return l.clear(ctx)
}

func (l *Lab) clear(ctx context.Context) error {
	if err := l.world.Destroy(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(l.dir); err != nil {
		return fmt.Errorf("removing the state of lab %s: %w", l.Name(), err)
	}
	_ = os.Remove(stateRoot) // stays while other labs are in it
	return nil
}

// Lock waits until nobody else changes the lab, and keeps others from it until
// unlock is called or the process ends.
func (l *Lab) Lock(ctx context.Context) (unlock func(), err error) { return lock(ctx, l.Name()) }

// LockHost waits until no other caller of LockHost runs on this host, so that
// tests of several packages do not compete for it.
func LockHost(ctx context.Context) (unlock func(), err error) { return lock(ctx, "") }

// lock takes the lock of a lab, or of the host for an empty name. It is an
// abstract socket (unix(7)): the kernel gives it to one process, takes it back
// when that ends, and there is no file to leave behind. Who waits is connected
// to it and woken by its end.
func lock(ctx context.Context, name string) (unlock func(), err error) {
	address := "@fairlead-lab/" + name
	for {
		held, err := net.Listen("unix", address)
		if err == nil {
			return func() { held.Close() }, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("taking the lock %s: %w", address, err)
		}
		if holder, err := net.Dial("unix", address); err == nil {
			stop := context.AfterFunc(ctx, func() { holder.Close() })
			_, _ = holder.Read(make([]byte, 1))
			stop()
			holder.Close()
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("waiting for another command on lab %s: %w", name, context.Cause(ctx))
		}
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
