package world

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// httpGet asks a server on port 80 with plain system calls on the calling
// thread: the net package would dial on others, which are not in the machine.
func httpGet(to netip.Addr, timeout time.Duration) (string, error) {
	fd, err := dialTCP(to, 80, timeout)
	if err != nil {
		return "", err
	}
	conn := os.NewFile(uintptr(fd), "tcp")
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// dialTCP connects; the timeout also holds for each later read and write.
func dialTCP(to netip.Addr, port int, timeout time.Duration) (int, error) {
	family := unix.AF_INET6
	var address unix.Sockaddr = &unix.SockaddrInet6{Port: port, Addr: to.As16()}
	if to.Is4() {
		family, address = unix.AF_INET, &unix.SockaddrInet4{Port: port, Addr: to.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	limit := unix.NsecToTimeval(int64(timeout))
	for _, option := range []int{unix.SO_SNDTIMEO, unix.SO_RCVTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &limit); err != nil {
			unix.Close(fd)
			return 0, err
		}
	}
	if err := unix.Connect(fd, address); err != nil {
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

// pingCount sends n pings one after the other and counts the answers.
func pingCount(t *testing.T, w *World, from, to string, n int) int {
	t.Helper()
	answers := 0
	if err := w.Do(from, func() error {
		addr := netip.MustParseAddr(to)
		family, protocol, request, dst := unix.AF_INET, unix.IPPROTO_ICMP, byte(8), unix.Sockaddr(nil)
		if addr.Is4() {
			dst = &unix.SockaddrInet4{Addr: addr.As4()}
		} else {
			family, protocol, request = unix.AF_INET6, unix.IPPROTO_ICMPV6, 128
			dst = &unix.SockaddrInet6{Addr: addr.As16()}
		}
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for i := range n {
			if pingOnce(fd, dst, request, i) {
				answers++
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return answers
}

// pingOnce waits 10 ms for an answer, 1 s for the very first one.
func pingOnce(fd int, to unix.Sockaddr, request byte, sequence int) bool {
	reply := byte(0)
	if request == 128 {
		reply = 129
	}
	packet := []byte{request, 0, 0, 0, 0x12, 0x34, byte(sequence >> 8), byte(sequence)}
	if request == 8 { // the kernel sums ICMPv6 itself
		sum := uint32(0x0800 + 0x1234 + sequence)
		sum = ^(sum&0xffff + sum>>16)
		packet[2], packet[3] = byte(sum>>8), byte(sum)
	}
	if unix.Sendto(fd, packet, 0, to) != nil {
		return false
	}
	wait := 10 * time.Millisecond
	if sequence == 0 {
		wait = time.Second
	}
	for deadline := time.Now().Add(wait); ; {
		left := time.Until(deadline).Milliseconds()
		if left <= 0 {
			return false
		}
		if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left)); n != 1 {
			continue
		}
		buf := make([]byte, 1500)
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return false
		}
		answer := buf[:n]
		if request == 8 && n > 20 {
			answer = buf[20:n] // a raw IPv4 socket shows the IP header
		}
		if len(answer) >= 8 && answer[0] == reply && answer[6] == packet[6] && answer[7] == packet[7] {
			return true
		}
	}
}
