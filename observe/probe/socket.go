package probe

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
)

// conn asks one address by ICMP or UDP. Its packets are never divided on the
// way, and what the kernel knows of the path does not keep them back.
type conn struct {
	net.Conn
	kind   Kind
	family model.Family
	nonce  uint64
	buffer [512]byte // of a packet, the headers and the message are read
}

func (t Task) open(ctx context.Context, kind Kind) (*conn, error) {
	c := &conn{kind: kind, family: model.FamilyOf(t.To), nonce: rand.Uint64()}
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error { return c.control(raw) }}
	err := t.here(func() (err error) {
		switch {
		case kind == UDP:
			c.Conn, err = dialer.DialUDP(ctx, "udp", netip.AddrPort{}, netip.AddrPortFrom(t.To, Port))
		case c.family == model.IPv4:
			c.Conn, err = dialer.DialIP(ctx, "ip4:1", netip.Addr{}, t.To)
		default:
			c.Conn, err = dialer.DialIP(ctx, "ip6:58", netip.Addr{}, t.To)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open a socket: %w", err)
	}
	return c, nil
}

// control sets what a socket needs: PMTUDISC_PROBE (ip(7)) sends without regard
// to what is known of the path, and RECVERR tells who refused a packet.
func (c *conn) control(raw syscall.RawConn) error {
	type option struct{ level, name, value int }
	options := []option{
		{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE},
		{unix.IPPROTO_IP, unix.IP_RECVERR, 1},
	}
	if c.family == model.IPv6 {
		options = []option{
			{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE},
			{unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1},
			{unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1},
		}
	}
	var failed error
	err := raw.Control(func(fd uintptr) {
		for _, o := range options {
			if err := unix.SetsockoptInt(int(fd), o.level, o.name, o.value); err != nil && failed == nil {
				failed = fmt.Errorf("set option %d of a socket: %w", o.name, err)
			}
		}
	})
	if err != nil {
		return err
	}
	return failed
}

// The types of echoes: RFC 792 and RFC 4443 section 4.
const (
	echoRequest4, echoReply4 = 8, 0
	echoRequest6, echoReply6 = 128, 129
)

// ask sends a question of this size, in bytes with the IP header.
func (c *conn) ask(sequence uint16, size int) error {
	content := make([]byte, max(size-headers(c.family), headerSize))
	message{kind: question, sequence: sequence, nonce: c.nonce}.put(content)
	if c.kind == ICMP {
		echo := make([]byte, 8, 8+len(content))
		echo[0] = echoRequest4
		if c.family == model.IPv6 {
			echo[0] = echoRequest6
		}
		binary.BigEndian.PutUint16(echo[4:], uint16(c.nonce))
		binary.BigEndian.PutUint16(echo[6:], sequence)
		content = append(echo, content...)
		if c.family == model.IPv4 { // the kernel knows the pseudo header of IPv6
			binary.BigEndian.PutUint16(content[2:], checksum(content))
		}
	}
	_, err := c.Write(content)
	return err
}

// hear returns the next answer to this connection's questions.
func (c *conn) hear() (message, error) {
	for {
		packet, err := c.read()
		if err != nil {
			return message{}, err
		}
		want := answer
		if c.kind == ICMP {
			reply := byte(echoReply4)
			if c.family == model.IPv6 {
				reply = echoReply6
			}
			if len(packet) < 8 || packet[0] != reply {
				continue
			}
			packet, want = packet[8:], question // which comes back as it was
		}
		if m, ok := parse(packet); ok && m.nonce == c.nonce && m.kind == want {
			return m, nil
		}
	}
}

func (c *conn) read() ([]byte, error) {
	if raw, ok := c.Conn.(*net.IPConn); ok {
		n, _, err := raw.ReadFromIP(c.buffer[:]) // without the header of IPv4
		return c.buffer[:n], err
	}
	n, err := c.Read(c.buffer[:])
	return c.buffer[:n], err
}

// refusal takes what the kernel keeps of a refused packet (ip(7), IP_RECVERR);
// zero if there is nothing.
func (c *conn) refusal() (said refusal) {
	source, ok := c.Conn.(syscall.Conn)
	if !ok {
		return said
	}
	raw, err := source.SyscallConn()
	if err != nil {
		return said
	}
	_ = raw.Control(func(fd uintptr) {
		for {
			var content, control [512]byte
			_, n, _, _, err := unix.Recvmsg(int(fd), content[:], control[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
			if err != nil {
				return
			}
			if found, ok := parseRefusal(control[:n]); ok {
				said = found
			}
		}
	})
	return said
}

// extendedError is struct sock_extended_err, in bytes; the address of who said
// so follows.
const extendedError = 16

func parseRefusal(control []byte) (said refusal, ok bool) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return said, false
	}
	for _, m := range messages {
		known := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR ||
			m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if !known || len(m.Data) < extendedError {
			continue
		}
		errno := unix.Errno(binary.NativeEndian.Uint32(m.Data))
		said.text, said.closed = explain(errno), errno == unix.ECONNREFUSED
		if errno == unix.EMSGSIZE {
			said.mtu = int(binary.NativeEndian.Uint32(m.Data[8:]))
		}
		if origin := m.Data[4]; origin == unix.SO_EE_ORIGIN_ICMP || origin == unix.SO_EE_ORIGIN_ICMP6 {
			said.from = socketAddress(m.Data[extendedError:])
		}
		return said, true
	}
	return said, false
}

// socketAddress reads a struct sockaddr_in or sockaddr_in6.
func socketAddress(raw []byte) netip.Addr {
	if len(raw) < 2 {
		return netip.Addr{}
	}
	switch family := binary.NativeEndian.Uint16(raw); {
	case family == unix.AF_INET && len(raw) >= 8:
		return netip.AddrFrom4([4]byte(raw[4:8]))
	case family == unix.AF_INET6 && len(raw) >= 24:
		return netip.AddrFrom16([16]byte(raw[8:24]))
	default:
		return netip.Addr{}
	}
}
