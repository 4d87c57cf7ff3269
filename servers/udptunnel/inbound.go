package udptunnel

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxReceived is how many messages one call takes, each of up to 64 datagrams.
const maxReceived = 4

// maxFailures is how often a socket is asked again at once after an error.
const maxFailures = 16

// inbound moves packets from one socket to the TUN device. Its buffers are
// made once: no packet costs an allocation.
type inbound struct {
	*Tunnel
	messages [maxReceived]message
	names    [maxReceived]socketName
	controls [maxReceived]control
	pieces   [maxReceived]unix.Iovec
	buffers  [maxReceived][]byte

	joiner joiner
	iovecs []unix.Iovec
	errno  unix.Errno
	write  func(fd uintptr) bool

	path       *path
	failed     error   // of the last read
	lastSource address // and the peer behind it, of the last packet
	lastPeer   *peer
}

func (t *Tunnel) newInbound(p *path) *inbound {
	i := &inbound{Tunnel: t, path: p}
	i.joiner.pieces = make([][]byte, 0, maxPieces)
	i.iovecs = make([]unix.Iovec, 0, maxPieces+1)
	for k := range i.messages {
		i.buffers[k] = make([]byte, 1<<16)
		i.pieces[k].Base = &i.buffers[k][0]
		i.pieces[k].SetLen(len(i.buffers[k]))
		header := &i.messages[k].header
		header.Name = (*byte)(unsafe.Pointer(&i.names[k]))
		header.Iov = &i.pieces[k]
		header.SetIovlen(1)
		header.Control = (*byte)(unsafe.Pointer(&i.controls[k]))
	}
	i.write = i.tryWrite
	return i
}

// run ends when the socket's file is closed or its deadline has come.
func (i *inbound) run(s *socket) error {
	read := func(fd uintptr) bool {
		var nothing bool
		nothing, i.failed = i.read(fd)
		return !nothing
	}
	for {
		err := s.raw.Read(read)
		if err = errors.Join(err, i.failed); err != nil {
			return err
		}
	}
}

// read takes what the socket has, and goes on while that may complete a
// super-packet, as long as there are buffers. Nothing is waited for.
func (i *inbound) read(fd uintptr) (nothing bool, err error) {
	if path := i.Tunnel.path.Load(); path != i.path && path != nil {
		i.path, i.lastPeer = path, nil
	}
	i.joiner.segmented = i.path.device.segmented
	defer i.flush()
	failures := 0
	for used := 0; used < maxReceived; {
		n, errno := i.receive(fd, i.messages[used:])
		switch errno {
		case 0:
		case unix.EAGAIN:
			return used == 0, nil
		case unix.EINTR:
			continue
		case unix.EBADF:
			return false, errno
		default:
			// A socket tells once of an error that waited, and what lacks comes
			// back: the tunnel is not left for either. What lasts is tried again
			// with the next datagram.
			i.count(ReceiveFailed, 1)
			if failures++; failures == maxFailures {
				return used == 0, nil
			}
			continue
		}
		for range n {
			i.take(used)
			used++
		}
		if i.joiner.closed {
			return false, nil
		}
	}
	return false, nil
}

func (i *inbound) receive(fd uintptr, messages []message) (int, unix.Errno) {
	for k := range messages {
		header := &messages[k].header
		header.Namelen = unix.SizeofSockaddrInet6
		header.SetControllen(int(unsafe.Sizeof(i.controls[0])))
	}
	return exchange(unix.SYS_RECVMMSG, fd, messages)
}

// take checks a message and joins the packets of its datagrams.
func (i *inbound) take(k int) {
	from := i.sender(&i.names[k])
	if from == nil {
		i.count(UnknownSender, 1)
		return
	}
	header, rest := &i.messages[k].header, i.buffers[k][:i.messages[k].size]
	if header.Flags&unix.MSG_TRUNC != 0 {
		i.count(Truncated, 1)
		return
	}
	size := i.controls[k].segment(int(header.Controllen))
	if size <= 0 {
		size = max(len(rest), 1)
	}
	received := 0
	for more := true; more; more = len(rest) > 0 {
		datagram := rest[:min(size, len(rest))]
		rest = rest[len(datagram):]
		if !i.check(datagram, from) {
			continue
		}
		received++
		if !i.joiner.add(datagram) {
			i.flush()
			i.joiner.add(datagram)
		}
	}
	i.count(Received, received)
}

// sender is the peer that sent a datagram, or nil: packets are taken only from
// the nodes' addresses, and from the ports that the tunnel uses.
func (i *inbound) sender(name *socketName) *peer {
	at, port := nameOf(name)
	from, ok := i.path.peers.nodes.Get(at)
	if !ok || !i.path.knows(int(at.family), port) {
		return nil
	}
	return from
}

func (i *inbound) check(datagram []byte, from *peer) bool {
	if err := checkWire(datagram); err != nil {
		which := Truncated
		if errors.Is(err, errVersion) {
			which = UnknownVersion
		}
		i.count(which, 1)
		return false
	}
	if a := source(datagram[wireHeader:]); i.lastPeer == nil || a != i.lastSource {
		i.lastSource, i.lastPeer = a, i.path.peers.behind(a)
	}
	if i.lastPeer != from {
		i.count(ForeignSource, 1)
		return false
	}
	return true
}

// flush gives the device what was joined.
func (i *inbound) flush() {
	if len(i.joiner.pieces) == 0 {
		return
	}
	i.joiner.finish()
	i.iovecs = appendPiece(i.iovecs[:0], i.joiner.offload[:])
	for _, piece := range i.joiner.pieces {
		i.iovecs = appendPiece(i.iovecs, piece)
	}
	if err := i.path.device.raw.Write(i.write); err != nil || i.errno != 0 {
		i.count(DeliveryFailed, len(i.joiner.pieces))
	}
	i.joiner.reset()
}

func (i *inbound) tryWrite(fd uintptr) bool {
	for {
		_, _, i.errno = unix.RawSyscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&i.iovecs[0])), uintptr(len(i.iovecs)))
		if i.errno != unix.EINTR {
			return i.errno != unix.EAGAIN
		}
	}
}
