package main

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const port = 5201

// connection returns two ends of a TCP connection from one pod to the other.
func (w *world) connection() (client, server int, err error) {
	listener, err := w.listen()
	if err != nil {
		return 0, 0, err
	}
	defer unix.Close(listener)
	err = w.pods[0].do(func() error {
		if client, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Connect(client, &unix.SockaddrInet4{Addr: podAddress(1).As4(), Port: port})
	})
	if err != nil {
		return 0, 0, fmt.Errorf("connect: %w", err)
	}
	if server, _, err = unix.Accept(listener); err != nil {
		return 0, 0, fmt.Errorf("accept: %w", err)
	}
	for _, fd := range []int{client, server} {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
			unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno")) // does not pace, and every kernel has it
	}
	return client, server, err
}

// listen returns a socket in the pod of node 1.
func (w *world) listen() (listener int, err error) {
	err = w.pods[1].do(func() error {
		if listener, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return errors.Join(
			unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.Bind(listener, &unix.SockaddrInet4{Port: port}), unix.Listen(listener, 100))
	})
	if err != nil {
		return 0, fmt.Errorf("listen: %w", err)
	}
	return listener, nil
}

// on keeps the calling goroutine on one processor, so that where the scheduler
// happened to put the two ends is not what is measured. Where a process in the
// middle works, too, the scheduler has to balance them.
func (w *world) on(processor int) (release func()) {
	if w.floating {
		return func() {}
	}
	runtime.LockOSThread()
	var before, one unix.CPUSet
	_ = unix.SchedGetaffinity(0, &before)
	one.Set(processor % runtime.NumCPU())
	_ = unix.SchedSetaffinity(0, &one)
	return func() {
		_ = unix.SchedSetaffinity(0, &before)
		runtime.UnlockOSThread()
	}
}

// stream returns the bytes that arrive in a second.
func (w *world) stream(duration time.Duration) (float64, error) {
	client, server, err := w.connection()
	if err != nil {
		return 0, err
	}
	go func() {
		defer w.on(0)()
		block := make([]byte, 128<<10)
		for began := time.Now(); time.Since(began) < duration; {
			if _, err := unix.Write(client, block); err != nil {
				break
			}
		}
		_ = unix.Close(client)
	}()
	defer unix.Close(server)
	defer w.on(1)()
	block, total, began := make([]byte, 256<<10), 0, time.Now()
	for {
		n, err := unix.Read(server, block)
		if n == 0 || err != nil {
			return float64(total) / time.Since(began).Seconds(), err
		}
		total += n
	}
}

// respond returns how many bytes come back, one after the other, in a second.
func (w *world) respond(duration time.Duration) (float64, error) {
	client, server, err := w.connection()
	if err != nil {
		return 0, err
	}
	defer unix.Close(client)
	go func() {
		defer w.on(0)()
		b := make([]byte, 1)
		for {
			if n, err := unix.Read(server, b); n != 1 || err != nil {
				break
			}
			if _, err := unix.Write(server, b); err != nil {
				break
			}
		}
		_ = unix.Close(server)
	}()
	defer w.on(0)()
	turns, b, began := 0, make([]byte, 1), time.Now()
	for ; time.Since(began) < duration; turns++ {
		if _, err := unix.Write(client, b); err != nil {
			return 0, err
		}
		if n, err := unix.Read(client, b); n != 1 || err != nil {
			return 0, fmt.Errorf("the other end is gone: %w", err)
		}
	}
	return float64(turns) / time.Since(began).Seconds(), nil
}
