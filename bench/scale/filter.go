package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// filter follows what changes in nftables. Who reads it takes the processor from
// others as soon as there is something: else it learns some milliseconds late of what
// it measures, as the agent and the kernel's own listeners keep the processors busy.
type filter struct {
	socket int
	block  []byte
}

// watchFilter is for the calling thread, which has to stay the same.
func watchFilter() (*filter, error) {
	socket, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("watch nftables: %w", err)
	}
	const buffer = 64 << 20 // one message for each element
	err = errors.Join(
		unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer),
		unix.Bind(socket, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)}),
		schedule(unix.SCHED_FIFO, 1))
	if err != nil {
		_ = unix.Close(socket)
		return nil, fmt.Errorf("watch nftables: %w", err)
	}
	return &filter{socket, make([]byte, 1<<16)}, nil
}

func schedule(policy, priority uint32) error {
	return unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policy, Priority: priority}, 0)
}

func (f *filter) close() {
	_ = schedule(unix.SCHED_NORMAL, 0)
	_ = unix.Close(f.socket)
}

// generation waits for the end of a transaction, but not longer:
// os.ErrDeadlineExceeded.
func (f *filter) generation(longest time.Duration) (at time.Time, err error) {
	for deadline := time.Now().Add(longest); ; {
		left := time.Until(deadline)
		if left <= 0 {
			return at, fmt.Errorf("wait for the kernel: %w", os.ErrDeadlineExceeded)
		}
		timeout := unix.NsecToTimeval(left.Nanoseconds() + 1000)
		if err := unix.SetsockoptTimeval(f.socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
			return at, fmt.Errorf("wait for the kernel: %w", err)
		}
		n, _, err := unix.Recvfrom(f.socket, f.block, 0)
		at = time.Now()
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return at, fmt.Errorf("wait for the kernel: %w", err)
		}
		messages, err := syscall.ParseNetlinkMessage(f.block[:n])
		if err != nil {
			return at, fmt.Errorf("wait for the kernel: %w", err)
		}
		for _, message := range messages {
			if message.Header.Type&0xff == unix.NFT_MSG_NEWGEN {
				return at, nil
			}
		}
	}
}

// last waits for a transaction, and those that follow it at once, and returns the end
// of the last one. What comes later, the agent does in its own time (policy.Plan.Untidy).
func (f *filter) last() (at time.Time, err error) {
	const atOnce = 20 * time.Millisecond // several times what is between those of one change
	next, err := f.generation(time.Minute)
	for ; err == nil; next, err = f.generation(atOnce) {
		at = next
	}
	if !at.IsZero() && errors.Is(err, os.ErrDeadlineExceeded) {
		return at, nil
	}
	return at, err
}

// rest lets some time go by, and what comes meanwhile.
func (f *filter) rest() error {
	for end := time.Now().Add(alone); ; {
		if _, err := f.generation(time.Until(end)); errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
