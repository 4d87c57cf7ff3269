package ebpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
)

// noAddressGeneration is IN6_ADDR_GEN_MODE_NONE: nothing but IPv4 is carried.
const noAddressGeneration = 1

// IPIP is a device that carries IPv4 packets in IPv4 packets between nodes. The
// node to which a packet goes is told by its Ethernet destination, so that
// routes are as with the kernel's own device but for a neighbour for each node:
//
//	ip neighbor add NODE lladdr PeerMAC(NODE) dev NAME nud permanent
//	ip route add PODS via NODE onlink dev NAME
//
// Packets come in by the device, too.
type IPIP struct {
	Name   string     // of the device, 14 bytes at most: one more is the other end's
	Uplink string     // the Ethernet interface by which the other nodes are reached
	Local  netip.Addr // this node's address, IPv4
	MTU    int        // of the device, in bytes

	// Pods is this node's range, if it has one: large packets that GRO has put
	// together reach it undivided on kernels before the one that can be told to
	// forget that they were in a tunnel (newer than 6.18).
	Pods netip.Prefix
}

// PeerMAC is the Ethernet address of a node's end of the tunnel. It is zero if
// addr is not IPv4.
func PeerMAC(addr netip.Addr) model.MAC {
	if !addr.Is4() {
		return model.MAC{}
	}
	a := addr.As4()
	return model.MAC{0x02, 0xfa, a[0], a[1], a[2], a[3]} // as bpf/ipip.c reads it
}

// AttachIPIP makes the device as it is wanted, or changes the one that is there.
// Programs of an earlier life are replaced without a packet lost. When Local
// changes, the kernel drops the device's neighbours. An interface of the name
// that is of no use, such as the kernel's own ipip device, is removed first.
func AttachIPIP(want IPIP) error {
	if err := want.attach(); err != nil {
		return fmt.Errorf("attach ipip device %s: %w", want.Name, err)
	}
	return nil
}

func (want IPIP) attach() error {
	if !want.Local.Is4() || want.Pods.IsValid() && !want.Pods.Addr().Is4() {
		return fmt.Errorf("%s and %s are not both IPv4: %w", want.Local, want.Pods, unix.EAFNOSUPPORT)
	}
	if err := Supported(); err != nil {
		return err
	}
	uplink, err := rtnl.LinkByName(want.Uplink)
	if err != nil {
		return linkError(want.Uplink, err)
	}
	if kind := uplink.Attrs().EncapType; kind != "ether" {
		return fmt.Errorf("%s is no Ethernet interface but %s: %w", want.Uplink, kind, unix.EOPNOTSUPP)
	}
	device, divider, err := want.pair()
	if err != nil {
		return err
	}
	// What is half changed is not to be taken for what it was.
	if device.Attrs().Alias != want.alias() {
		if err := rtnl.LinkSetAlias(device, ""); err != nil {
			return fmt.Errorf("clear the alias: %w", err)
		}
	}
	if err := want.attachPrograms(uplink, device, divider); err != nil {
		return err
	}
	if err := remove(decapName(want.Name), uplink.Attrs().Index); err != nil {
		return err
	}
	if err := rtnl.LinkSetAlias(device, want.alias()); err != nil {
		return fmt.Errorf("set the alias: %w", err)
	}
	return nil
}

func (want IPIP) attachPrograms(uplink, device, divider rtnl.Link) error {
	constants := map[string]uint32{
		"local":   inMemory(want.Local.AsSlice()),
		"pods":    1, // with the mask 0, no address
		"device":  uint32(device.Attrs().Index),
		"divider": uint32(divider.Attrs().Index),
		"uplink":  uint32(uplink.Attrs().Index),
	}
	if want.Pods.IsValid() {
		constants["pods"] = inMemory(want.Pods.Masked().Addr().AsSlice())
		constants["pods_mask"] = inMemory(net.CIDRMask(want.Pods.Bits(), 32))
	}
	programs, err := load(constants)
	if err != nil {
		return err
	}
	defer programs.Close()
	encap, decap := programs.Programs["encap"], programs.Programs["decap"]
	if err := put(device, egress, encapName(want.Name), encap); err != nil {
		return err
	}
	if err := put(device, ingress, encapName(want.Name), encap); err != nil {
		return err
	}
	return put(uplink, ingress, decapName(want.Name), decap)
}

func encapName(device string) string { return device + ":encap" }
func decapName(device string) string { return device + ":decap" }

// inMemory is a constant whose bytes in memory are as given.
func inMemory(bytes []byte) uint32 { return binary.NativeEndian.Uint32(bytes) }

// pair makes the two ends of the device, up, as they are wanted.
func (want IPIP) pair() (device, divider rtnl.Link, err error) {
	mac := PeerMAC(want.Local)
	device, divider, err = findPair(want.Name)
	if err == nil && (device == nil || divider == nil) {
		attrs := rtnl.NewLinkAttrs()
		attrs.Name = want.Name
		attrs.MTU = want.MTU
		// Given at creation, so that the kernel calls it set by an
		// administrator: systemd's MACAddressPolicy replaces any other.
		attrs.HardwareAddr = mac[:]
		err = want.replace(device, &rtnl.Veth{LinkAttrs: attrs, PeerName: dividerName(want.Name)})
		if err == nil {
			device, divider, err = findPair(want.Name)
		}
		if err == nil && (device == nil || divider == nil) {
			err = unix.ENODEV
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("make the veth pair: %w", err)
	}
	if model.MAC(device.Attrs().HardwareAddr) != mac {
		if err := rtnl.LinkSetHardwareAddr(device, mac[:]); err != nil {
			return nil, nil, fmt.Errorf("set the MAC: %w", err)
		}
	}
	// Of more segments than one the kernel makes as many packets. Where a
	// program has changed one, it does not know their number any more and goes
	// by the size, of which it takes no smaller limit than some 400.
	err = errors.Join(rtnl.LinkSetGSOMaxSegs(divider, 1), rtnl.LinkSetGSOMaxSize(divider, 512))
	if err != nil {
		return nil, nil, fmt.Errorf("limit GSO: %w", err)
	}
	for _, end := range []rtnl.Link{divider, device} {
		if err := want.start(end); err != nil {
			return nil, nil, err
		}
	}
	return device, divider, nil
}

func (want IPIP) replace(old rtnl.Link, pair *rtnl.Veth) error {
	if old != nil {
		if err := rtnl.LinkDel(old); err != nil && !gone(err) {
			return fmt.Errorf("remove what is in the way: %w", err)
		}
	}
	return rtnl.LinkAdd(pair)
}

// start suppresses link-local addresses before an end is up, which is when the
// kernel would make them.
func (want IPIP) start(end rtnl.Link) error {
	name := end.Attrs().Name
	if err := rtnl.LinkSetMTU(end, want.MTU); err != nil {
		return fmt.Errorf("set the MTU %d of %s: %w", want.MTU, name, err)
	}
	err := rtnl.LinkSetIP6AddrGenMode(end, noAddressGeneration)
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) { // a kernel without IPv6 makes none
		return fmt.Errorf("set addrgenmode none of %s: %w", name, err)
	}
	if err := rtnl.LinkSetUp(end); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

// dividerName is that of the other end; bpf/ipip.c says what it is for.
func dividerName(device string) string { return device + "0" }

// findPair returns the interface of the name, or nil, and its other end, or nil
// if it is of no use.
func findPair(name string) (device, divider rtnl.Link, err error) {
	device, err = rtnl.LinkByName(name)
	if isMissing(err) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, linkError(name, err)
	}
	divider, err = rtnl.LinkByName(dividerName(name))
	if isMissing(err) || err == nil && (device.Type() != "veth" || device.Attrs().ParentIndex != divider.Attrs().Index) {
		return device, nil, nil
	}
	if err != nil {
		return nil, nil, linkError(dividerName(name), err)
	}
	return device, divider, nil
}

// RemoveFilters removes what a device leaves on uplinks when somebody deletes
// it: the filter would go on to take, and lose, the packets that another device
// of the name is to have. What is not there is not missed.
func RemoveFilters(name string) error { return remove(decapName(name), 0) }

// DetachIPIP removes the device, and its filter from every uplink. What is not
// there is not missed.
func DetachIPIP(name string) error {
	err := RemoveFilters(name)
	device, _, found := findPair(name)
	err = errors.Join(err, found)
	if device != nil {
		if gone := rtnl.LinkDel(device); gone != nil {
			err = errors.Join(err, gone)
		}
	}
	if err != nil {
		return fmt.Errorf("detach ipip device %s: %w", name, err)
	}
	return nil
}

// Attached tells whether there is an interface of the name, and how it was
// attached. Of one that is of no use, or has programs of another version, only
// the name is told.
func Attached(name string) (IPIP, bool, error) {
	device, divider, err := findPair(name)
	if err != nil {
		return IPIP{}, false, fmt.Errorf("read back ipip device %s: %w", name, err)
	}
	if device == nil {
		return IPIP{}, false, nil
	}
	broken := IPIP{Name: name}
	if divider == nil || device.Attrs().Flags&net.FlagUp == 0 || divider.Attrs().Flags&net.FlagUp == 0 {
		return broken, true, nil
	}
	seen, ok := parseAlias(device.Attrs())
	if !ok || model.MAC(device.Attrs().HardwareAddr) != PeerMAC(seen.Local) {
		return broken, true, nil
	}
	uplink, err := rtnl.LinkByName(seen.Uplink)
	if isMissing(err) {
		return broken, true, nil
	}
	if err != nil {
		return IPIP{}, false, fmt.Errorf("read back ipip device %s: %w", name, linkError(seen.Uplink, err))
	}
	for _, place := range []struct {
		link    rtnl.Link
		way     way
		program string
	}{
		{device, egress, encapName(name)},
		{device, ingress, encapName(name)},
		{uplink, ingress, decapName(name)},
	} {
		program, err := find(place.link, place.way, place.program)
		if err != nil {
			return IPIP{}, false, fmt.Errorf("read back ipip device %s: %w", name, err)
		}
		if program == 0 {
			return broken, true, nil
		}
	}
	return seen, true, nil
}

// alias is how the device tells later lives, and those who look, what it is.
func (want IPIP) alias() string {
	pods := "none"
	if want.Pods.IsValid() {
		pods = want.Pods.String()
	}
	return fmt.Sprintf("ipip local %s uplink %s pods %s programs %s", want.Local, want.Uplink, pods, version())
}

func parseAlias(attrs *rtnl.LinkAttrs) (IPIP, bool) {
	words := strings.Fields(attrs.Alias)
	if len(words) != 9 {
		return IPIP{}, false
	}
	// What is not an address is no address that is wanted.
	seen := IPIP{Name: attrs.Name, Uplink: words[4], MTU: attrs.MTU}
	seen.Local, _ = netip.ParseAddr(words[2])
	seen.Pods, _ = netip.ParsePrefix(words[6])
	return seen, attrs.Alias == seen.alias()
}

func isMissing(err error) bool {
	var missing rtnl.LinkNotFoundError
	return errors.As(err, &missing)
}

// linkError gives the library's error for a missing link the kernel's number.
func linkError(name string, err error) error {
	if isMissing(err) {
		err = unix.ENODEV
	}
	return fmt.Errorf("look up network interface %s: %w", name, err)
}
