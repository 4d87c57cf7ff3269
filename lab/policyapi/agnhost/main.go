// Command agnhost stands before upstream's in its image, and does for it what
// needs SCTP, where the kernel has no sockets of it: it begins associations, and
// answers who begins them, by raw sockets. To the network, to connection tracking
// and to rules they are associations like any other. All else is done by
// upstream's, at /agnhost.upstream.
package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// upstream is where the image has upstream's.
const upstream = "/agnhost.upstream"

func main() {
	timeout, to, begins := sctpConnect(os.Args[1:])
	port, serves := sctpPort(os.Environ())
	var err error
	switch {
	case begins:
		err = associate(to, timeout)
	case serves && len(os.Args) > 1 && os.Args[1] == "porter":
		err = serve(port)
	default:
		err = syscall.Exec(upstream, append([]string{"agnhost"}, os.Args[1:]...), os.Environ())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, complaint(err)) // before the colon is what agnhost says
		os.Exit(1)
	}
}

// complaint is the error with the word before it that agnhost connect has.
func complaint(err error) string {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "TIMEOUT"
	}
	return "OTHER: " + err.Error()
}

// sctpConnect reads the arguments of agnhost connect; not if it is another
// command, or another protocol.
func sctpConnect(args []string) (timeout time.Duration, to string, sctp bool) {
	if len(args) == 0 || args[0] != "connect" {
		return 0, "", false
	}
	for _, arg := range args[1:] {
		if value, ok := strings.CutPrefix(arg, "--timeout="); ok {
			timeout, _ = time.ParseDuration(value) // 0: forever, as upstream's
		} else if !strings.HasPrefix(arg, "-") {
			to = arg
		}
		sctp = sctp || arg == "--protocol=sctp"
	}
	return timeout, to, sctp
}

// sctpPort is that of a variable SERVE_SCTP_PORT_9003.
func sctpPort(environ []string) (port uint16, ok bool) {
	for _, variable := range environ {
		if name, ok := strings.CutPrefix(variable, "SERVE_SCTP_PORT_"); ok {
			text, _, _ := strings.Cut(name, "=")
			if n, err := strconv.ParseUint(text, 10, 16); err == nil {
				return uint16(n), true
			}
		}
	}
	return 0, false
}

// associate begins an association and takes it back, once the other end has
// answered.
func associate(to string, timeout time.Duration) error {
	host, service, err := net.SplitHostPort(to)
	if err != nil {
		return err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return fmt.Errorf("the port of %s: %w", to, err)
	}
	address, err := net.ResolveIPAddr("ip", host)
	if err != nil {
		return err
	}
	conn, err := net.DialIP("ip:132", nil, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if timeout > 0 {
		if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
			return err
		}
	}
	mine := uint16(32768 + os.Getpid()%28232) // nobody else in the pod has this process' number
	const tag = 0x464c4c31
	if _, err := conn.Write(packet{from: mine, to: uint16(port), kind: initiate, body: beginning(tag)}.bytes()); err != nil {
		return err
	}
	for buffer := make([]byte, 2048); ; {
		n, _, err := conn.ReadFrom(buffer) // Read would leave the header of IPv4 before it
		if err != nil {
			return err
		}
		answer, ok := parse(buffer[:n])
		if !ok || answer.from != uint16(port) || answer.to != mine || answer.tag != tag {
			continue
		}
		if answer.kind != acknowledge {
			return fmt.Errorf("it was answered by a chunk of type %d", answer.kind)
		}
		_, err = conn.Write(packet{from: mine, to: uint16(port), tag: answer.theirTag(), kind: abort}.bytes())
		return err
	}
}

// serve answers all that begin an association with a port, on all addresses.
func serve(port uint16) error {
	failed := make(chan error)
	for _, network := range []string{"ip4:132", "ip6:132"} {
		conn, err := net.ListenIP(network, nil)
		if err != nil {
			return err
		}
		go func() { failed <- answerAll(conn, port) }()
	}
	return <-failed
}

func answerAll(conn *net.IPConn, port uint16) error {
	for buffer := make([]byte, 2048); ; {
		n, client, err := conn.ReadFrom(buffer)
		if err != nil {
			return err
		}
		p, ok := parse(buffer[:n])
		if !ok || p.to != port || p.kind != initiate {
			continue
		}
		cookie := []byte{0, 7, 0, 8, 'F', 'L', 'L', 'D'} // a parameter: State Cookie
		answer := packet{from: port, to: p.from, tag: p.theirTag(), kind: acknowledge, body: append(beginning(0x464c4c32), cookie...)}
		if _, err := conn.WriteTo(answer.bytes(), client); err != nil {
			fmt.Fprintln(os.Stderr, err) // the client is gone
		}
	}
}
