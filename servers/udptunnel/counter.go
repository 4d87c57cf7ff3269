package udptunnel

import "sync/atomic"

// Counter names one of a Tunnel's counters. All but the first two and the last
// count what was dropped: inner packets, or outer ones where the inner are
// unknown.
type Counter uint8

// The counters.
const (
	Sent           Counter = iota // inner packets
	Received                      // inner packets
	NoPeer                        // no node has the destination
	Malformed                     // the TUN device gave what is no IP packet
	SendFailed                    // the kernel refused the datagram
	UnknownSender                 // outer: from no node, or from another port of it
	ForeignSource                 // the inner source is not the sending node's
	UnknownVersion                // the sender speaks another version
	Truncated                     // shorter than its headers say
	DeliveryFailed                // the TUN device refused the packet
	ReceiveFailed                 // errors that a socket told of, not packets
	numberOfCounters
)

func (c Counter) String() string {
	names := [...]string{
		"sent", "received", "no_peer", "malformed", "send_failed",
		"unknown_sender", "foreign_source", "unknown_version", "truncated", "delivery_failed",
		"receive_failed",
	}
	if int(c) < len(names) {
		return names[c]
	}
	return "unknown"
}

type counters [numberOfCounters]atomic.Uint64

func (c *counters) count(which Counter, n int) { c[which].Add(uint64(n)) }
