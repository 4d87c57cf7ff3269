package hop

import (
	"net"
	"net/netip"
	"testing"

	rtnl "github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/observe/trace"
)

// TestFallbackTunnel: where the module ipip is loaded, each namespace has a device
// tunl0, which receives what no other device does, if it is up.
func TestFallbackTunnel(t *testing.T) {
	own := net.IP{172, 30, 2, 13}
	device := func(name string, local net.IP, flags net.Flags) rtnl.Link {
		return &rtnl.Iptun{LinkAttrs: rtnl.LinkAttrs{Name: name, Flags: flags, NetNsID: -1}, Local: local}
	}
	question := trace.Question{Enter: trace.Enter{By: trace.ByIPIP, At: netip.AddrFrom4([4]byte(own))}}
	for name, test := range map[string]struct {
		links []rtnl.Link
		want  string
	}{
		"tunl0 is down":                {[]rtnl.Link{device("tunl0", nil, 0), device("fairlead-ipip", own, net.FlagUp)}, "fairlead-ipip"},
		"both are up":                  {[]rtnl.Link{device("tunl0", nil, net.FlagUp), device("fairlead-ipip", own, net.FlagUp)}, "fairlead-ipip"},
		"ours is down":                 {[]rtnl.Link{device("tunl0", nil, net.FlagUp), device("fairlead-ipip", own, 0)}, "tunl0"},
		"both are down":                {[]rtnl.Link{device("tunl0", nil, 0), device("fairlead-ipip", own, 0)}, "fairlead-ipip"},
		"another of another address":   {[]rtnl.Link{device("other", net.IP{172, 30, 2, 99}, net.FlagUp), device("fairlead-ipip", own, 0)}, "fairlead-ipip"},
		"ours is gone, tunl0 is there": {[]rtnl.Link{device("tunl0", nil, 0)}, "tunl0"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := (&reader{links: test.links}).enter(question); got == nil || got.Name != test.want {
				t.Errorf("it comes by %+v, want %s", got, test.want)
			}
		})
	}
}
