package ebpf

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
)

// packet is what came in by an interface, from the IP header on.
type packet struct {
	length int    // in bytes; more than the MTU if it is not segmented yet
	raw    []byte // the first bytes
}

func (p packet) source() netip.Addr      { return netip.AddrFrom4([4]byte(p.raw[12:])) }
func (p packet) destination() netip.Addr { return netip.AddrFrom4([4]byte(p.raw[16:])) }
func (p packet) protocol() byte          { return p.raw[9] }

// validHeader tells whether the IPv4 header has no options, the length of the
// packet, and a checksum that is right.
func (p packet) validHeader() bool {
	return len(p.raw) >= 20 && p.raw[0] == 0x45 &&
		int(binary.BigEndian.Uint16(p.raw[2:])) == p.length && sum(p.raw[:20]) == 0xffff
}

// inner is the packet in it.
func (p packet) inner() packet { return packet{p.length - 20, p.raw[20:]} }

// sum is the one's complement sum of words.
func sum(words []byte) uint16 {
	var total uint32
	for ; len(words) > 1; words = words[2:] {
		total += uint32(binary.BigEndian.Uint16(words))
	}
	if len(words) == 1 {
		total += uint32(words[0]) << 8
	}
	for total > 0xffff {
		total = total&0xffff + total>>16
	}
	return uint16(total)
}

// capture sees the IPv4 packets that come in by an interface, from now on.
// The function that it returns tells which they were.
func capture(t testing.TB, space *netnstest.Namespace, device string) func() []packet {
	t.Helper()
	fd := -1
	space.Do(func() { fd = openCapture(t, device) })
	return func() (packets []packet) {
		defer unix.Close(fd)
		for {
			buffer := make([]byte, 128)
			n, from, err := unix.Recvfrom(fd, buffer, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
			if errors.Is(err, unix.EAGAIN) {
				return packets
			}
			if err != nil {
				t.Fatalf("read packets: %v", err)
			}
			if from.(*unix.SockaddrLinklayer).Pkttype == unix.PACKET_HOST {
				packets = append(packets, packet{n, buffer[:min(n, len(buffer))]})
			}
		}
	}
}

func openCapture(t testing.TB, device string) int {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Errorf("open packet socket: %v", err)
		return -1
	}
	index, err := linkIndex(device)
	err = errors.Join(err,
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 0x0008, Ifindex: index}), // ETH_P_IP, in network order
	)
	if err != nil {
		t.Errorf("capture on %s: %v", device, err)
	}
	return fd
}

// Offloads of an interface: what leaves by it without, the kernel segments, or
// sums up.
const (
	segmentation = 0x1f // ETHTOOL_STSO
	checksums    = 0x17 // ETHTOOL_STXCSUM
)

func turnOff(t testing.TB, device string, offload uint32) {
	value := struct{ command, data uint32 }{offload, 0}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:], device)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Errorf("open socket: %v", err)
		return
	}
	defer unix.Close(fd)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		t.Errorf("turn off offload %#x of %s: %v", offload, device, errno)
	}
}
