package probe

import (
	"fmt"
	"net/netip"
)

// Report is what one node has found. It only grows.
type Report struct {
	Node       string         `json:"node"`
	Version    string         `json:"version"`              // of the agent
	Endpoint   []netip.Addr   `json:"endpoint,omitempty"`   // what stands for its pods
	NoEndpoint string         `json:"noEndpoint,omitempty"` // why there is none
	Unknown    []string       `json:"unknown,omitempty"`    // nodes that it was asked to probe and does not know
	Ways       map[string]Way `json:"ways,omitempty"`       // to pods of other nodes
	Results    []Result       `json:"results"`
	// Firewalls are chains of others on the node that drop some packets, as nft
	// calls them: family, table, chain.
	Firewalls []string `json:"firewalls,omitempty"`
	// Legacy are commands that list what iptables-legacy has on the node, which is not
	// among Firewalls; none if it has no tables.
	Legacy []string `json:"legacy,omitempty"`
}

// Way is how packets of pods get to another node. The zero value is not known.
type Way struct {
	Name     string `json:"name"`               // direct, vxlan, ipip or udp
	Protocol string `json:"protocol,omitempty"` // that carries a tunnel: UDP, or IP protocol 4
	Port     uint16 `json:"port,omitempty"`
}

// Carrier is what firewalls between the nodes have to let through, such as "UDP
// port 4789"; of a plain route, the pods' own packets.
func (w Way) Carrier() string {
	switch {
	case w.Port != 0:
		return fmt.Sprintf("%s port %d", w.Protocol, w.Port)
	case w.Protocol != "":
		return w.Protocol
	default:
		return "packets from and to the addresses of pods"
	}
}
