package udptunnel

import (
	"errors"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	frameSize = offloadSize + 1<<16 // of the largest that the TUN device gives

	// The limits of what one call of the kernel takes, or less.
	maxFrames   = 4     // read before they are sent
	maxSegments = 64    // of one message or super-packet of UDP: UDP_MAX_SEGMENTS before Linux 6.9
	maxMessage  = 65487 // bytes of one message: a UDP packet of either family
	maxPieces   = 1024  // iovecs of one message
	maxMessages = maxSegments
)

// outbound moves packets from the TUN device to the sockets. Its buffers are
// made once: no packet costs an allocation.
type outbound struct {
	*Tunnel
	frames [maxFrames][]byte
	heads  []byte // arena for the heads of datagrams
	used   int    // bytes of it
	pieces []unix.Iovec
	queue  []datagram
	cutter cutter

	messages [maxMessages]message
	names    [maxMessages]socketName
	controls [maxMessages]control
	ends     [maxMessages]int // in queue, after what each message holds

	path   *path
	failed error // of the last read
	to     *socket
	ready  int // messages to be sent
	sent   int
	errno  unix.Errno
	write  func(fd uintptr) bool

	lastTo   address // and the peer behind it, of the last packet
	lastPeer *peer
}

// datagram is one that waits to be sent: one piece or two.
type datagram struct {
	to    *peer
	size  int // bytes
	piece int // the first
}

func (t *Tunnel) newOutbound(p *path) *outbound {
	o := &outbound{
		Tunnel: t,
		path:   p,
		heads:  make([]byte, 64<<10),
		pieces: make([]unix.Iovec, 0, maxPieces),
		queue:  make([]datagram, 0, maxPieces),
	}
	for i := range o.frames {
		o.frames[i] = make([]byte, frameSize)
	}
	o.write = o.trySend
	return o
}

// run ends when the device's file is closed or its deadline has come.
func (o *outbound) run() error {
	device := o.path.device
	read := func(fd uintptr) bool {
		var nothing bool
		nothing, o.failed = o.read(fd)
		return !nothing
	}
	for {
		err := device.raw.Read(read)
		if err = errors.Join(err, o.failed); err != nil {
			return err
		}
	}
}

// read takes what the device has, up to the number of frames, and sends it.
// Nothing is waited for: what came alone goes alone, at once.
func (o *outbound) read(fd uintptr) (nothing bool, err error) {
	if path := o.Tunnel.path.Load(); path != o.path && path != nil {
		o.path, o.lastPeer = path, nil
	}
	for i := range o.frames {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&o.frames[i][0])), frameSize)
		switch {
		case errno == unix.EAGAIN && i == 0:
			return true, nil
		case errno == unix.EAGAIN:
			o.flush()
			return false, nil
		case errno == unix.EINTR:
			continue
		case errno != 0:
			return false, errno
		}
		o.take(o.frames[i][:n])
	}
	o.flush()
	return false, nil
}

// take queues the packets that a frame of the device stands for.
func (o *outbound) take(frame []byte) {
	if len(frame) < offloadSize || !wholeHeader(frame[offloadSize:]) {
		o.count(Malformed, 1)
		return
	}
	offload, packet := readOffload(frame), frame[offloadSize:]
	to := o.peer(destination(packet))
	if to == nil {
		o.count(NoPeer, 1)
		return
	}
	if offload.kind == unix.VIRTIO_NET_HDR_GSO_NONE {
		o.takePacket(to, frame, offload)
		return
	}
	if err := o.cutter.begin(packet, offload); err != nil {
		o.count(Malformed, 1)
		return
	}
	for {
		if len(o.heads)-o.used < o.cutter.headSize() || cap(o.pieces)-len(o.pieces) < 2 {
			o.flush()
		}
		head, body, more := o.cutter.next(o.heads[o.used:])
		if !more {
			return
		}
		o.used += len(head)
		o.add(to, head, body)
	}
}

// takePacket queues a plain packet. The datagram's header takes the place of
// the end of the frame's.
func (o *outbound) takePacket(to *peer, frame []byte, offload offload) {
	datagram := frame[offloadSize-wireHeader:]
	datagram[0], datagram[1], datagram[2], datagram[3] = wireVersion, 0, 0, 0
	if offload.flags&unix.VIRTIO_NET_HDR_F_NEEDS_CSUM != 0 {
		if offload.start <= 255 && offload.position <= 255 {
			datagram[1], datagram[2], datagram[3] = flagUnfinished, uint8(offload.start), uint8(offload.position)
		} else if !finishChecksum(datagram[wireHeader:], int(offload.start), int(offload.position)) {
			o.count(Malformed, 1)
			return
		}
	}
	if len(o.pieces) == cap(o.pieces) {
		o.flush()
	}
	o.add(to, datagram, nil)
}

func (o *outbound) peer(a address) *peer {
	if o.lastPeer == nil || a != o.lastTo {
		o.lastTo, o.lastPeer = a, o.path.peers.behind(a)
	}
	return o.lastPeer
}

func (o *outbound) add(to *peer, head, body []byte) {
	o.queue = append(o.queue, datagram{to, len(head) + len(body), len(o.pieces)})
	o.pieces = appendPiece(o.pieces, head)
	if len(body) > 0 {
		o.pieces = appendPiece(o.pieces, body)
	}
}

func appendPiece(pieces []unix.Iovec, b []byte) []unix.Iovec {
	pieces = append(pieces, unix.Iovec{Base: unsafe.SliceData(b)})
	pieces[len(pieces)-1].SetLen(len(b))
	return pieces
}

// flush sends all that is queued. What cannot be sent is dropped.
func (o *outbound) flush() {
	for next := 0; next < len(o.queue); {
		next = o.send(next)
	}
	o.queue, o.pieces, o.used = o.queue[:0], o.pieces[:0], 0
}

// send sends datagrams from next on, and returns the first that is left.
func (o *outbound) send(next int) int {
	now := time.Now()
	start := next
	o.to = o.path.current[o.queue[next].to.family()]
	if o.to == nil {
		o.count(SendFailed, 1)
		return next + 1
	}
	for o.ready = 0; o.ready < maxMessages && next < len(o.queue); o.ready++ {
		if o.path.current[o.queue[next].to.family()] != o.to {
			break
		}
		next = o.gather(o.ready, next, now)
	}
	if err := o.to.raw.Write(o.write); err != nil {
		// The socket was closed by a change of the plan.
		o.count(SendFailed, next-start)
		return next
	}
	if o.errno == 0 {
		o.count(Sent, o.ends[o.sent-1]-start)
		return o.ends[o.sent-1]
	}
	if first := &o.messages[0].header; first.Controllen > 0 && refusesSegments(o.errno) {
		o.queue[start].to.refusedSegments(now)
		return start
	}
	o.count(SendFailed, o.ends[0]-start)
	return o.ends[0]
}

// trySend is called until it reports true: the socket has room again.
func (o *outbound) trySend(fd uintptr) bool {
	for {
		o.sent, o.errno = exchange(unix.SYS_SENDMMSG, fd, o.messages[:o.ready])
		if o.errno != unix.EINTR {
			return o.errno != unix.EAGAIN
		}
	}
}

// refusesSegments tells what the kernel says of UDP_SEGMENT for a device
// without checksum offload, a datagram larger than the MTU, or at all.
func refusesSegments(errno unix.Errno) bool {
	switch errno {
	case unix.EIO, unix.EINVAL, unix.EMSGSIZE, unix.EOPNOTSUPP, unix.ENOPROTOOPT:
		return true
	}
	return false
}

// gather makes message i of datagrams from next on, and returns the first that
// is left: those of equal size to one peer, and one that may be smaller.
func (o *outbound) gather(i, next int, now time.Time) int {
	first := &o.queue[next]
	pieces, total := first.piece, first.size
	segments := 1
	next++
	if now.UnixNano() >= first.to.whole.Load() {
		for size := first.size; next < len(o.queue) && segments < maxSegments && size == first.size; segments++ {
			d := &o.queue[next]
			if d.to != first.to || d.size > first.size || total+d.size > maxMessage {
				break
			}
			total, size = total+d.size, d.size
			next++
		}
	}
	end := len(o.pieces)
	if next < len(o.queue) {
		end = o.queue[next].piece
	}
	header := &o.messages[i].header
	header.Name = (*byte)(unsafe.Pointer(&o.names[i]))
	header.Namelen = putName(&o.names[i], first.to.addr, o.to.at.Port())
	header.Iov = &o.pieces[pieces]
	header.SetIovlen(end - pieces)
	header.Control = nil
	header.SetControllen(0)
	if segments > 1 {
		header.Control = (*byte)(unsafe.Pointer(&o.controls[i]))
		header.SetControllen(o.controls[i].setSegment(first.size))
	}
	o.ends[i] = next
	return next
}
