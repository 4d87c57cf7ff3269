package agent

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/model"
)

// CHECK finds whatever is not as ADD left it, on both sides.
func TestCheck(t *testing.T) {
	needNode(t)
	a := start(t, newCluster("10.244.1.0/24", "fd00:10:244:1::/64"), t.TempDir())
	ctx, list := context.Background(), a.list(t, "1.1.0")
	device := func(name string) netlink.Link { return linkOf(t, deviceName(keyOf(name))) }
	inPod := func(change func(pod netlink.Link) error) func(*pod, netlink.Link) error {
		return func(p *pod, _ netlink.Link) error {
			return inside(p.netns, func() error {
				link, err := netlink.LinkByName("eth0")
				if err != nil {
					return err
				}
				return change(link)
			})
		}
	}
	route := func(prefix string) *netlink.Route {
		return &netlink.Route{Dst: network(netip.MustParsePrefix(prefix))}
	}
	for name, test := range map[string]struct {
		change func(p *pod, host netlink.Link) error
		says   string
	}{
		"host-down": {func(_ *pod, host netlink.Link) error { return netlink.LinkSetDown(host) }, "is down"},
		"alias":     {func(_ *pod, host netlink.Link) error { return netlink.LinkSetAlias(host, "mine") }, `has the alias "mine"`},
		"group":     {func(_ *pod, host netlink.Link) error { return netlink.LinkSetGroup(host, 0) }, "in the group 0, not 175"},
		"host-mac": {func(_ *pod, host netlink.Link) error {
			return netlink.LinkSetHardwareAddr(host, net.HardwareAddr{2, 0, 0, 0, 0, 1})
		}, "has the MAC address 02:00:00:00:00:01"},
		"gateway": {func(_ *pod, host netlink.Link) error {
			return netlink.AddrDel(host, address(gateways[model.IPv4]))
		}, "lacks the address 169.254.1.1/32"},
		"host-neighbour": {func(_ *pod, host netlink.Link) error {
			found, err := netlink.NeighList(host.Attrs().Index, netlink.FAMILY_V4)
			if err == nil {
				err = netlink.NeighDel(&found[0])
			}
			return err
		}, "is not a permanent neighbour"},
		"host-route": {func(_ *pod, host netlink.Link) error {
			found, err := netlink.RouteList(host, netlink.FAMILY_V4)
			for _, r := range found {
				if err == nil && prefixOf(*r.Dst).Addr() != gateways[model.IPv4].Addr() {
					err = netlink.RouteDel(&r)
				}
			}
			return err
		}, "on the node: there is no route to 10.244.1."},
		"pod-down": {inPod(netlink.LinkSetDown), "in the pod: eth0 is down"},
		"pod-mac": {inPod(func(link netlink.Link) error {
			return netlink.LinkSetHardwareAddr(link, net.HardwareAddr{2, 0, 0, 0, 0, 1})
		}), "in the pod: eth0 has the MAC address 02:00:00:00:00:01"},
		"pod-default4": {inPod(func(netlink.Link) error { return netlink.RouteDel(route("0.0.0.0/0")) }), "there is no route to 0.0.0.0/0 by eth0"},
		"pod-default6": {inPod(func(netlink.Link) error { return netlink.RouteDel(route("::/0")) }), "there is no route to ::/0 by eth0"},
		"pod-renamed": {inPod(func(link netlink.Link) error {
			must(t, netlink.LinkSetDown(link))
			return netlink.LinkSetName(link, "eth9")
		}), "there is no eth0"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPod(t, name)
			_, err := a.cni.AddNetworkList(ctx, list, p.conf)
			must(t, err)
			must(t, a.cni.CheckNetworkList(ctx, list, p.conf))
			must(t, test.change(p, device(name)))
			err = a.cni.CheckNetworkList(ctx, list, p.conf)
			// The agent mends the host's side; it may have been faster, or halfway.
			said := func() bool { return err != nil && strings.Contains(err.Error(), test.says) }
			for began := time.Now(); !said() && time.Since(began) < 10*time.Second; {
				if err == nil {
					must(t, test.change(p, device(name)))
				}
				err = a.cni.CheckNetworkList(ctx, list, p.conf)
			}
			if !said() {
				t.Errorf("got %v", err)
			}
			must(t, a.cni.DelNetworkList(ctx, list, p.conf))
		})
	}
}

// CHECK compares with what the runtime was told.
func TestCheckOfPrevResult(t *testing.T) {
	needNode(t)
	a := start(t, newCluster("10.244.1.0/24"), t.TempDir())
	p := newPod(t, "told")
	if reply := a.ask(t, request("ADD", "told"), p.netns); reply.Error != nil {
		t.Fatal(reply.Error)
	}
	_, mac := hardware(keyOf("told"))
	good := `{"cniVersion": "1.0.0", "interfaces": [{"name": "ifb"}, {"name": "eth0", "mac": "` + mac.String() + `", "sandbox": "/x"}],
		"ips": [{"interface": 1, "address": "10.244.1.1/32"}]}`
	for _, test := range []struct{ result, says string }{
		{good, ""},
		{strings.Replace(good, "10.244.1.1", "10.244.1.9", 1), "was not told that eth0 has the address 10.244.1.1"},
		{strings.Replace(good, mac.String(), "02:00:00:00:00:01", 1), "was told that eth0 has the MAC address 02:00:00:00:00:01"},
		{strings.Replace(good, `"sandbox"`, `"box"`, 1), "was told of no eth0"},
		{`{}`, "was told of no eth0"},
		{`null`, "cannot read prevResult"},
		{`7`, "cannot read prevResult"},
	} {
		check := request("CHECK", "told")
		check.Config = []byte(`{"cniVersion": "1.0.0", "prevResult": ` + test.result + `}`)
		reply := a.ask(t, check, p.netns)
		if (reply.Error == nil) != (test.says == "") || reply.Error != nil && !strings.Contains(reply.Error.Error(), test.says) {
			t.Errorf("%s: %v", test.result, reply.Error)
		}
	}
}
