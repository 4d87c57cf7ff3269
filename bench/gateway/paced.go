package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// paced asks at a rate that both proxies have time for, from some connections, and
// tells how long answers took from when they were to be asked for: one that has to
// wait for another one's answer has waited.
//
// Each connection has a thread of its own that sleeps in the kernel: Go's timers are
// up to a millisecond late while nothing else runs, and all that were due meanwhile
// would be asked for at once.
func paced(plain, _ string, s settings) (n float64, p50, p99 time.Duration, err error) {
	const connections = 16
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2 * connections)) // nobody waits to go on
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	each := time.Second * connections / time.Duration(s.rate)
	var asking sync.WaitGroup
	took := make([][]time.Duration, connections)
	failed := make([]error, connections)
	began := time.Now().Add(10 * time.Millisecond)
	for i := range connections {
		took[i] = make([]time.Duration, 0, s.during/each+1)
		asking.Go(func() {
			failed[i] = pace(plain, began.Add(each*time.Duration(i)/connections), each, s.during, &took[i])
		})
	}
	asking.Wait()
	var all []time.Duration
	for i := range connections {
		if failed[i] != nil {
			return 0, 0, 0, failed[i]
		}
		all = append(all, took[i]...)
	}
	slices.Sort(all)
	return float64(len(all)), all[len(all)*50/100], all[len(all)*99/100], nil
}

// pace asks on one connection.
func pace(to string, next time.Time, each, during time.Duration, took *[]time.Duration) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	at, err := netip.ParseAddrPort(to)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}); err != nil {
		return fmt.Errorf("connect to %s: %w", to, err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_NODELAY, 1)
	request, answer := []byte("GET /small HTTP/1.1\r\nHost: bench\r\n\r\n"), make([]byte, 4096)
	for end := next.Add(during); next.Before(end); next = next.Add(each) {
		if wait := time.Until(next); wait > 0 {
			ts := unix.NsecToTimespec(int64(wait))
			_ = unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &ts, nil)
		}
		if _, err := unix.Write(fd, request); err != nil {
			return err
		}
		if err := readAnswer(fd, answer); err != nil {
			return err
		}
		*took = append(*took, time.Since(next))
	}
	return nil
}

// readAnswer reads a whole one, which is short.
func readAnswer(fd int, b []byte) error {
	for n := 0; ; {
		m, err := unix.Read(fd, b[n:])
		if err == unix.EINTR { // the runtime wants to know where it is
			continue
		}
		if n += max(m, 0); err != nil || m == 0 || n >= 12 && string(b[:12]) != "HTTP/1.1 200" {
			return fmt.Errorf("answer %q: %w", b[:n], err)
		}
		head := bytes.Index(b[:n], []byte("\r\n\r\n"))
		if head < 0 {
			continue
		}
		const name = "Content-Length: "
		at := bytes.Index(b[:head], []byte(name))
		if at < 0 {
			return fmt.Errorf("answer %q: it does not say how long it is", b[:n])
		}
		value, _, _ := bytes.Cut(b[at+len(name):head+2], []byte("\r\n"))
		length, err := strconv.Atoi(string(value))
		if err != nil {
			return err
		}
		if n >= head+4+length {
			return nil
		}
	}
}
