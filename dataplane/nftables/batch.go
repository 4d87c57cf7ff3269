package nftables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	nft "github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// batch is one transaction: all of it or nothing. The library encodes it. It is
// sent here, because the library does not tell which of its messages the kernel
// refused.
type batch struct {
	*nft.Conn
	most     int            // elements in one message
	elements []func(error)  // for each message of elements in turn, puts aside the one that it holds
	bodies   map[int][]byte // of messages of elements that are encoded here, by their index there
	literals uint32         // how many sets there are without a name
	// described are sets by name of which nft has to know more than the library says.
	described map[string]described
	link      *link             // nil: a socket of its own
	doubled   bool              // AddChain and rule add twice what the kernel asks: see succeed.go
	doubles   []*nft.Chain      // those that were
	ahead     *batch            // what is to be there before: see sendNew; nil: nothing
	messages  []netlink.Message // all, once they are encoded
}

// Elements in one message: as many as surely fit into the 64 KiB that the
// length of an attribute can say, or one, so that a refusal names it.
const (
	inPieces = 512
	oneByOne = 1
)

func newBatch(most int) (*batch, error) {
	b := &batch{most: most}
	capture := func(messages []netlink.Message) ([]netlink.Message, error) {
		b.messages = append(b.messages, messages...)
		return nil, os.ErrPermission // ends Flush: there are no answers to wait for
	}
	var err error
	if b.Conn, err = nft.New(nft.WithTestDial(capture)); err != nil {
		return nil, fmt.Errorf("begin a batch: %w", err)
	}
	return b, nil
}

// refusal is what the kernel said of one message.
type refusal struct {
	err    error
	adding bool        // elements
	aside  func(error) // see batch.elements; nil of a message that holds no element, or several
}

// send returns what was refused of a batch, of which nothing was applied then.
// An error says that the batch as a whole failed.
func (b *batch) send() ([]refusal, error) {
	if err := b.Flush(); len(b.messages) == 0 {
		return nil, err // nothing to send, or nothing that could be encoded
	}
	// The first and the last message only frame the others; the last of those
	// is answered even if all is well.
	last := len(b.messages) - 2
	b.embody()
	size := 0
	for _, message := range b.messages {
		size += int(message.Header.Length)
	}
	request := make([]byte, 0, size)
	for i, message := range b.messages {
		if err := b.fix(&message); err != nil {
			return nil, err
		}
		message.Header.Sequence = uint32(i)
		message.Header.Flags &^= netlink.Acknowledge
		if i == last {
			message.Header.Flags |= netlink.Acknowledge
		}
		encoded, err := message.MarshalBinary()
		if err != nil {
			return nil, fmt.Errorf("encode a batch: %w", err)
		}
		request = append(request, encoded...)
		b.messages[i].Data = nil // they are large
	}
	link := b.link
	if link == nil {
		link = newLink()
		defer link.close()
	}
	errnos, err := link.exchange(request, uint32(last))
	if err != nil {
		return nil, err
	}
	return b.refusals(errnos), nil
}

// embody gives messages of elements the bodies that they are to have.
func (b *batch) embody() {
	next := 0
	for i := range b.messages {
		message := &b.messages[i]
		if verb := message.Header.Type & 0xff; verb != unix.NFT_MSG_NEWSETELEM && verb != unix.NFT_MSG_DELSETELEM {
			continue
		}
		if body, ok := b.bodies[next]; ok {
			message.Header.Length += uint32(len(body) - len(message.Data))
			message.Data = body
		}
		next++
	}
	b.bodies = nil
}

// fix says what the library cannot say.
func (b *batch) fix(message *netlink.Message) (err error) {
	switch message.Header.Type & 0xff {
	case unix.NFT_MSG_NEWSET:
		before := len(message.Data)
		message.Data, err = b.complete(message.Data)
		message.Header.Length += uint32(len(message.Data) - before)
	case unix.NFT_MSG_NEWRULE:
		if message.Data, err = fixMasquerade(message.Data); err == nil {
			message.Data, err = fixOriginal(message.Data)
		}
	}
	return err
}

func (b *batch) refusals(errnos map[uint32]error) (refused []refusal) {
	next := 0
	for i, message := range b.messages {
		verb := message.Header.Type & 0xff
		var aside func(error)
		if verb == unix.NFT_MSG_NEWSETELEM || verb == unix.NFT_MSG_DELSETELEM {
			aside = b.elements[next]
			next++
		}
		if err := errnos[uint32(i)]; err != nil {
			refused = append(refused, refusal{err, verb == unix.NFT_MSG_NEWSETELEM, aside})
		}
	}
	return refused
}

// link is a socket to the packet filter, opened when it is first needed. It is
// kept: closing one waits until the kernel has freed all that was deleted lately
// (nft_rcv_nl_event), which takes some ten milliseconds.
type link struct {
	socket int
	answer []byte // of the last batch: for each its own would be a third of the garbage that a change leaves
}

const noSocket = -1

func newLink() *link { return &link{socket: noSocket} }

func (l *link) close() {
	if l.socket != noSocket {
		_ = unix.Close(l.socket)
		l.socket = noSocket
	}
}

// open opens the socket in the network namespace of the calling thread.
func (l *link) open() error {
	if l.socket != noSocket {
		return nil
	}
	socket, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("open a netfilter netlink socket: %w", err)
	}
	const largest = 64 << 20 // the kernel takes a batch as one message
	err = errors.Join(
		unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, largest),
		unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, largest),
		unix.SetsockoptInt(socket, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1), // errors do not repeat the request
	)
	if err != nil {
		_ = unix.Close(socket)
		return fmt.Errorf("configure a netfilter netlink socket: %w", err)
	}
	l.socket = socket
	return nil
}

// exchange sends a batch and returns the errors of its messages by their
// sequence number. It does not wait: the kernel has carried out a batch, and
// answered, when the call that sends it returns. After an error, the next one
// has a new socket.
func (l *link) exchange(request []byte, last uint32) (errnos map[uint32]error, err error) {
	if err := l.open(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if err := unix.Sendto(l.socket, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("send a batch: %w", err)
	}
	errnos = map[uint32]error{}
	if l.answer == nil {
		l.answer = make([]byte, 8<<10)
	}
	for {
		n, _, err := unix.Recvfrom(l.socket, l.answer, unix.MSG_DONTWAIT)
		if err != nil {
			return nil, fmt.Errorf("receive the answer to a batch: %w", err)
		}
		answers, err := syscall.ParseNetlinkMessage(l.answer[:n])
		if err != nil {
			return nil, fmt.Errorf("read the answer to a batch: %w", err)
		}
		for _, answer := range answers {
			if answer.Header.Type != unix.NLMSG_ERROR || len(answer.Data) < 4 {
				continue
			}
			errno := unix.Errno(-int32(binary.NativeEndian.Uint32(answer.Data)))
			if errno != 0 && answer.Header.Seq == 0 {
				return nil, fmt.Errorf("carry out a batch: %w", errno)
			}
			if errno != 0 {
				errnos[answer.Header.Seq] = errno
			}
			if answer.Header.Seq == last {
				return errnos, nil
			}
		}
	}
}
