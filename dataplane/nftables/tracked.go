package nftables

import (
	"encoding/binary"
	"errors"
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

	ctTupleOrig, ctTupleReply, ctStatus, ctID, ctZone, ctFilter = 1, 2, 3, 12, 18, 25

	ctTupleIP, ctTupleProto                     = 1, 2
	ctProtoNumber, ctProtoSource, ctProtoTarget = 1, 2, 3

	ctFilterOrig, ctFilterProtocol = 1, 1 << 3 // linux/netfilter/nf_conntrack_common.h has no names for the bits

	ctExpected = 1 // a bit of the status
)

// tracked is a connection.
type tracked struct {
	protocol model.Protocol
	forward  ends   // as who called sends
	reverse  ends   // as who answers does
	related  bool   // another one asked for it
	zone     bool   // it is not of the rules' zone
	message  []byte // what the kernel said of it
}

// ends are those of the packets of one direction. Protocols without ports have
// 0.
type ends struct{ from, to netip.AddrPort }

// source is who called, before it was translated.
func (c *tracked) source() netip.Addr { return c.forward.from.Addr() }

// called is who answers: whom that was translated to.
func (c *tracked) called() netip.AddrPort { return c.reverse.from }

// each reads the connections of a family, of all protocols (0) or one. What it
// says of one holds only until the next one.
func (t *tracker) each(family model.Family, of model.Protocol, look func(*tracked)) error {
	return t.tell(family, of, func(c *tracked) {
		if of == 0 || of == c.protocol {
			look(c)
		}
	})
}

// tell is each, but that a kernel before Linux 5.8 tells of other protocols as
// well.
func (t *tracker) tell(family model.Family, of model.Protocol, look func(*tracked)) error {
	if err := t.send(family, trackedGet, netlink.Request|netlink.Dump, ofProtocol(of)); err != nil {
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
			if c.source().IsValid() && c.called().IsValid() {
				look(&c)
			}
		}
	}
}

// deleteAll forgets the connections of a family and protocol that match.
func (t *tracker) deleteAll(family model.Family, of model.Protocol, match func(*tracked) bool) error {
	var keys [][]byte
	err := t.each(family, of, func(connection *tracked) {
		if match(connection) {
			keys = append(keys, keyOf(connection.message))
		}
	})
	for _, key := range keys {
		err = errors.Join(err, t.delete(family, key))
	}
	return err
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
			c.forward, c.protocol = readTuple(value)
		case ctTupleReply:
			c.reverse, _ = readTuple(value)
		case ctStatus:
			c.related = len(value) == 4 && binary.BigEndian.Uint32(value)&ctExpected != 0
		case ctZone:
			c.zone = true
		}
	}
	c.message = message
	return c
}

// ofProtocol asks for connections of one protocol: the kernel goes through all
// that there are, which takes it a tenth of the time that telling of them does.
func ofProtocol(protocol model.Protocol) (request []byte) {
	if protocol == 0 {
		return nil
	}
	number := attribute(ctTupleProto|unix.NLA_F_NESTED, attribute(ctProtoNumber, []byte{byte(protocol)}))
	flags := attribute(ctFilterOrig, binary.NativeEndian.AppendUint32(nil, ctFilterProtocol))
	return append(attribute(ctTupleOrig|unix.NLA_F_NESTED, number), attribute(ctFilter|unix.NLA_F_NESTED, flags)...)
}

func attribute(kind uint16, value []byte) (encoded []byte) {
	encoded = binary.NativeEndian.AppendUint16(encoded, uint16(unix.NLA_HDRLEN+len(value)))
	encoded = binary.NativeEndian.AppendUint16(encoded, kind)
	encoded = append(encoded, value...)
	return append(encoded, make([]byte, -len(value)&3)...)
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
		key = append(key, attribute(kind|nested, value)...)
	}
	return key
}

// readTuple reads one direction.
func readTuple(tuple []byte) (e ends, protocol model.Protocol) {
	var from, to netip.Addr
	var source, target uint16
	for kind, value := range attributes(tuple) {
		for of, value := range attributes(value) {
			switch {
			case kind == ctTupleIP && of%2 == 1: // 1 in IPv4, and 3 in IPv6
				from, _ = netip.AddrFromSlice(value)
			case kind == ctTupleIP:
				to, _ = netip.AddrFromSlice(value)
			case kind == ctTupleProto && of == ctProtoNumber && len(value) == 1:
				protocol = model.Protocol(value[0])
			case kind == ctTupleProto && of == ctProtoSource && len(value) == 2:
				source = binary.BigEndian.Uint16(value)
			case kind == ctTupleProto && of == ctProtoTarget && len(value) == 2:
				target = binary.BigEndian.Uint16(value)
			}
		}
	}
	return ends{netip.AddrPortFrom(from, source), netip.AddrPortFrom(to, target)}, protocol
}
