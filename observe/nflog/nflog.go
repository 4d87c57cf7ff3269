// Package nflog reads the packets that rules of the kernel log to a group of
// nfnetlink_log. It judges nothing. A Socket is for one reader; Lost may be asked
// meanwhile.
//
// Log lines that cannot be kept up with are lost, and counted: no packet ever
// waits for who reads of it.
package nflog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Packet is one that was logged.
type Packet struct {
	Mark     uint32
	Prefix   string         // that the rule gives it
	Payload  []byte         // its first bytes, from the IP header on
	Original netip.AddrPort // what its connection was made to, before it was translated; invalid: not told
}

// Socket is bound to a group. There is one for each group and network namespace.
type Socket struct {
	conn *netlink.Conn
	next uint32 // sequence number of the packet that comes next
	lost atomic.Uint64
}

// ErrTaken says that another process reads the group.
var ErrTaken = errors.New("another process reads it")

// What linux/netfilter/nfnetlink_log.h has, as far as it is used.
const (
	messagePacket = unix.NFNL_SUBSYS_ULOG << 8
	messageConfig = unix.NFNL_SUBSYS_ULOG<<8 | 1

	configCommand   = 1
	configMode      = 2
	configThreshold = 5
	configFlags     = 6

	commandBind    = 1
	modePacket     = 2
	flagSequence   = 1
	flagConnection = 4

	attributeMark       = 2
	attributePayload    = 9
	attributePrefix     = 10
	attributeSequence   = 12
	attributeConnection = 18
)

// receiveBuffer in bytes holds some thousand packets.
const receiveBuffer = 1 << 20

// Open binds to a group, to get at most so many bytes of each packet. The network
// namespace is that of the calling thread. ErrTaken is of a group that another
// process has.
func Open(group uint16, bytes uint32) (*Socket, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open a socket for log group %d: %w", group, err)
	}
	s := &Socket{conn: conn}
	if err := s.bind(group, bytes); err != nil {
		_ = conn.Close()
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EBUSY) {
			err = ErrTaken
		}
		return nil, fmt.Errorf("read log group %d: %w", group, err)
	}
	return s, nil
}

func (s *Socket) bind(group uint16, bytes uint32) error {
	if err := s.conn.SetReadBuffer(receiveBuffer); err != nil {
		return fmt.Errorf("set the receive buffer: %w", err)
	}
	mode := append(binary.BigEndian.AppendUint32(nil, bytes), modePacket, 0)
	err := errors.Join(
		s.configure(group, configCommand, []byte{commandBind}),
		s.configure(group, configMode, mode),
		s.configure(group, configThreshold, binary.BigEndian.AppendUint32(nil, 1)), // each packet at once
	)
	if err != nil {
		return err
	}
	// Connections are told of if the kernel has nf_conntrack_netlink.
	flags := func(flags uint16) error {
		return s.configure(group, configFlags, binary.BigEndian.AppendUint16(nil, flags))
	}
	if err := flags(flagSequence | flagConnection); err != nil {
		return flags(flagSequence)
	}
	return nil
}

func (s *Socket) configure(group uint16, attribute uint16, value []byte) error {
	attributes, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: attribute, Data: value}})
	if err != nil {
		return err
	}
	header := binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0}, group)
	_, err = s.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: messageConfig, Flags: netlink.Request | netlink.Acknowledge},
		Data:   append(header, attributes...),
	})
	return err
}

// Receive waits for packets. That the kernel had no room for some is no error:
// see Lost. After Close it fails.
func (s *Socket) Receive() ([]Packet, error) {
	for {
		messages, err := s.conn.Receive()
		if errors.Is(err, unix.ENOBUFS) {
			continue // the next packet's number tells how many
		}
		if err != nil {
			return nil, fmt.Errorf("receive what was logged: %w", err)
		}
		var packets []Packet
		for _, message := range messages {
			if message.Header.Type != messagePacket || len(message.Data) < 4 {
				continue
			}
			packet, err := s.decode(message.Data[4:])
			if err != nil {
				s.lost.Add(1)
				continue
			}
			packets = append(packets, packet)
		}
		if len(packets) > 0 {
			return packets, nil
		}
	}
}

// Lost is how many packets were logged and could not be read.
func (s *Socket) Lost() uint64 { return s.lost.Load() }

// Close ends Receive.
func (s *Socket) Close() error { return s.conn.Close() }

func (s *Socket) decode(message []byte) (Packet, error) {
	attributes, err := netlink.NewAttributeDecoder(message)
	if err != nil {
		return Packet{}, err
	}
	attributes.ByteOrder = binary.BigEndian
	var p Packet
	for attributes.Next() {
		switch attributes.Type() {
		case attributeMark:
			p.Mark = attributes.Uint32()
		case attributePayload:
			p.Payload = attributes.Bytes()
		case attributePrefix:
			p.Prefix = attributes.String()
		case attributeSequence:
			s.count(attributes.Uint32())
		case attributeConnection:
			attributes.Nested(func(connection *netlink.AttributeDecoder) error {
				return decodeConnection(connection, &p.Original)
			})
		}
	}
	return p, attributes.Err()
}

// count follows the numbers of packets: what was skipped was lost.
func (s *Socket) count(number uint32) {
	s.lost.Add(uint64(number - s.next))
	s.next = number + 1
}

// What linux/netfilter/nfnetlink_conntrack.h has.
const (
	connectionOriginal  = 1
	tupleAddresses      = 1
	tupleProtocol       = 2
	addressDestination4 = 2
	addressDestination6 = 4
	protocolDestination = 3
)

func decodeConnection(connection *netlink.AttributeDecoder, original *netip.AddrPort) error {
	connection.ByteOrder = binary.BigEndian
	for connection.Next() {
		if connection.Type() == connectionOriginal {
			connection.Nested(func(tuple *netlink.AttributeDecoder) error { return decodeTuple(tuple, original) })
		}
	}
	return nil
}

func decodeTuple(tuple *netlink.AttributeDecoder, original *netip.AddrPort) error {
	var addr netip.Addr
	var port uint16
	for tuple.Next() {
		kind := tuple.Type()
		tuple.Nested(func(part *netlink.AttributeDecoder) error {
			part.ByteOrder = binary.BigEndian
			for part.Next() {
				switch at := part.Type(); {
				case kind == tupleAddresses && (at == addressDestination4 || at == addressDestination6):
					addr, _ = netip.AddrFromSlice(part.Bytes())
				case kind == tupleProtocol && at == protocolDestination:
					port = part.Uint16()
				}
			}
			return nil
		})
	}
	*original = netip.AddrPortFrom(addr, port)
	return nil
}
