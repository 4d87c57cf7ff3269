package nftables

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// reader asks the kernel for elements of sets of our table, one by one or not
// all of them, which the library does not.
type reader struct {
	socket int
	buffer []byte
}

func openReader() (*reader, error) {
	socket, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open a socket of netlink: %w", err)
	}
	return &reader{socket, make([]byte, 64<<10)}, nil
}

func (r *reader) close() { _ = unix.Close(r.socket) }

// read is an element as the kernel tells it.
type read struct {
	key, value []byte
	left       time.Duration // until it ends; 0: it does not
}

// get returns the value of a key; nil if it is not there.
func (r *reader) get(set string, key []byte) ([]byte, error) {
	element, err := r.find(set, key)
	return element.value, err
}

// find returns the element of a key; an empty one if it is not there.
func (r *reader) find(set string, key []byte) (read, error) {
	if err := r.ask(set, key); err != nil {
		return read{}, err
	}
	elements, _, err := r.receive()
	if errors.Is(err, unix.ENOENT) || err == nil && len(elements) == 0 {
		return read{}, nil
	}
	if err != nil {
		return read{}, fmt.Errorf("look up in %s: %w", set, err)
	}
	return elements[0], nil
}

// list returns at least so many elements, or all that there are. The reader is
// of no use after it has not read all. While the kernel enlarges a set, a list
// of it lacks some, and nothing tells of that.
func (r *reader) list(set string, most int) (all []read, err error) {
	if err := r.ask(set, nil); err != nil {
		return nil, err
	}
	for done := false; !done && len(all) < most; {
		var some []read
		if some, done, err = r.receive(); err != nil {
			return nil, fmt.Errorf("list %s: %w", set, err)
		}
		all = append(all, some...)
	}
	return all, nil
}

// sameSchema tells whether the table that is there is one that this program
// could have made.
func (r *reader) sameSchema() bool {
	return r.says(standingName, schema()) || r.says("pods4", schema()) // the second in one of an earlier version
}

// schema is what comments say.
func schema() string { return fmt.Sprintf("(schema %d)", Schema) }

// says tells whether there is a set whose comment says something.
func (r *reader) says(set, text string) bool {
	err := r.send(unix.NFT_MSG_GETSET, netlink.Request, func(attributes *netlink.AttributeEncoder) {
		attributes.String(unix.NFTA_SET_TABLE, TableName)
		attributes.String(unix.NFTA_SET_NAME, set)
	})
	if err != nil {
		return false
	}
	n, _, err := unix.Recvfrom(r.socket, r.buffer, 0)
	return err == nil && bytes.Contains(r.buffer[:n], []byte(text))
}

// ask is for one key, or for all without one.
func (r *reader) ask(set string, key []byte) error {
	flags := netlink.Request | netlink.Dump
	if key != nil {
		flags = netlink.Request
	}
	return r.send(unix.NFT_MSG_GETSETELEM, flags, func(attributes *netlink.AttributeEncoder) {
		attributes.String(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
		attributes.String(unix.NFTA_SET_ELEM_LIST_SET, set)
		if key == nil {
			return
		}
		attributes.Nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(list *netlink.AttributeEncoder) error {
			list.Nested(unix.NFTA_LIST_ELEM, func(element *netlink.AttributeEncoder) error {
				element.Nested(unix.NFTA_SET_ELEM_KEY, func(data *netlink.AttributeEncoder) error {
					data.Bytes(unix.NFTA_DATA_VALUE, key)
					return nil
				})
				return nil
			})
			return nil
		})
	})
}

func (r *reader) send(kind int, flags netlink.HeaderFlags, fill func(*netlink.AttributeEncoder)) error {
	attributes := netlink.NewAttributeEncoder()
	fill(attributes)
	encoded, err := attributes.Encode()
	if err != nil {
		return fmt.Errorf("ask for elements: %w", err)
	}
	message := netlink.Message{Data: append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, encoded...)}
	message.Header.Type = netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind)
	message.Header.Flags = flags
	message.Header.Length = uint32(unix.NLMSG_HDRLEN + len(message.Data))
	request, err := message.MarshalBinary()
	if err == nil {
		err = unix.Sendto(r.socket, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}
	if err != nil {
		return fmt.Errorf("ask for elements: %w", err)
	}
	return nil
}

// receive reads one datagram of an answer, and whether it was the last.
func (r *reader) receive() (all []read, done bool, err error) {
	n, _, err := unix.Recvfrom(r.socket, r.buffer, 0)
	if err != nil {
		return nil, false, err
	}
	messages, err := syscall.ParseNetlinkMessage(r.buffer[:n])
	if err != nil {
		return nil, false, err
	}
	for _, message := range messages {
		switch message.Header.Type {
		case unix.NLMSG_DONE:
			return all, true, nil
		case unix.NLMSG_ERROR:
			if len(message.Data) >= 4 {
				err = unix.Errno(-int32(binary.NativeEndian.Uint32(message.Data)))
			}
			return all, true, err
		}
		if all, err = readElements(all, message.Data); err != nil {
			return nil, false, err
		}
	}
	return all, false, nil
}

// readElements adds those of a message of NFT_MSG_NEWSETELEM.
func readElements(to []read, message []byte) ([]read, error) {
	const header = 4
	if len(message) < header {
		return to, nil
	}
	attributes, err := netlink.NewAttributeDecoder(message[header:])
	if err != nil {
		return nil, err
	}
	for attributes.Next() {
		if attributes.Type() == unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			attributes.Nested(func(list *netlink.AttributeDecoder) error {
				for list.Next() {
					var e read
					list.Nested(e.decode)
					to = append(to, e)
				}
				return nil
			})
		}
	}
	return to, attributes.Err()
}

func (e *read) decode(attributes *netlink.AttributeDecoder) error {
	attributes.ByteOrder = binary.BigEndian
	value := func(to *[]byte) {
		attributes.Nested(func(data *netlink.AttributeDecoder) error {
			for data.Next() {
				if data.Type() == unix.NFTA_DATA_VALUE {
					*to = data.Bytes()
				}
			}
			return nil
		})
	}
	for attributes.Next() {
		switch attributes.Type() {
		case unix.NFTA_SET_ELEM_KEY:
			value(&e.key)
		case unix.NFTA_SET_ELEM_DATA:
			value(&e.value)
		case unix.NFTA_SET_ELEM_EXPIRATION:
			e.left = time.Duration(attributes.Uint64()) * time.Millisecond
		}
	}
	return nil
}
