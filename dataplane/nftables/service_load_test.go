package nftables

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	nft "github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

// TestServicesUnderLoad changes the endpoints of Services as fast as it can,
// while packets begin connections to them as fast as they can. Each arrives at
// an endpoint: no lookup misses what is replaced under it.
func TestServicesUnderLoad(t *testing.T) { changeServicesUnderLoad(t, fewEndpoints, 0) }

// TestServicesGrowUnderLoad: the same, while Services have as many endpoints as none had
// before, for which there is no chain yet.
func TestServicesGrowUnderLoad(t *testing.T) { changeServicesUnderLoad(t, moreEndpoints, 0) }

// TestServicesReplacedUnderLoad: the same, while processes end and others start,
// each of which makes the table anew.
func TestServicesReplacedUnderLoad(t *testing.T) { changeServicesUnderLoad(t, fewEndpoints, 3) }

// endpointsOf says how many endpoints there are after a change, and how many of them
// are ready.
type endpointsOf struct {
	all   int
	ready func(change int) int
}

var (
	fewEndpoints  = endpointsOf{8, func(change int) int { return 2 + change%4 }}
	moreEndpoints = endpointsOf{250, func(change int) int { return 1 + change%250 }}
)

// changeServicesUnderLoad begins with another process after so many changes; 0:
// never.
func changeServicesUnderLoad(t *testing.T, endpoints endpointsOf, life int) {
	space := netnstest.Enter(t)
	others := 0
	if life > 0 {
		others = 1000 // so that the kernel is some time at it
	}
	snapshot := manyServices(others, 10)
	snapshot.Nodes = snapshot.Nodes.With("self", &model.Node{
		Name: "self", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		// The senders are pods, who keep their ports: two that were given the same
		// one at the same moment would lose a packet (see translate).
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")},
	})
	for _, affinity := range []uint32{0, 600} {
		s := &model.Service{
			ServiceKey: model.ServiceKey{Namespace: "default", Name: fmt.Sprint("stays-", affinity)}, Affinity: affinity,
			ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, 0, byte(1 + affinity/600)})},
			Ports:      []model.ServicePort{{Protocol: model.UDP, Port: 80}},
		}
		snapshot.Services = snapshot.Services.With(s.ServiceKey, s)
	}
	plane, node := New(), plan.Compute(nil, endpoints.with(snapshot, 0), "self")
	apply(t, plane, node)
	endpoints.add(t) // now that the kernel tracks connections, whose settings a module brings

	var sent, received atomic.Int64
	stop := make(chan struct{})
	done := make(chan struct{}, 3)
	servers := []*net.UDPConn{hear(t, 9000, &received), hear(t, 9600, &received)}
	for worker := range 2 {
		go func() {
			defer func() { done <- struct{}{} }()
			space.Do(func() { shout(t, stop, netip.AddrFrom4([4]byte{10, 96, 0, byte(1 + worker)}), &sent) })
		}()
	}
	missed, masqueraded, changes, start := uint64(0), uint64(0), 0, time.Now()
	look := func() {
		missed += met(t, plane, "Service whose targets were not found")
		masqueraded += met(t, plane, "Service, with the address of the")
	}
	least := 100
	if life > 0 {
		least = 3 * life // each takes the kernel a while
	}
	enough := func() bool { return changes >= least && sent.Load() >= 1000 && time.Since(start) >= 3*time.Second }
	for ; !enough() && time.Since(start) < 2*time.Minute; changes++ { // an emulator takes long
		if life > 0 && changes%life == life-1 {
			look()
			plane, node = New(), nil
		}
		node = plan.Compute(node, endpoints.with(snapshot, changes), "self")
		apply(t, plane, node)
	}
	close(stop)
	<-done
	<-done
	for deadline := time.Now().Add(10 * time.Second); received.Load() < sent.Load() && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond) // the kernel tells nobody that a datagram was lost
	}
	for _, server := range servers {
		must(t, server.Close())
	}
	if look(); missed != 0 {
		t.Errorf("%d packets found no target", missed)
	}
	if masqueraded != 0 {
		t.Errorf("%d connections of pods were given the node's address", masqueraded)
	}
	t.Logf("%d packets, %d changes", sent.Load(), changes)
	if !enough() {
		t.Errorf("there were only %d packets and %d changes", sent.Load(), changes)
	}
	if lost, others := sent.Load()-received.Load(), lostElsewhere(t); lost > others {
		t.Errorf("%d of %d packets were lost in %d changes, %d of them before or after the rules", lost, sent.Load(), changes, others)
	} else if lost != 0 {
		t.Logf("%d packets were lost before or after the rules", lost)
	}
}

// TestChainsComeAhead: a chain for a number of endpoints that no Service had before is
// there, in a transaction of its own, before an element leads to it.
func TestChainsComeAhead(t *testing.T) {
	space := netnstest.Enter(t)
	snapshot := &model.Snapshot{Network: model.DefaultNetwork(), PoliciesKnown: true}
	snapshot.Nodes = snapshot.Nodes.With("self", &model.Node{Name: "self", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}})
	key := model.ServiceKey{Namespace: "default", Name: "stays-one"}
	snapshot.Services = snapshot.Services.With(key, &model.Service{
		ServiceKey: key, ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.1")}, Ports: []model.ServicePort{{Protocol: model.UDP, Port: 80}},
	})
	plane, endpoints := New(), endpointsOf{4, func(change int) int { return change }}
	node := plan.Compute(nil, endpoints.with(snapshot, 1), "self")
	apply(t, plane, node)

	ctx, cancel := context.WithCancel(t.Context())
	listens, transactions, ended := make(chan struct{}), make(chan map[int]bool), make(chan error, 1)
	space.Go(func() {
		kinds := map[int]bool{} // of messages of a transaction
		ended <- listen(ctx, func(e event) {
			switch {
			case e.begins:
				close(listens)
			case e.ends:
				transactions <- kinds
				kinds = map[int]bool{}
			default:
				kinds[e.kind] = true
			}
		})
	})
	<-listens
	apply(t, plane, plan.Compute(node, endpoints.with(snapshot, 2), "self"))
	if first := <-transactions; !first[unix.NFT_MSG_NEWCHAIN] || first[unix.NFT_MSG_DELSETELEM] {
		t.Errorf("the first transaction has messages of kinds %v, want a chain and no change of what a Service is", first)
	} else if second := <-transactions; second[unix.NFT_MSG_NEWCHAIN] || !second[unix.NFT_MSG_DELSETELEM] {
		t.Errorf("the second transaction has messages of kinds %v, want another class of a Service", second)
	}
	cancel()
	must(t, <-ended)
}

// met counts the packets that met a rule whose comment begins so.
func met(t *testing.T, plane *Plane, rule string) (packets uint64) {
	counters, err := plane.Counters()
	must(t, err)
	for _, counter := range counters {
		if strings.HasPrefix(counter.Rule, rule) {
			packets += counter.Packets
		}
	}
	return packets
}

// lostElsewhere is how many packets this network namespace has lost to what has
// nothing to do with rules: a connection whose port is used anew in the moment in
// which the kernel forgets the one before (insert_failed), and queues of the
// loopback interface and of sockets that a busy machine lets overflow.
func lostElsewhere(t *testing.T) int64 {
	var lost int64
	table, err := os.ReadFile("/proc/thread-self/net/stat/nf_conntrack") // a line for each CPU, in hexadecimal
	must(t, err)
	lines := strings.Split(strings.TrimSpace(string(table)), "\n")
	column := slices.Index(strings.Fields(lines[0]), "insert_failed")
	for _, line := range lines[1:] {
		failed, err := strconv.ParseInt(strings.Fields(line)[column], 16, 64)
		must(t, err)
		lost += failed
	}
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	lost += int64(lo.Attrs().Statistics.RxDropped)
	snmp, err := os.ReadFile("/proc/thread-self/net/snmp")
	must(t, err)
	_, udp, _ := strings.Cut(string(snmp), "\nUdp: ") // a line of names, and one of values
	names, values, _ := strings.Cut(udp, "\nUdp: ")
	full, err := strconv.ParseInt(strings.Fields(values)[slices.Index(strings.Fields(names), "RcvbufErrors")], 10, 64)
	must(t, err)
	return lost + full
}

// add gives the loopback interface the endpoints, and the Services a way.
func (e endpointsOf) add(t *testing.T) {
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	for n := range e.all {
		must(t, netlink.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 0, 0, byte(n)), Mask: net.CIDRMask(32, 32)}}))
	}
	must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: &net.IPNet{IP: net.IPv4(10, 96, 0, 0), Mask: net.CIDRMask(16, 32)}}))
	for path, value := range map[string]string{"ipv4/ip_local_port_range": "1024 65535", "netfilter/nf_conntrack_udp_timeout": "1"} {
		must(t, os.WriteFile("/proc/sys/net/"+path, []byte(value), 0))
	}
}

// with has the endpoints after a change, of which some are always others. All serve,
// so that no connection is forgotten.
func (e endpointsOf) with(snapshot *model.Snapshot, change int) *model.Snapshot {
	next := *snapshot
	for service, s := range snapshot.Services.All() {
		if !strings.HasPrefix(service.Name, "stays-") {
			continue
		}
		slice := &model.EndpointSlice{
			SliceKey: model.SliceKey(service), Service: service.Name, Ports: []model.EndpointPort{{Protocol: model.UDP, Port: 9000 + uint16(s.Affinity)}},
		}
		for n := range e.all {
			slice.Endpoints = append(slice.Endpoints, model.Endpoint{
				Address: netip.AddrFrom4([4]byte{10, 0, 0, byte((change/3 + n) % e.all)}), Ready: n < e.ready(change), Serving: true,
			})
		}
		next.Slices = next.Slices.With(slice.SliceKey, slice)
	}
	return &next
}

// hear counts what arrives at a port of all endpoints.
func hear(t *testing.T, port int, received *atomic.Int64) *net.UDPConn {
	server, err := net.ListenUDP("udp4", &net.UDPAddr{Port: port})
	must(t, err)
	raw, err := server.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 256<<20)
	}))
	must(t, err)
	go func() {
		for buffer := make([]byte, 16); ; received.Add(1) {
			if _, _, err := server.ReadFromUDPAddrPort(buffer); err != nil {
				return
			}
		}
	}()
	return server
}

// shout begins connections, each from a new socket.
func shout(t *testing.T, stop <-chan struct{}, to netip.Addr, sent *atomic.Int64) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
			return
		}
		err = unix.Sendto(socket, []byte{1}, 0, &unix.SockaddrInet4{Addr: to.As4(), Port: 80})
		_ = unix.Close(socket)
		if err != nil && !errors.Is(err, unix.EPERM) { // that is one that the rules drop, which is lost
			t.Error(err)
			return
		}
		sent.Add(1)
	}
}

// TestManyServicesAreNoDisturbance: the notifications of our own large
// transactions are not taken for a loss, which would have the table replaced, and
// so for ever.
func TestManyServicesAreNoDisturbance(t *testing.T) {
	space := netnstest.Enter(t)
	plane := New()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	space.Go(func() { ended <- plane.Run(ctx) })
	services := 5_000
	if testing.Short() {
		services = 500 // an emulator takes minutes for all
	}
	snapshot := manyServices(services, 50)
	apply(t, plane, plan.Compute(nil, snapshot, "node0"))
	apply(t, plane, plan.Compute(nil, &model.Snapshot{Network: snapshot.Network, Nodes: snapshot.Nodes, PoliciesKnown: true}, "node0"))
	conn := &nft.Conn{}
	conn.AddTable(&nft.Table{Family: nft.TableFamilyINet, Name: "other"})
	must(t, conn.Flush())
	select {
	case <-plane.Disturbed():
		t.Error("the plane was disturbed by itself")
	case <-time.After(3 * time.Second): // there is nothing that it says if all is well
	}
	cancel()
	must(t, <-ended)
}
