package cni

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// dial connects to the agent's socket. An agent that is not there is waited for
// until the deadline: it may be starting. It renames its socket into place when
// it listens, so that one which appears answers.
func dial(path string, deadline time.Time) (*net.UnixConn, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err == nil || !starting(err) {
		return conn, err
	}
	// Watch first, lest the socket come between looking and watching.
	watch, watchErr := watch(filepath.Dir(path))
	if watchErr != nil {
		return nil, errors.Join(err, watchErr)
	}
	defer watch.Close()
	if err := watch.SetReadDeadline(deadline); err != nil {
		return nil, fmt.Errorf("wait for %s: %w", path, err)
	}
	events := make([]byte, 4096)
	for {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		if err == nil || !starting(err) {
			return conn, err
		}
		if _, watchErr := watch.Read(events); watchErr != nil {
			return nil, err
		}
	}
}

// starting tells whether an error means that there is no agent: no socket, or
// one that nobody listens on.
func starting(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED)
}

// watch returns a file that can be read when something new is in the directory.
func watch(dir string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("wait for the agent: inotify: %w", err)
	}
	file := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("wait for the agent: watch %s: %w", dir, err)
	}
	return file, nil
}
