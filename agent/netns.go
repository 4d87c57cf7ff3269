package agent

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// inside runs f in a network namespace, on a thread that is nobody else's
// meanwhile. The thread goes back afterwards: it may be the process' first, which
// cannot end before the process and would hold the namespace until then.
func inside(netns *os.File, f func() error) error {
	result := make(chan error)
	go func() { result <- visit(netns, f) }()
	return <-result
}

func visit(netns *os.File, f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open(currentNetns)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("look at the thread's network namespace: %w", err)
	}
	defer home.Close()
	if err := unix.Setns(int(netns.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace: %w", err)
	}
	err = f()
	// A thread that cannot go back stays locked, and so ends with the goroutine.
	if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread()
	}
	return err
}

// currentNetns is the thread's, where /proc/self/ns/net is the first thread's,
// wherever that may be.
const currentNetns = "/proc/thread-self/ns/net"

// netnsID tells namespaces apart.
type netnsID struct{ device, inode uint64 }

// identify refuses what is not a network namespace.
func identify(netns *os.File) (netnsID, error) {
	kind, err := unix.IoctlRetInt(int(netns.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		return netnsID{}, errors.New("the file is none of a network namespace")
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(netns.Fd()), &stat); err != nil {
		return netnsID{}, fmt.Errorf("look at network namespace: %w", err)
	}
	return netnsID{stat.Dev, stat.Ino}, nil
}

// nodeNetns is the node's, that is, the one of the calling thread.
func nodeNetns() (netnsID, error) {
	netns, err := os.Open(currentNetns)
	if err != nil {
		return netnsID{}, fmt.Errorf("look at the node's network namespace: %w", err)
	}
	defer netns.Close()
	return identify(netns)
}

// setSysctl writes a setting below /proc/sys/net of the thread's network
// namespace, if it differs.
func setSysctl(path, value string) error {
	path = "/proc/sys/net/" + path
	current, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read sysctl: %w", err)
	}
	if strings.TrimSpace(string(current)) == value {
		return nil
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("write sysctl: %w", err)
	}
	return nil
}
