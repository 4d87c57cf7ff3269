package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// agentOf is the process of the agent on a node.
func (l *Lab) agentOf(node string) (pid int, err error) { return l.processOf(node, "agent") }

// processOf is the process of one of Fairlead's roles on a node.
func (l *Lab) processOf(node, role string) (pid int, err error) {
	if _, err := l.Node(node); err != nil {
		return 0, err
	}
	pids, err := l.world.Processes(node)
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		if strings.HasPrefix(readFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline")), "/fairlead\x00"+role+"\x00") {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("no process of fairlead %s runs on %s; fairlead lab kubectl --name %s get pods --all-namespaces --output=wide tells of it", role, node, l.Name())
}

// KillAgent kills the agent of a node at once, as a crash does. The kubelet
// starts it again.
func (l *Lab) KillAgent(_ context.Context, node string) error {
	pid, err := l.agentOf(node)
	if err != nil {
		return err
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		return fmt.Errorf("killing the agent of %s: %w", node, err)
	}
	return nil
}

// KillDNS kills the DNS server of a node at once; the kubelet starts it again.
func (l *Lab) KillDNS(_ context.Context, node string) error { return l.signalDNS(node, unix.SIGKILL) }

// HangDNS stops the DNS server of a node as it is: it has its sockets, and answers
// nobody, until it is not to hang any more.
func (l *Lab) HangDNS(_ context.Context, node string, hang bool) error {
	if hang {
		return l.signalDNS(node, unix.SIGSTOP)
	}
	return l.signalDNS(node, unix.SIGCONT)
}

func (l *Lab) signalDNS(node string, signal unix.Signal) error {
	pid, err := l.processOf(node, "dns")
	if err != nil {
		return err
	}
	if err := unix.Kill(pid, signal); err != nil {
		return fmt.Errorf("sending a signal to the DNS server of %s: %w", node, err)
	}
	return nil
}

// StarveAgent lets the agent of a node, as it runs now, have no more memory than
// it has, and makes it want more, so that the kernel kills it. The kubelet starts
// it again, with its own limit.
func (l *Lab) StarveAgent(_ context.Context, node string) error {
	pid, err := l.agentOf(node)
	if err != nil {
		return err
	}
	for line := range strings.Lines(readFile(filepath.Join("/proc", strconv.Itoa(pid), "cgroup"))) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		switch unified := "/sys/fs/cgroup" + fields[2] + "/memory.max"; {
		case fields[1] == "memory":
			err = squeeze("/sys/fs/cgroup/memory" + fields[2])
		case fields[1] == "" && readFile(unified) != "":
			err = os.WriteFile(unified, []byte("1M"), 0)
		default:
			continue
		}
		if err != nil {
			return fmt.Errorf("starving the agent of %s: %w", node, err)
		}
		return l.world.Do(node, feast)
	}
	return fmt.Errorf("starving the agent of %s: no cgroup of it limits memory", node)
}

// feast asks the agent on this thread's network for more than it can remember,
// until it answers no more.
func feast() error {
	for range 1000 {
		conn, err := net.Dial("tcp", "127.0.0.1:9811")
		if err != nil {
			return nil
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET /debug/snapshot HTTP/1.1\r\nHost: agent\r\n\r\n"); err != nil {
			return nil
		}
	}
	return nil
}

// squeeze takes from a cgroup of version 1 all memory that it does not insist
// on: there, a limit below what is used is refused.
func squeeze(cgroup string) error {
	limit := filepath.Join(cgroup, "memory.limit_in_bytes")
	for {
		used, err := strconv.Atoi(strings.TrimSpace(readFile(filepath.Join(cgroup, "memory.usage_in_bytes"))))
		if err != nil {
			return nil // it has been killed
		}
		err = os.WriteFile(limit, []byte(strconv.Itoa(used*9/10)), 0)
		if errors.Is(err, unix.EBUSY) {
			return os.WriteFile(limit, []byte(strconv.Itoa(used)), 0)
		}
		if err != nil {
			return err
		}
	}
}

// LimitAgent lets the agent of a node, as it runs now, have this many files open
// and no more, up to the limit it was started with. What it has open beyond that
// stays open.
func (l *Lab) LimitAgent(_ context.Context, node string, files uint64) error {
	pid, err := l.agentOf(node)
	if err != nil {
		return err
	}
	var now unix.Rlimit
	err = unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &now)
	if err == nil {
		err = unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: min(files, now.Max), Max: now.Max}, nil)
	}
	if err != nil {
		return fmt.Errorf("limiting the files of the agent of %s: %w", node, err)
	}
	return nil
}
