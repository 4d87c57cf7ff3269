package model

import (
	"fmt"
	"net"
	"net/netip"
)

// Family is an address family.
type Family uint8

// The two families. Code that treats them alike ranges over Families.
const (
	IPv4 Family = iota
	IPv6
)

// Families are both families.
var Families = [...]Family{IPv4, IPv6}

func (f Family) String() string {
	if f == IPv4 {
		return "IPv4"
	}
	return "IPv6"
}

// Bits is the length of an address: 32 or 128.
func (f Family) Bits() int {
	if f == IPv4 {
		return 32
	}
	return 128
}

// FamilyOf returns the family of a valid address. An IPv4 address mapped into
// IPv6 does not occur: sources unmap.
func FamilyOf(addr netip.Addr) Family {
	if addr.Is4() {
		return IPv4
	}
	return IPv6
}

// AllOf is the prefix that holds all addresses of a family.
func AllOf(family Family) netip.Prefix {
	if family == IPv4 {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// HostPrefix is the prefix that holds this address alone.
func HostPrefix(addr netip.Addr) netip.Prefix {
	return netip.PrefixFrom(addr, addr.BitLen())
}

// MAC is an Ethernet address.
type MAC [6]byte

func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// MarshalText is String.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText is String's inverse.
func (m *MAC) UnmarshalText(text []byte) error {
	mac, err := net.ParseMAC(string(text))
	if err != nil || len(mac) != len(m) {
		return fmt.Errorf("%q is no MAC address", text)
	}
	*m = MAC(mac)
	return nil
}
