package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/cni"
	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
)

// pod is a network namespace and what the runtime says of it.
type pod struct {
	netns *os.File
	conf  *libcni.RuntimeConf
}

func newPod(t testing.TB, name string) *pod {
	t.Helper()
	// The file is not the namespace's own, so that both may be closed.
	handle := netnstest.New(t).Handle
	netns, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", int(handle)))
	must(t, err)
	t.Cleanup(func() { netns.Close() })
	return &pod{netns, &libcni.RuntimeConf{
		ContainerID: name, IfName: "eth0", NetNS: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), netns.Fd()),
		Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "default"}, {"K8S_POD_NAME", name}},
	}}
}

func (p *pod) addresses(t testing.TB, result types.Result) (addrs []netip.Addr) {
	t.Helper()
	full, err := types100.GetResult(result)
	must(t, err)
	for _, ip := range full.IPs {
		addrs = append(addrs, prefixOf(ip.Address).Addr())
	}
	return addrs
}

// dial connects from the pod at once: what ADD has returned must work.
func (p *pod) dial(to string) error {
	return inside(p.netns, func() error {
		conn, err := net.DialTimeout("tcp", to, time.Second)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// listen accepts connections in the pod until the test ends.
func (p *pod) listen(t testing.TB, at netip.Addr) string {
	t.Helper()
	var listener net.Listener
	must(t, inside(p.netns, func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(at, 0).String())
		return err
	}))
	t.Cleanup(func() { listener.Close() })
	go accept(listener)
	return listener.Addr().String()
}

func accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		conn.Close()
	}
}

// verifyNeighbors: a pod and its node need not ask for each other.
func verifyNeighbors(t *testing.T, p *pod) {
	t.Helper()
	permanent := func() (found int) {
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			neighbors, err := netlink.NeighList(0, family)
			must(t, err)
			for _, neighbor := range neighbors {
				if neighbor.State == netlink.NUD_PERMANENT {
					found++
				}
			}
		}
		return found
	}
	if on := permanent(); on < 2 {
		t.Errorf("the node has %d permanent neighbours, want 2 of the pod", on)
	}
	must(t, inside(p.netns, func() error {
		if on := permanent(); on != 2 {
			t.Errorf("the pod has %d permanent neighbours, want its gateways", on)
		}
		gateways, err := netlink.NeighList(0, netlink.FAMILY_V6)
		must(t, err)
		for _, gateway := range gateways {
			if gateway.State == netlink.NUD_PERMANENT && gateway.Flags&netlink.NTF_ROUTER == 0 {
				t.Errorf("%s is no router for the pod, which forgets the path MTU every half minute", gateway.IP)
			}
		}
		return nil
	}))
}

// Every version of the specification, as libcni of container runtimes drives it.
func TestVerbs(t *testing.T) {
	needNode(t)
	cluster := newCluster("10.244.1.0/24", "fd00:10:244:1::/64")
	a := start(t, cluster, t.TempDir())
	ctx := context.Background()
	for _, version := range version.All.SupportedVersions() {
		t.Run(version, func(t *testing.T) {
			list := a.list(t, version)
			if err := a.cni.GetStatusNetworkList(ctx, list); err != nil {
				t.Errorf("STATUS: %v", err)
			}
			one, other := newPod(t, "one"+version), newPod(t, "other"+version)
			result, err := a.cni.AddNetworkList(ctx, list, one.conf)
			must(t, err)
			if result.Version() != version {
				t.Errorf("the result is of version %s", result.Version())
			}
			again, err := a.cni.AddNetworkList(ctx, list, one.conf)
			must(t, err)
			addrs := one.addresses(t, result)
			if len(addrs) != 2 || fmt.Sprint(addrs) != fmt.Sprint(one.addresses(t, again)) {
				t.Fatalf("addresses are %v, then %v", addrs, one.addresses(t, again))
			}
			for _, addr := range addrs {
				reach(t, a, list, other, one, addr)
			}
			if err := a.cni.CheckNetworkList(ctx, list, one.conf); (err != nil) == (version >= "0.4.0") {
				t.Errorf("CHECK: %v", err)
			}
			stale := newPod(t, "stale"+version)
			_, err = a.cni.AddNetworkList(ctx, list, stale.conf)
			must(t, err)
			must(t, a.cni.GCNetworkList(ctx, list, &libcni.GCArgs{ValidAttachments: []types.GCAttachment{
				{ContainerID: one.conf.ContainerID, IfName: "eth0"}, {ContainerID: other.conf.ContainerID, IfName: "eth0"},
			}}))
			if devices := podDevices(t); len(devices) != 2 {
				t.Errorf("after GC there are %v", devices)
			}
			verifyMTU(t, one, 1400)
			verifyNeighbors(t, one)
			must(t, a.cni.DelNetworkList(ctx, list, one.conf))
			must(t, a.cni.DelNetworkList(ctx, list, one.conf))
			must(t, a.cni.DelNetworkList(ctx, list, other.conf))
			if devices := podDevices(t); len(devices) > 0 {
				t.Errorf("left: %v", devices)
			}
		})
	}
}

// reach tries all that must work once ADD has returned: the node and the pod
// reach each other, and pods do.
func reach(t *testing.T, a *testAgent, list *libcni.NetworkConfigList, from, to *pod, addr netip.Addr) {
	t.Helper()
	served := to.listen(t, addr)
	conn, err := net.DialTimeout("tcp", served, time.Second)
	if err != nil {
		t.Errorf("from the node: %v", err)
	} else {
		conn.Close()
	}
	node := "192.0.2.1"
	if addr.Is6() {
		node = "2001:db8::1"
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(node, "0"))
	must(t, err)
	defer listener.Close()
	go accept(listener)
	if err := to.dial(listener.Addr().String()); err != nil {
		t.Errorf("from the pod to the node: %v", err)
	}
	_, err = a.cni.AddNetworkList(context.Background(), list, from.conf)
	must(t, err)
	if err := from.dial(served); err != nil {
		t.Errorf("from pod to pod: %v", err)
	}
}

func verifyMTU(t *testing.T, p *pod, want int) {
	t.Helper()
	must(t, inside(p.netns, func() error {
		link, err := netlink.LinkByName("eth0")
		if err == nil && link.Attrs().MTU != want {
			err = fmt.Errorf("the MTU is %d, want %d", link.Attrs().MTU, want)
		}
		return err
	}))
}

// CHECK, GC and STATUS tell the truth.
func TestCheckGCStatus(t *testing.T) {
	needNode(t)
	a := start(t, newCluster("10.244.1.0/24"), t.TempDir())
	ctx, list := context.Background(), a.list(t, "1.1.0")
	kept, stale := newPod(t, "kept"), newPod(t, "stale")
	for _, p := range []*pod{kept, stale} {
		_, err := a.cni.AddNetworkList(ctx, list, p.conf)
		must(t, err)
	}
	must(t, a.cni.GetStatusNetworkList(ctx, list))
	must(t, a.cni.GCNetworkList(ctx, list, &libcni.GCArgs{ValidAttachments: []types.GCAttachment{
		{ContainerID: "kept", IfName: "eth0"},
	}}))
	if devices := podDevices(t); len(devices) != 1 || devices[0] != deviceName(keyOf("kept")) {
		t.Errorf("after GC there are %v", devices)
	}
	must(t, a.cni.CheckNetworkList(ctx, list, kept.conf))
	must(t, inside(kept.netns, func() error {
		link, err := netlink.LinkByName("eth0")
		must(t, err)
		return netlink.AddrDel(link, address(netip.MustParsePrefix("10.244.1.1/32")))
	}))
	err := a.cni.CheckNetworkList(ctx, list, kept.conf)
	if err == nil || !strings.Contains(err.Error(), "in the pod: eth0 lacks the address 10.244.1.1") {
		t.Errorf("CHECK of a pod without its address: %v", err)
	}
	if err := a.cni.CheckNetworkList(ctx, list, stale.conf); err == nil {
		t.Error("CHECK of a pod that is not connected succeeds")
	}
}

// A pod that cannot be looked at is not taken for one that is not as it was
// made: it stays connected.
func TestPodThatCannotBeLookedAt(t *testing.T) {
	needNode(t)
	a := start(t, newCluster("10.244.1.0/24"), t.TempDir())
	p := newPod(t, "kept")
	if reply := a.ask(t, request("ADD", "kept"), p.netns); reply.Error != nil {
		t.Fatal(reply.Error)
	}
	index := linkOf(t, deviceName(keyOf("kept"))).Attrs().Index
	unusable, err := os.Open("/dev/null")
	must(t, err)
	defer unusable.Close()
	for _, command := range []string{"ADD", "CHECK"} {
		if reply := a.ask(t, request(command, "kept"), unusable); reply.Error == nil || reply.Error.Code == notAsAdded {
			t.Errorf("%s: %v", command, reply.Error)
		}
	}
	if now := linkOf(t, deviceName(keyOf("kept"))).Attrs().Index; now != index {
		t.Errorf("the pod's link is %d, was %d", now, index)
	}
	if err := p.dial("192.0.2.1:1"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the pod reaches the node no more: %v", err)
	}
}

// A pod whose namespace went first is disconnected all the same.
func TestDelWithoutNamespace(t *testing.T) {
	needNode(t)
	a := start(t, newCluster("10.244.1.0/24"), t.TempDir())
	list, p := a.list(t, "1.0.0"), newPod(t, "gone")
	there := p.conf.NetNS
	_, err := a.cni.AddNetworkList(context.Background(), list, p.conf)
	must(t, err)
	for _, namespace := range []string{"", "/run/netns/nowhere", "/etc/hostname"} { // gone, or damaged
		p.conf.NetNS = namespace
		must(t, a.cni.DelNetworkList(context.Background(), list, p.conf))
		if left := attachmentsOf(a); len(left) > 0 {
			t.Errorf("by %q, an address is still held: %v", namespace, left)
		}
		links, err := netlink.LinkList()
		must(t, err)
		for _, link := range links {
			if isPodDevice(link.Attrs().Name) {
				t.Errorf("by %q, left: %s", namespace, link.Attrs().Name)
			}
		}
		p.conf.NetNS = there
		_, err = a.cni.AddNetworkList(context.Background(), list, p.conf)
		must(t, err)
	}
	p.conf.ContainerID, p.conf.NetNS = "never-was", "/run/netns/nowhere"
	must(t, a.cni.DelNetworkList(context.Background(), list, p.conf))
}

// Without an agent, the node stays ready if it was, and ADD waits for one that
// starts.
func TestAgentDownAndStarting(t *testing.T) {
	needNode(t)
	run := t.TempDir()
	gone := start(t, newCluster("10.244.1.0/24"), run)
	list, p, ctx := gone.list(t, "1.1.0"), newPod(t, "early"), context.Background()
	ready := cni.ReadyFile(gone.socket())
	eventually(t, ready, func() bool { _, err := os.Stat(ready); return err == nil })
	if _, err := os.Stat(filepath.Join(gone.config.CNIConfDir, conflist)); err != nil {
		t.Errorf("ready without a configuration: %v", err)
	}
	gone.stop()
	must(t, gone.cni.GetStatusNetworkList(ctx, list))
	must(t, os.Remove(ready)) // as a reboot does
	var said *types.Error
	if err := gone.cni.GetStatusNetworkList(ctx, list); !errors.As(err, &said) || said.Code != types.ErrPluginNotAvailable {
		t.Errorf("STATUS: %v", err)
	}
	added := make(chan error, 1)
	go func() {
		_, err := gone.cni.AddNetworkList(ctx, list, p.conf)
		added <- err
	}()
	a := start(t, newCluster("10.244.1.0/24"), run)
	must(t, <-added)
	must(t, a.cni.DelNetworkList(ctx, list, p.conf))
}

// An agent that starts again knows what it gave out, although nobody told it
// but the kernel.
func TestRestart(t *testing.T) {
	needNode(t)
	run := t.TempDir()
	a := start(t, newCluster("10.244.1.0/28"), run)
	list, ctx := a.list(t, "1.0.0"), context.Background()
	given := map[netip.Addr]*pod{}
	add := func(a *testAgent, name string) *pod {
		p := newPod(t, name)
		result, err := a.cni.AddNetworkList(ctx, list, p.conf)
		must(t, err)
		for _, addr := range p.addresses(t, result) {
			if given[addr] != nil {
				t.Errorf("%s was given out twice", addr)
			}
			given[addr] = p
		}
		return p
	}
	first := add(a, "a")
	add(a, "b")
	a.stop()
	// Of an agent that ended between making a link and labelling it.
	stray := netlink.NewVeth(netlink.LinkAttrs{Name: deviceName(keyOf("stray")), TxQLen: -1})
	stray.PeerName = "stray-peer"
	must(t, netlink.LinkAdd(stray))

	restarted := start(t, newCluster("10.244.1.0/28"), run)
	restarted.cni = a.cni
	add(restarted, "c")
	if devices := podDevices(t); len(devices) != 3 {
		t.Errorf("there are %v", devices)
	}
	must(t, restarted.cni.CheckNetworkList(ctx, a.list(t, "1.0.0"), first.conf))
	for addr, p := range given {
		if err := p.dial("192.0.2.1:1"); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s reaches the node no more: %v", addr, err)
		}
		must(t, restarted.cni.DelNetworkList(ctx, list, p.conf))
	}
	if devices := podDevices(t); len(devices) != 0 {
		t.Errorf("left: %v", devices)
	}
}

// 100 pods come and go at once; no two have the same address at any time.
func TestParallel(t *testing.T) {
	needNode(t)
	a := start(t, newCluster("10.244.1.0/24", "fd00:10:244:1::/64"), t.TempDir())
	var mu sync.Mutex
	held := map[netip.Addr]string{}
	var pods sync.WaitGroup
	began := time.Now()
	for n := range 100 {
		p := newPod(t, fmt.Sprint("p", n))
		pods.Go(func() {
			for range 2 {
				request := cni.Request{Command: "ADD", ContainerID: p.conf.ContainerID, Interface: "eth0", Timeout: time.Minute}
				reply := a.ask(t, request, p.netns)
				if reply.Error != nil {
					t.Errorf("ADD: %v", reply.Error)
					return
				}
				addrs := p.addresses(t, reply.Result)
				mu.Lock()
				for _, addr := range addrs {
					if holder, ok := held[addr]; ok {
						t.Errorf("%s and %s have %s", holder, p.conf.ContainerID, addr)
					}
					held[addr] = p.conf.ContainerID
				}
				mu.Unlock()
				if err := p.dial("192.0.2.1:1"); err == nil || !strings.Contains(err.Error(), "refused") {
					t.Errorf("the node is not reached: %v", err)
				}
				mu.Lock()
				for _, addr := range addrs {
					delete(held, addr)
				}
				mu.Unlock()
				request.Command = "DEL"
				if reply := a.ask(t, request, nil); reply.Error != nil {
					t.Errorf("DEL: %v", reply.Error)
				}
			}
		})
	}
	pods.Wait()
	t.Logf("100 pods came and went twice in %v", time.Since(began))
	if devices := podDevices(t); len(devices) != 0 {
		t.Errorf("left: %v", devices)
	}
	eventually(t, "routes of pods to be gone", func() bool {
		routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
		must(t, err)
		for _, route := range routes {
			if route.Dst != nil && prefixOf(*route.Dst).Bits() == 32 && strings.HasPrefix(route.Dst.String(), "10.244.1.") {
				return false
			}
		}
		return true
	})
}
