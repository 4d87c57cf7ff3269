package lab

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
)

// Family says which address families a cluster has.
type Family string

// The families of a cluster.
const (
	IPv4 Family = "ipv4"
	IPv6 Family = "ipv6"
	Dual Family = "dual" // IPv4 first
)

// V4 says whether the cluster has IPv4 addresses.
func (f Family) V4() bool { return f != IPv6 }

// V6 says whether the cluster has IPv6 addresses.
func (f Family) V6() bool { return f != IPv4 }

// None leaves a part of the cluster out: its service proxy, its DNS or its
// network.
const None = "none"

// Config describes a lab. The zero value is the default lab.
type Config struct {
	Name      string // "lab" if empty
	Nodes     int    // 3 if zero
	Segments  int    // L2 networks the nodes are spread over; 2 if zero, never more than nodes
	Zones     int    // values of the zone label that nodes get in turn; no label if zero
	Family    Family // Dual if empty
	MTU       []int  // of each segment of nodes, in bytes; the last is also that of those left; 1500 if empty
	KubeProxy string // nftables (if empty), iptables or none
	DNS       string // coredns (if empty), fairlead or none
	Network   string // fairlead (if empty) or none

	Source string // checkout to build from; empty means the one around the working directory
}

// Bounds of a lab, given by its address plan and by what one host carries.
const (
	maxNodes    = 200
	maxSegments = 90
)

var nameOf = regexp.MustCompile(`^[a-z][a-z0-9-]{0,19}$`)

// Complete returns the config with defaults filled in, or all mistakes in it.
func (c Config) Complete() (Config, error) {
	setDefault(&c.Name, DefaultName)
	setDefault(&c.Nodes, 3)
	setDefault(&c.Segments, min(2, max(1, c.Nodes)))
	setDefault(&c.Family, Dual)
	if len(c.MTU) == 0 {
		c.MTU = []int{1500}
	}
	setDefault(&c.DNS, "coredns")
	setDefault(&c.Network, "fairlead")
	// Fairlead serves Services; who brings another network needs it.
	setDefault(&c.KubeProxy, map[bool]string{true: None, false: "nftables"}[c.Network == "fairlead"])

	var mistakes []error
	wrong := func(format string, args ...any) { mistakes = append(mistakes, fmt.Errorf(format, args...)) }
	oneOf := func(field, value string, allowed ...string) {
		if !slices.Contains(allowed, value) {
			wrong("%s: %q is not one of %q", field, value, allowed)
		}
	}
	if !nameOf.MatchString(c.Name) {
		wrong("name: %q is not a lower-case letter followed by up to 19 letters, digits and dashes", c.Name)
	}
	if c.Nodes < 1 || c.Nodes > maxNodes {
		wrong("nodes: %d is not between 1 and %d", c.Nodes, maxNodes)
	}
	if c.Segments < 1 || c.Segments > min(maxSegments, max(1, c.Nodes)) {
		wrong("segments: %d is not between 1 and the number of nodes, or is over %d", c.Segments, maxSegments)
	}
	if c.Zones < 0 {
		wrong("zones: %d is negative", c.Zones)
	}
	if len(c.MTU) > max(1, c.Segments) {
		wrong("mtu: %d values are more than the %d segments", len(c.MTU), c.Segments)
	}
	for _, mtu := range c.MTU {
		if least := map[bool]int{true: 1280, false: 576}[c.Family.V6()]; mtu < least || mtu > 65535 {
			wrong("mtu: %d is not between %d and 65535 bytes", mtu, least)
		}
	}
	oneOf("family", string(c.Family), string(IPv4), string(IPv6), string(Dual))
	oneOf("kube-proxy", c.KubeProxy, "nftables", "iptables", None)
	oneOf("network", c.Network, "fairlead", None)
	oneOf("dns", c.DNS, "coredns", "fairlead", None)
	if c.DNS == "fairlead" && c.Network == None {
		wrong("dns: Fairlead's DNS is told of names by Fairlead's agents; use it with network fairlead")
	}
	if len(mistakes) > 0 {
		return c, fmt.Errorf("the lab cannot be made: %w", errors.Join(mistakes...))
	}
	return c, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
