// Package privilege makes a process that was started as root an unprivileged one
// that may bind the ports below 1024, and nothing else. It is called once, before
// there is a goroutine that matters: the process is started anew.
package privilege

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// keep is the only capability that is left.
const keep = unix.CAP_NET_BIND_SERVICE

// lastCapability bounds those that a kernel knows.
const lastCapability = 63

// marker is in the environment of the process that was started anew, so that what
// could not be dropped does not make it start for ever.
const marker = "FAIRLEAD_UNPRIVILEGED"

// Drop makes the process one of a user and its group, with no capability but
// CAP_NET_BIND_SERVICE, which no program that it starts can widen. It does so by
// starting itself anew: rights are those of threads, of which Go has many, and all
// get theirs from the one that begins. So it returns only if there is nothing to
// drop, or it fails. owned are directories that the user is to have, as far as
// the process may make and give them away.
func Drop(user int, owned ...string) error {
	caps, err := capabilities()
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 && caps&^(1<<keep) == 0 {
		return nil
	}
	if os.Getenv(marker) != "" {
		return fmt.Errorf("drop rights: user %d with capabilities %#x is left of them", os.Geteuid(), caps)
	}
	for _, dir := range owned {
		give(dir, user)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("drop rights: %w", err)
	}
	runtime.LockOSThread() // to the end: the thread is what changes
	if err := drop(user); err != nil {
		return fmt.Errorf("drop rights: %w", err)
	}
	env := append(slices.Clone(os.Environ()), marker+"=1")
	return fmt.Errorf("start anew without rights: %w", syscall.Exec(self, os.Args, env))
}

// give makes a directory of a user. Where that is not allowed, whoever needs it
// says so later.
func give(dir string, user int) {
	if os.MkdirAll(dir, 0o700) == nil {
		_ = os.Chown(dir, user, user)
	}
}

// drop changes the calling thread.
func drop(user int) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("allow no new privileges: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("keep capabilities: %w", err)
	}
	// Without CAP_SETPCAP the bounding set stays: with no new privileges, nothing
	// that the process starts can get at it.
	for c := range lastCapability + 1 {
		if c != keep {
			_ = unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		}
	}
	if os.Geteuid() == 0 {
		if err := becomeUser(user); err != nil {
			return err
		}
	}
	if err := restrict(); err != nil {
		return err
	}
	// So that the program that is started next has it, although it is not root's.
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, keep, 0, 0); err != nil {
		return fmt.Errorf("hand on CAP_NET_BIND_SERVICE (does the process have it?): %w", err)
	}
	return nil
}

// becomeUser changes this thread alone, with the system calls themselves.
func becomeUser(user int) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
		return fmt.Errorf("leave all groups (CAP_SETGID): %w", errno)
	}
	id := uintptr(user)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, id, id, id); errno != 0 {
		return fmt.Errorf("become group %d (CAP_SETGID): %w", user, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, id, id, id); errno != 0 {
		return fmt.Errorf("become user %d (CAP_SETUID): %w", user, errno)
	}
	return nil
}

// restrict leaves one capability, if there is any.
func restrict() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	sets := [2]unix.CapUserData{{Effective: 1 << keep, Permitted: 1 << keep, Inheritable: 1 << keep}}
	if err := unix.Capset(&header, &sets[0]); err != nil {
		return fmt.Errorf("keep CAP_NET_BIND_SERVICE alone (does the process have it?): %w", err)
	}
	return nil
}

// capabilities are those that the process could use.
func capabilities() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return 0, fmt.Errorf("read capabilities: %w", err)
	}
	return uint64(sets[0].Permitted) | uint64(sets[1].Permitted)<<32, nil
}
