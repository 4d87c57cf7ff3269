package main

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
)

// call is one question: who answers a client at an address?
type call struct {
	client   *client
	protocol model.Protocol
	to       netip.AddrPort
}

func (c call) String() string { return fmt.Sprintf("%s calls %s %s", c.client.name, c.protocol, c.to) }

// answer is what a client meets.
type answer struct {
	server  netip.AddrPort // who answered; invalid: nobody
	seen    netip.Addr     // whom he saw
	refused bool           // nobody answered; true: and the client was told
	other   string         // it went wrong in another way
}

func (a answer) String() string {
	switch {
	case a.other != "":
		return a.other
	case a.server.IsValid():
		return fmt.Sprintf("%s, who sees %s", a.server, a.seen)
	case a.refused:
		return "refused"
	}
	return "silence"
}

// Times that calls take at most. Where an answer is expected, it is waited for;
// where none is, until all others have come and a moment more.
const (
	patience = 5 * time.Second
	moment   = 60 * time.Millisecond
	atOnce   = 150 // calls, so that no queue of packets overflows
)

// ask makes calls from one namespace, each from a socket of its own. silent tells
// of which no answer is expected.
func (s *space) ask(calls []call, silent func(int) bool) ([]answer, error) {
	answers := make([]answer, len(calls))
	err := s.do(func() error {
		for first := 0; first < len(calls); first += atOnce {
			last := min(first+atOnce, len(calls))
			if err := askTogether(calls[first:last], answers[first:last], func(i int) bool { return silent(first + i) }); err != nil {
				return err
			}
		}
		return nil
	})
	return answers, err
}

func askTogether(calls []call, answers []answer, silent func(int) bool) error {
	poll := make([]unix.PollFd, len(calls))
	waiting, open := 0, 0 // for answers that are expected; for any
	defer func() {
		for i := range poll {
			if poll[i].Fd >= 0 {
				_ = unix.Close(int(poll[i].Fd))
			}
		}
	}()
	settle := func(i int, a answer) {
		answers[i] = a
		_ = unix.Close(int(poll[i].Fd))
		poll[i].Fd = -1
		open--
		if !silent(i) {
			waiting--
		}
	}
	for i, c := range calls {
		fd, err := dial(c)
		poll[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
		open++
		if !silent(i) {
			waiting++
		}
		if fd < 0 {
			return fmt.Errorf("%s: %w", c, err)
		}
		if err != nil {
			settle(i, failed(err))
		}
	}
	deadline, closing := time.Now().Add(patience), false
	for open > 0 {
		if waiting == 0 && !closing {
			closing, deadline = true, time.Now().Add(moment)
		}
		left := time.Until(deadline)
		if left <= 0 {
			return nil
		}
		if _, err := unix.Poll(poll, int(left.Milliseconds())+1); err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for answers: %w", err)
		}
		for i := range poll {
			if poll[i].Fd >= 0 && poll[i].Revents != 0 {
				if a, ok := hear(int(poll[i].Fd)); ok {
					settle(i, a)
				}
			}
		}
	}
	return nil
}

// dial opens a socket and begins to call. With an error there may be a socket.
func dial(c call) (fd int, err error) {
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	if c.to.Addr().Is6() {
		family = unix.AF_INET6
	}
	if c.protocol == model.UDP {
		kind = unix.SOCK_DGRAM
	}
	if fd, err = unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, err
	}
	if c.protocol == model.TCP {
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) // it ends with a reset, and nothing stays
		_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	}
	source := c.client.source[model.FamilyOf(c.to.Addr())]
	if err = unix.Bind(fd, socketAddress(netip.AddrPortFrom(source, 0))); err != nil {
		return fd, err
	}
	if err = unix.Connect(fd, socketAddress(c.to)); err == unix.EINPROGRESS {
		return fd, refusal(fd)
	}
	if err == nil {
		_, err = unix.Write(fd, []byte("?"))
	}
	if err == unix.EPERM {
		err = nil // the node itself is told at once that nothing left it, and then why
	}
	return fd, err
}

func socketAddress(at netip.AddrPort) unix.Sockaddr {
	if at.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}
	}
	return &unix.SockaddrInet6{Addr: at.Addr().As16(), Port: int(at.Port())}
}

// refusal is an error that came while the kernel was still sending: a soft one,
// of which only this tells before the kernel sends again, after a second.
func refusal(fd int) error {
	if code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil && code != 0 {
		return unix.Errno(code)
	}
	return nil
}

// hear reads what has come, if it is an end.
func hear(fd int) (a answer, ok bool) {
	if err := refusal(fd); err != nil {
		return failed(err), true
	}
	buffer := make([]byte, 200)
	length, err := unix.Read(fd, buffer)
	if err == unix.EAGAIN {
		return a, false
	}
	if err != nil {
		return failed(err), true
	}
	server, seen, _ := strings.Cut(string(buffer[:length]), " ")
	at, err := netip.ParseAddrPort(server)
	from, err2 := netip.ParseAddrPort(seen)
	if err != nil || err2 != nil {
		return answer{other: fmt.Sprintf("a broken answer %q", buffer[:length])}, true
	}
	return answer{server: at, seen: from.Addr().Unmap()}, true
}

func failed(err error) answer {
	if err == unix.ECONNREFUSED {
		return answer{refused: true}
	}
	return answer{other: err.Error()}
}
