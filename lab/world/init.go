package world

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// bornVariable marks the process that is a machine's init, as opposed to the
// one that makes it.
const bornVariable = "FAIRLEAD_LAB_BORN"

// RunMachine is the program's hidden verb "lab machine-init DIR". As called by
// StartMachine it starts the machine's init, which is the same verb again in
// namespaces of its own, waits until the machine is up, and returns. An error
// is why the machine did not come up.
func RunMachine(dir string) error {
	if os.Getenv(bornVariable) != "" {
		return bornInit(dir)
	}
	return bearInit(dir)
}

// load reads what a machine's init must know, from the machine's directory.
func load(dir string) (record, Machine, error) {
	w := World{Name: filepath.Base(filepath.Dir(dir)), Dir: filepath.Dir(dir)}
	r, err := w.record()
	if err != nil {
		return r, Machine{}, err
	}
	m, err := w.machine(filepath.Base(dir))
	return r, m, err
}

// bearInit joins the machine's cgroups, which makes them the root of the
// child's cgroup namespace, and starts the init as a child that outlives it.
func bearInit(dir string) error {
	r, m, err := load(dir)
	if err != nil {
		return err
	}
	for _, h := range r.Hierarchies {
		if err := join(h.path(r.World.Name, m.Name), os.Getpid()); err != nil {
			return err
		}
	}
	log, err := os.OpenFile(filepath.Join(dir, "log", "init.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open log of init: %w", err)
	}
	defer log.Close()
	ready, readyEnd, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	defer ready.Close()
	cmd := exec.Command("/proc/self/exe", "lab", "machine-init", dir)
	cmd.Env = append(os.Environ(), bornVariable+"=1")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{readyEnd}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP,
	}
	leash, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start init: %w", err)
	}
	readyEnd.Close()
	if err := settle(r, m.Name, os.Getpid(), cmd.Process.Pid); err != nil {
		return err // the child ends with the leash
	}
	if _, err := leash.Write([]byte("\n")); err != nil {
		return fmt.Errorf("release init: %w", err)
	}
	answer, err := io.ReadAll(ready)
	if err != nil {
		return fmt.Errorf("wait for init: %w", err)
	}
	if string(answer) != "ready" {
		return fmt.Errorf("init: %s (log: %s)", answer, log.Name())
	}
	return nil
}

// settle moves processes from the machine's version 2 cgroup to its leaf and
// then delegates the controllers.
func settle(r record, machine string, pids ...int) error {
	for _, h := range r.Hierarchies {
		if !h.Unified {
			continue
		}
		leaf := h.leaf(r.World.Name, machine)
		if err := os.Mkdir(leaf, 0o755); err != nil {
			return fmt.Errorf("make cgroup: %w", err)
		}
		for _, pid := range pids {
			if err := join(leaf, pid); err != nil {
				return err
			}
		}
		delegate(h.path(r.World.Name, machine))
	}
	return nil
}

// bornInit is the init: it waits for the leash, makes the machine around
// itself, says so, and runs the services.
func bornInit(dir string) error {
	if n, _ := os.Stdin.Read(make([]byte, 1)); n == 0 {
		return errors.New("who started this machine has ended")
	}
	ready := os.NewFile(3, "ready")
	unix.CloseOnExec(3)
	in, err := makeMachine(dir)
	if err != nil {
		fmt.Fprint(ready, err)
		return err
	}
	fmt.Fprint(ready, "ready")
	ready.Close()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	return in.Run(ctx)
}

// machineInit runs a machine's services.
type machineInit struct {
	control  *net.UnixListener
	services []*service
}

// makeMachine turns the calling process's namespaces into the machine.
func makeMachine(dir string) (*machineInit, error) {
	r, m, err := load(dir)
	if err != nil {
		return nil, err
	}
	// Opened while the host's files are still in sight.
	log, err := os.OpenRoot(filepath.Join(dir, "log"))
	if err != nil {
		return nil, fmt.Errorf("open logs: %w", err)
	}
	path := filepath.Join(dir, "control.sock")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the control socket of the last boot: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for control: %w", err)
	}
	l.SetUnlinkOnClose(false) // the name is the host's
	if err := unix.Sethostname([]byte(m.Name)); err != nil {
		return nil, fmt.Errorf("set hostname: %w", err)
	}
	if m.Name == fabricName {
		err = makeSegments(r.Segments)
	} else {
		err = makeNetwork(&r, m)
	}
	if err != nil {
		return nil, err
	}
	if err := enterRoot(r, m); err != nil {
		return nil, err
	}
	unix.Umask(0o022)
	in := &machineInit{control: l}
	for _, s := range m.Services {
		in.services = append(in.services, newService(s, log))
	}
	return in, nil
}

// Run keeps the services running until ctx ends or a shutdown is asked for.
func (in *machineInit) Run(ctx context.Context) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range in.services {
		g.Go(func() error { return s.Run(ctx) })
	}
	g.Go(func() error { return serveControl(ctx, in.control, in.services, end) })
	return g.Wait()
}
