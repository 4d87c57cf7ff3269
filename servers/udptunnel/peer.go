package udptunnel

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
)

// peer is another node. It lives as long as the node has one range.
type peer struct {
	addr netip.Addr // outer

	ranges int // that it has; only Apply uses it

	// whole is until when (nanoseconds since 1970) datagrams go to it one by
	// one, because the kernel refused to segment them: usually since the way
	// there has a smaller MTU than the datagrams.
	whole atomic.Int64
}

// wholeFor is how long a refused segmentation is remembered.
const wholeFor = time.Minute

func (p *peer) family() int { return int(model.FamilyOf(p.addr)) }

func (p *peer) refusedSegments(now time.Time) { p.whole.Store(now.Add(wholeFor).UnixNano()) }

// peers says which inner addresses are behind which peer. It is immutable: the
// packets' way reads it without a lock.
type peers struct {
	nodes   model.Map[address, *peer]
	ranges  model.Map[prefix, *peer]
	counts  [2][129]int32 // of ranges, by family and length
	lengths [2][]uint8    // that occur, longest first
}

// address is an IP address in a form that can be hashed without allocation.
type address struct {
	high, low uint64
	family    uint8 // index in peers
}

type prefix struct {
	address
	bits uint8
}

func addressOf(b []byte) address {
	if len(b) == 4 {
		return address{high: uint64(binary.BigEndian.Uint32(b)) << 32}
	}
	return address{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), 1}
}

func (a address) masked(length uint8) prefix {
	p := prefix{a, length}
	if length < 64 {
		p.low = 0
		p.high &= ^(^uint64(0) >> length)
	} else {
		p.low &= ^(^uint64(0) >> (length - 64))
	}
	return p
}

// source and destination are those of a packet that wholeHeader found good.
func source(packet []byte) address {
	if packet[0]>>4 == 4 {
		return addressOf(packet[12:16])
	}
	return addressOf(packet[8:24])
}

func destination(packet []byte) address {
	if packet[0]>>4 == 4 {
		return addressOf(packet[16:20])
	}
	return addressOf(packet[24:40])
}

// behind is the peer that has the longest range with this address, or nil.
func (p *peers) behind(a address) *peer {
	for _, length := range p.lengths[a.family] {
		if found, ok := p.ranges.Get(a.masked(length)); ok {
			return found
		}
	}
	return nil
}

// with is the table after the differences of two plans.
func (p *peers) with(old, new model.Map[netip.Prefix, netip.Addr]) *peers {
	next := *p
	for change := range model.Diff(old, new) {
		inner := change.Key.Masked()
		key := prefix{addressOf(inner.Addr().AsSlice()), uint8(inner.Bits())}
		if change.Had {
			next.remove(key)
		}
		if change.Has {
			next.add(key, change.New)
		}
	}
	for family := range next.lengths {
		next.lengths[family] = nil
		for length, count := range next.counts[family] {
			if count > 0 {
				next.lengths[family] = append(next.lengths[family], uint8(length))
			}
		}
		slices.Reverse(next.lengths[family])
	}
	return &next
}

func (p *peers) add(key prefix, outer netip.Addr) {
	at := addressOf(outer.AsSlice())
	to, ok := p.nodes.Get(at)
	if !ok {
		to = &peer{addr: outer}
		p.nodes = p.nodes.With(at, to)
	}
	to.ranges++
	p.ranges = p.ranges.With(key, to)
	p.counts[key.family][key.bits]++
}

func (p *peers) remove(key prefix) {
	from, ok := p.ranges.Get(key)
	if !ok {
		return
	}
	if from.ranges--; from.ranges == 0 {
		p.nodes = p.nodes.Without(addressOf(from.addr.AsSlice()))
	}
	p.ranges = p.ranges.Without(key)
	p.counts[key.family][key.bits]--
}

// socketName is room for an outer address and port as the kernel has them. The
// port stands at the same place in both families.
type socketName = unix.RawSockaddrInet6

// putName writes where a datagram goes to and returns the length in bytes.
func putName(name *socketName, to netip.Addr, port uint16) uint32 {
	*name = socketName{}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&name.Port))[:], port)
	if to.Is4() {
		name.Family = unix.AF_INET
		(*unix.RawSockaddrInet4)(unsafe.Pointer(name)).Addr = to.As4()
		return unix.SizeofSockaddrInet4
	}
	name.Family = unix.AF_INET6
	name.Addr = to.As16()
	return unix.SizeofSockaddrInet6
}

// nameOf is where a datagram came from.
func nameOf(name *socketName) (address, uint16) {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&name.Port))[:])
	if name.Family == unix.AF_INET {
		return addressOf((*unix.RawSockaddrInet4)(unsafe.Pointer(name)).Addr[:]), port
	}
	return addressOf(name.Addr[:]), port
}
