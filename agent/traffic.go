package agent

import (
	"fmt"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/observe/metric"
	"github.com/fairlead-net/fairlead/plan/route"
	"github.com/fairlead-net/fairlead/whole"
)

// traffic reads what went through the uplink, the tunnels and the links of pods.
// Pods are counted together, however many come and go: what each of them sends
// is the kubelet's to tell.
type traffic struct {
	mu    sync.Mutex
	known bool                   // pods was read before
	pods  map[string]linkCounts  // by device, as read last
	sums  linkCounts             // of all pods since the agent began, as they see it
	list  func() ([]link, error) // of the node
}

// newTraffic begins to count pods.
func newTraffic() *traffic {
	t := &traffic{list: listLinks}
	if links, err := t.list(); err == nil { // else the first reading is the beginning
		t.sum(links)
	}
	return t
}

// link is a network interface with its counters.
type link struct {
	name   string
	counts linkCounts
}

// linkCounts are those of an interface, by direction.
type linkCounts [2]linkCount

type linkCount struct{ bytes, packets, errors, dropped uint64 }

// The directions, as the owner of the interface sees them.
const (
	receive = iota
	transmit
)

var directions = [...]string{receive: "receive", transmit: "transmit"}

// listLinks reads all interfaces from the kernel.
func listLinks() ([]link, error) {
	all, err := whole.List(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("read counters of links: %w", err)
	}
	var links []link
	for _, l := range all {
		found := link{name: l.Attrs().Name}
		if s := l.Attrs().Statistics; s != nil {
			found.counts[receive] = linkCount{s.RxBytes, s.RxPackets, s.RxErrors, s.RxDropped}
			found.counts[transmit] = linkCount{s.TxBytes, s.TxPackets, s.TxErrors, s.TxDropped}
		}
		links = append(links, found)
	}
	return links, nil
}

func trafficReadings() []metric.Reading {
	device, pods := []string{"device", "role", "direction"}, []string{"direction"}
	return []metric.Reading{
		{Name: "fairlead_link_bytes_total", Help: "Bytes through the uplink and the tunnels of the node, with their headers.", Labels: device, Counter: true},
		{Name: "fairlead_link_packets_total", Help: "Packets through the uplink and the tunnels of the node.", Labels: device, Counter: true},
		{Name: "fairlead_link_errors_total", Help: "Packets that the uplink or a tunnel could not receive or send.", Labels: device, Counter: true},
		{Name: "fairlead_link_dropped_total", Help: "Packets that the uplink or a tunnel dropped, for want of buffers or of somebody who wants them.", Labels: device, Counter: true},
		{Name: "fairlead_pods_bytes_total", Help: "Bytes that the pods of the node received and transmitted, together.", Labels: pods, Counter: true},
		{Name: "fairlead_pods_packets_total", Help: "Packets that the pods of the node received and transmitted, together.", Labels: pods, Counter: true},
		{Name: "fairlead_pods_dropped_total", Help: "Packets that the links of pods dropped.", Labels: pods, Counter: true},
	}
}

func (t *traffic) read(emit metric.Emit, uplink string) error {
	links, err := t.list()
	if err != nil {
		return err
	}
	for _, l := range links {
		role := ""
		switch {
		case l.name == uplink:
			role = "uplink"
		case strings.HasPrefix(l.name, route.TunnelPrefix):
			role = "tunnel"
		default:
			continue
		}
		for direction, name := range directions {
			counts := l.counts[direction]
			emit("fairlead_link_bytes_total", float64(counts.bytes), l.name, role, name)
			emit("fairlead_link_packets_total", float64(counts.packets), l.name, role, name)
			emit("fairlead_link_errors_total", float64(counts.errors), l.name, role, name)
			emit("fairlead_link_dropped_total", float64(counts.dropped), l.name, role, name)
		}
	}
	sums := t.sum(links)
	for direction, name := range directions {
		emit("fairlead_pods_bytes_total", float64(sums[direction].bytes), name)
		emit("fairlead_pods_packets_total", float64(sums[direction].packets), name)
		emit("fairlead_pods_dropped_total", float64(sums[direction].dropped), name)
	}
	return nil
}

// sum adds what went through the links of pods since they were read last, so
// that a pod that goes takes nothing from the sum. What went before the agent
// began does not count: a rate over its start would be that of days. What a pod
// sends between the last reading and its end is lost.
func (t *traffic) sum(links []link) linkCounts {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := map[string]linkCounts{}
	for _, l := range links {
		if !isPodDevice(l.name) {
			continue
		}
		now[l.name] = l.counts
		before, was := t.pods[l.name]
		if !t.known {
			continue
		}
		for direction, counts := range l.counts {
			had := before[direction]
			if !was || counts.packets < had.packets { // a new one of the same name
				had = linkCount{}
			}
			sum := &t.sums[1-direction] // the host's end receives what the pod transmits
			sum.bytes += counts.bytes - had.bytes
			sum.packets += counts.packets - had.packets
			sum.dropped += counts.dropped - min(had.dropped, counts.dropped)
		}
	}
	t.pods, t.known = now, true
	return t.sums
}
