package udptunnel

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	tunPath = "/dev/net/tun"

	// deviceType is what the kernel calls a TUN device.
	deviceType = "tuntap"

	// noAddressGeneration is IN6_ADDR_GEN_MODE_NONE: no link-local address, and
	// so no router solicitations into the tunnel.
	noAddressGeneration = 1

	// queue is how many packets wait for this process to get a CPU: four times
	// the kernel's default of 500, which a burst of small packets fills in less
	// than a millisecond. What does not fit, the device counts (ip -s link: TX
	// dropped).
	queue = 2000
)

// errForeign is of a device that has our name and is not a TUN device.
var errForeign = errors.New("another kind of network interface has this name")

// device is the TUN device, for the runtime's poller. It outlives the process.
type device struct {
	file      *os.File
	raw       syscall.RawConn
	name      string
	segmented bool // the kernel gives and takes super-packets of UDP (Linux 6.2)
}

// openDevice makes the device, or takes over the one that an earlier process
// left, in the network namespace of the calling thread.
func openDevice(name string) (*device, error) {
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", tunPath, err)
	}
	d := &device{name: name}
	if err := d.attach(fd); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	d.file = os.NewFile(uintptr(fd), name)
	if d.raw, err = d.file.SyscallConn(); err != nil {
		_ = d.file.Close()
		return nil, fmt.Errorf("watch the TUN device: %w", err)
	}
	return d, nil
}

func (d *device) attach(fd int) error {
	request, err := unix.NewIfreq(d.name)
	if err != nil {
		return fmt.Errorf("name the TUN device: %w", err)
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		if errors.Is(err, unix.EINVAL) {
			return errForeign
		}
		return fmt.Errorf("make the TUN device: %w", err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, offloadSize); err != nil {
		return fmt.Errorf("set the size of the TUN device's headers: %w", err)
	}
	const tcp = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp|unix.TUN_F_USO4|unix.TUN_F_USO6)
	d.segmented = err == nil
	if errors.Is(err, unix.EINVAL) {
		err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp)
	}
	if err != nil {
		return fmt.Errorf("take super-packets of the TUN device: %w", err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		return fmt.Errorf("keep the TUN device: %w", err)
	}
	return nil
}

// lost tells whether somebody has removed the device. The file stays, useless.
func (d *device) lost() bool {
	lost := true
	_ = d.raw.Control(func(fd uintptr) {
		request, err := unix.NewIfreq("")
		lost = err != nil || unix.IoctlIfreq(int(fd), unix.TUNGETIFF, request) != nil || request.Name() != d.name
	})
	return lost
}

// setLink sets the device's MTU and queue and sets it up, if it is not so.
func setLink(name string, mtu int) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("look up the TUN device: %w", err)
	}
	if link.Attrs().MTU != mtu {
		if err := netlink.LinkSetMTU(link, mtu); err != nil {
			return fmt.Errorf("set the TUN device's MTU to %d: %w", mtu, err)
		}
	}
	if link.Attrs().TxQLen != queue {
		if err := netlink.LinkSetTxQLen(link, queue); err != nil {
			return fmt.Errorf("set the TUN device's queue to %d packets: %w", queue, err)
		}
	}
	if link.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	err = netlink.LinkSetIP6AddrGenMode(link, noAddressGeneration)
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) { // a kernel without IPv6 makes none
		return fmt.Errorf("keep the TUN device from having a link-local address: %w", err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set the TUN device up: %w", err)
	}
	return nil
}

// removeLink removes the device, also one that an earlier process left. What
// is no TUN device is not ours.
func removeLink(name string) error {
	link, err := netlink.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) || err == nil && link.Type() != deviceType {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove the TUN device: %w", err)
	}
	return nil
}
