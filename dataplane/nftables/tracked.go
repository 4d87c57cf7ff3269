package nftables

import (
	"encoding/binary"
	"fmt"
	"iter"
	"net/netip"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
)

// tracker reads the connections that the kernel tracks, one after the other: all
// at once would be many megabytes. It is of the network namespace of the thread
// that opened it.
type tracker struct {
	socket int
	buffer []byte
}

// answerTimeout in seconds is for a kernel that does not answer at all.
const answerTimeout = 10

func openTracker() (*tracker, error) {
	socket, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err == nil {
		err = unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: answerTimeout})
	}
	if err != nil {
		return nil, fmt.Errorf("open a socket of netlink: %w", err)
	}
	return &tracker{socket, make([]byte, 64<<10)}, nil
}

func (t *tracker) close() { _ = unix.Close(t.socket) }

// Numbers of ctnetlink: linux/netfilter/nfnetlink_conntrack.h.
const (
	trackedGet, trackedDelete = 1, 2

	ctTupleOrig, ctTupleReply, ctStatus, ctID, ctZone = 1, 2, 3, 12, 18

	ctTupleIP, ctTupleProto                          = 1, 2
	ctProtoNumber, ctProtoSource, ctProtoDestination = 1, 2, 3

	ctExpected = 1 // a bit of the status
)

// tracked is a connection.
type tracked struct {
	source   netip.Addr     // who called, before it was translated
	asked    netip.AddrPort // whom it called, before that was translated; port 0 of protocols without ports
	called   netip.Addr     // who answers: whom that was translated to
	protocol model.Protocol
	port     uint16 // of who answers; 0 of protocols without ports
	related  bool   // another one asked for it
	zone     bool   // it is not of the rules' zone
	message  []byte // what the kernel said of it
}

// each reads the connections of a family. What it says of one holds only until
// the next one.
func (t *tracker) each(family model.Family, look func(*tracked)) error {
	if err := t.send(family, trackedGet, netlink.Request|netlink.Dump, nil); err != nil {
		return err
	}
	for {
		n, _, err := unix.Recvfrom(t.socket, t.buffer, 0)
		if err != nil {
			return fmt.Errorf("list connections: %w", err)
		}
		messages, err := syscall.ParseNetlinkMessage(t.buffer[:n])
		if err != nil {
			return fmt.Errorf("list connections: %w", err)
		}
		for _, message := range messages {
			switch {
			case message.Header.Type == unix.NLMSG_DONE:
				return nil
			case message.Header.Type == unix.NLMSG_ERROR:
				return fmt.Errorf("list connections: %w", answered(message.Data))
			case len(message.Data) < 4:
				continue
			}
			c := readTracked(message.Data[4:])
			if c.source.IsValid() && c.called.IsValid() {
				look(&c)
			}
		}
	}
}

// delete forgets a connection. It is no error if there is none.
func (t *tracker) delete(family model.Family, key []byte) error {
	if err := t.send(family, trackedDelete, netlink.Request|netlink.Acknowledge, key); err != nil {
		return err
	}
	n, _, err := unix.Recvfrom(t.socket, t.buffer, 0)
	if err != nil {
		return fmt.Errorf("delete a connection: %w", err)
	}
	messages, err := syscall.ParseNetlinkMessage(t.buffer[:n])
	if err != nil {
		return fmt.Errorf("delete a connection: %w", err)
	}
	for _, message := range messages {
		if err := answered(message.Data); err != nil && err != unix.ENOENT {
			return fmt.Errorf("delete a connection: %w", err)
		}
	}
	return nil
}

// answered is the error of an answer; nil if all is well.
func answered(message []byte) error {
	if len(message) >= 4 {
		if code := int32(binary.NativeEndian.Uint32(message)); code != 0 {
			return unix.Errno(-code)
		}
	}
	return nil
}

func (t *tracker) send(family model.Family, kind int, flags netlink.HeaderFlags, attributes []byte) error {
	message := netlink.Message{Data: append([]byte{[...]byte{unix.AF_INET, unix.AF_INET6}[family], unix.NFNETLINK_V0, 0, 0}, attributes...)}
	message.Header.Type = netlink.HeaderType(unix.NFNL_SUBSYS_CTNETLINK<<8 | kind)
	message.Header.Flags = flags
	message.Header.Length = uint32(unix.NLMSG_HDRLEN + len(message.Data))
	request, err := message.MarshalBinary()
	if err == nil {
		err = unix.Sendto(t.socket, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}
	if err != nil {
		return fmt.Errorf("ask for connections: %w", err)
	}
	return nil
}

// attributes are those of a message or of another one, without their padding.
func attributes(in []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(in) >= unix.NLA_HDRLEN {
			length := int(binary.NativeEndian.Uint16(in))
			kind := binary.NativeEndian.Uint16(in[2:]) &^ uint16(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)
			if length < unix.NLA_HDRLEN || length > len(in) || !yield(kind, in[unix.NLA_HDRLEN:length]) {
				return
			}
			in = in[min((length+3)&^3, len(in)):]
		}
	}
}

func readTracked(message []byte) (c tracked) {
	for kind, value := range attributes(message) {
		switch kind {
		case ctTupleOrig:
			from, to, protocol := readTuple(value)
			c.source, c.asked, c.protocol = from.Addr(), to, protocol
		case ctTupleReply:
			from, _, _ := readTuple(value)
			c.called, c.port = from.Addr(), from.Port()
		case ctStatus:
			c.related = len(value) == 4 && binary.BigEndian.Uint32(value)&ctExpected != 0
		case ctZone:
			c.zone = true
		}
	}
	c.message = message
	return c
}

// keyOf is what names a connection, of what the kernel said of it: with its
// number, lest another one of the same ends goes that began meanwhile.
func keyOf(message []byte) (key []byte) {
	for kind, value := range attributes(message) {
		if kind != ctTupleOrig && kind != ctID {
			continue
		}
		nested := uint16(0)
		if kind == ctTupleOrig {
			nested = unix.NLA_F_NESTED
		}
		key = binary.NativeEndian.AppendUint16(key, uint16(unix.NLA_HDRLEN+len(value)))
		key = binary.NativeEndian.AppendUint16(key, kind|nested)
		key = append(key, value...)
		key = append(key, make([]byte, -len(value)&3)...)
	}
	return key
}

// readTuple reads one direction.
func readTuple(tuple []byte) (from, to netip.AddrPort, protocol model.Protocol) {
	var source, destination netip.Addr
	var ports [2]uint16
	for kind, value := range attributes(tuple) {
		for of, value := range attributes(value) {
			switch {
			case kind == ctTupleIP && of%2 == 1: // 1 in IPv4, and 3 in IPv6
				source, _ = netip.AddrFromSlice(value)
			case kind == ctTupleIP:
				destination, _ = netip.AddrFromSlice(value)
			case kind == ctTupleProto && of == ctProtoNumber && len(value) == 1:
				protocol = model.Protocol(value[0])
			case kind == ctTupleProto && (of == ctProtoSource || of == ctProtoDestination) && len(value) == 2:
				ports[of-ctProtoSource] = binary.BigEndian.Uint16(value)
			}
		}
	}
	return netip.AddrPortFrom(source, ports[0]), netip.AddrPortFrom(destination, ports[1]), protocol
}
