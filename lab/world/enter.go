package world

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Command is a program to run inside a machine, in all its namespaces and its
// cgroup. argv[0] is looked up in the PATH inside. It ends when ctx does, and
// when the machine is switched off.
func (w *World) Command(ctx context.Context, machine string, argv ...string) *exec.Cmd {
	return exec.CommandContext(ctx, w.Executable, append([]string{"lab", "machine-enter", w.Dir, machine, "--"}, argv...)...)
}

// Enter is the program's hidden verb "lab machine-enter DIR NAME -- argv": it
// makes the calling process part of the machine and replaces it by argv, so it
// returns only on an error.
func Enter(dir, name string, argv []string) error {
	if len(argv) == 0 {
		return errors.New("enter machine: no command")
	}
	w := &World{Dir: dir}
	r, err := w.record()
	if err != nil {
		return err
	}
	w = &r.World
	pidfd, err := w.openInit(name)
	if err != nil {
		return err
	}
	for _, h := range r.Hierarchies {
		if err := join(h.leaf(w.Name, name), os.Getpid()); err != nil {
			return err
		}
	}
	runtime.LockOSThread()
	// The kernel moves a thread to another mount namespace only if it shares its
	// root and working directory with no other thread.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("enter machine %s: %w", name, err)
	}
	const flags = unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP
	if err := unix.Setns(int(pidfd.Fd()), flags); err != nil {
		return fmt.Errorf("enter machine %s: %w", name, err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter machine %s: %w", name, err)
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return fmt.Errorf("enter machine %s: %w", name, err)
	}
	if err := syscall.Exec(path, argv, os.Environ()); err != nil {
		return fmt.Errorf("run %s on machine %s: %w", path, name, err)
	}
	return nil
}

// openInit opens a machine's init as a pidfd.
func (w *World) openInit(name string) (*os.File, error) {
	conn, pid, err := w.dial(name)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("open init of machine %s: %w", name, err)
	}
	// It answers, so the process id was still its own when it was opened.
	ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
	defer cancel()
	if _, err := w.control(ctx, name, request{Verb: verbStatus}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// openNetns opens a machine's network namespace.
func (w *World) openNetns(name string) (*os.File, error) {
	conn, pid, err := w.dial(name)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ns, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open network namespace of machine %s: %w", name, err)
	}
	return ns, nil
}

// Do runs f in the network namespace of a machine, on a thread of its own: f
// must not start goroutines that use the network. Sockets made in f belong to
// the machine for ever.
func (w *World) Do(machine string, f func() error) error {
	ns, err := w.openNetns(machine)
	if err != nil {
		return err
	}
	defer ns.Close()
	return OnThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network of machine %s: %w", machine, err)
		}
		return f()
	})
}

// OnThread runs f on a thread of its own, which ends with f instead of going
// back, in a foreign namespace, to other goroutines. That is never the main
// thread: the runtime cannot end it, and what it sees is what /proc/self shows.
func OnThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		err := errors.New("function did not return")
		defer func() { result <- err }()
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// While the main thread waits here, f gets another one.
			err = OnThread(f)
			runtime.UnlockOSThread()
			return
		}
		err = f()
	}()
	return <-result
}
