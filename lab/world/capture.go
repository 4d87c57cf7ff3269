package world

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// snapLength is how many bytes of a packet are kept: enough for the headers of
// a packet in a tunnel.
const snapLength = 256

// captureBuffer is the kernel's memory for the packets of one machine, in
// bytes: room for some 10,000 packets.
const captureBuffer = 16 << 20

// Direction is a packet's way through an interface, as the machine sees it.
type Direction string

// The directions of a packet.
const (
	In  Direction = "in"
	Out Direction = "out"
)

// Packet is a packet that passed an interface. One that passes several is
// captured at each.
type Packet struct {
	Machine   string
	Interface string
	Time      time.Time // of the host's kernel, so comparable between machines
	Direction Direction
	Length    int    // bytes; more than the MTU if the kernel has not segmented it yet
	Raw       []byte // the first bytes from the link's header on, at most 256
	ethernet  bool   // Raw begins with an Ethernet header, not with the IP header
}

// Capture sees the packets of machines from its start until Close. The packets
// wait in the kernel, so it costs no goroutine.
type Capture struct {
	world   *World
	sockets []captureSocket
	lost    int
}

type captureSocket struct {
	machine    string
	fd         int
	interfaces map[int]string // by index
}

// Capture starts to capture on all interfaces of the machines except lo. Pods
// have network namespaces of their own, of which only the machine's side of
// their links is seen.
func (w *World) Capture(ctx context.Context, machines []string) (*Capture, error) {
	c := &Capture{world: w}
	for _, name := range machines {
		s := captureSocket{machine: name, interfaces: map[int]string{}}
		err := ctx.Err()
		if err == nil {
			err = w.Do(name, s.open)
		}
		if err == nil {
			c.sockets = append(c.sockets, s)
			err = w.Do(name, func() error { return awaitTimestamps(ctx) })
		}
		if err != nil {
			c.Close()
			return nil, fmt.Errorf("capture on machine %s: %w", name, err)
		}
	}
	return c, nil
}

// awaitTimestamps waits until the kernel stamps packets as they pass. It turns
// that on in its own time after the first socket has asked for it, and meanwhile
// passes off the time of reading, which tells nothing of the order.
func awaitTimestamps(ctx context.Context) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make socket: %w", err)
	}
	defer unix.Close(fd)
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}),
	)
	if err != nil {
		return fmt.Errorf("set up socket: %w", err)
	}
	self, err := unix.Getsockname(fd)
	if err != nil {
		return fmt.Errorf("set up socket: %w", err)
	}
	for ctx.Err() == nil {
		if err := unix.Sendto(fd, []byte{0}, 0, self); err != nil {
			return fmt.Errorf("send over lo: %w", err)
		}
		sent := time.Now()
		control := make([]byte, 128)
		_, n, _, _, err := unix.Recvmsg(fd, make([]byte, 1), control, 0)
		if err != nil {
			return fmt.Errorf("receive over lo: %w", err)
		}
		if received, _, err := parseControl(control[:n]); err != nil || received.Before(sent) {
			return err
		}
		// Nothing tells when; a packet every millisecond asks.
		if _, err := unix.Poll(nil, 1); err != nil && err != unix.EINTR {
			return fmt.Errorf("wait: %w", err)
		}
	}
	return ctx.Err()
}

// open makes the socket, on a thread that is in the machine.
func (s *captureSocket) open() error {
	if err := s.nameInterfaces(); err != nil {
		return err
	}
	// Of no protocol, so that nothing arrives before the filter is there.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("make packet socket: %w", err)
	}
	const interfaceIndex = 0xfffff000 + 8 // SKF_AD_OFF + SKF_AD_IFINDEX of linux/filter.h
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: interfaceIndex},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 1, Jf: 1}, // lo has index 1 in every namespace
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: snapLength},
	}
	all := binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL)
	err = errors.Join(
		unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureBuffer),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(all)}),
	)
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("set up packet socket: %w", err)
	}
	s.fd = fd
	return nil
}

func (s *captureSocket) nameInterfaces() error {
	list, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	for _, i := range list {
		s.interfaces[i.Index] = i.Name
	}
	return nil
}

// Close ends the capture and returns its packets in the order of their times.
func (c *Capture) Close() []Packet {
	var packets []Packet
	for _, s := range c.sockets {
		// Interfaces that came meanwhile. Those that came and went, and those of
		// a machine that was switched off, are named by their index.
		_ = c.world.Do(s.machine, s.nameInterfaces)
		for {
			p, err := s.read()
			if err != nil {
				break // EAGAIN: all read
			}
			packets = append(packets, p)
		}
		if stats, err := unix.GetsockoptTpacketStats(s.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			c.lost += int(stats.Drops)
		}
		unix.Close(s.fd)
	}
	c.sockets = nil
	slices.SortStableFunc(packets, func(a, b Packet) int { return a.Time.Compare(b.Time) })
	return packets
}

// Lost is, after Close, the number of packets that the kernel had no room for.
func (c *Capture) Lost() int { return c.lost }

func (s *captureSocket) read() (Packet, error) {
	raw, control := make([]byte, snapLength), make([]byte, 128)
	n, cn, _, from, err := unix.Recvmsg(s.fd, raw, control, 0)
	if err != nil {
		return Packet{}, err
	}
	p := Packet{Machine: s.machine, Direction: In, Raw: raw[:n]}
	if link, ok := from.(*unix.SockaddrLinklayer); ok {
		p.Interface = cmp.Or(s.interfaces[link.Ifindex], fmt.Sprintf("#%d", link.Ifindex))
		p.ethernet = link.Hatype == unix.ARPHRD_ETHER
		if link.Pkttype == unix.PACKET_OUTGOING {
			p.Direction = Out
		}
	}
	received, length, err := parseControl(control[:cn])
	if err != nil {
		return Packet{}, err
	}
	p.Time, p.Length = received, cmp.Or(length, n)
	return p, nil
}

// parseControl reads the time of a packet, and its length in bytes before the
// filter cut it, from what came beside it.
func parseControl(control []byte) (received time.Time, length int, err error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return received, 0, fmt.Errorf("parse control messages: %w", err)
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16:
			received = time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		case m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= 8:
			length = int(binary.NativeEndian.Uint32(m.Data[4:])) // tp_len of struct tpacket_auxdata
		}
	}
	return received, length, nil
}
