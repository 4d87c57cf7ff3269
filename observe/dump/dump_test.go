package dump

import (
	"encoding/json"
	"net"
	"slices"
	"strings"
	"testing"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestRead: what was put into a kernel is read back, in words that people know.
func TestRead(t *testing.T) {
	netnstest.Enter(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Alias = "up0", "fairlead c eth0 10.0.0.2 default/web"
	uplink := netlink.NewVeth(attrs)
	uplink.PeerName = "wire"
	must(t, netlink.LinkAdd(uplink))
	must(t, netlink.LinkSetAlias(uplink, attrs.Alias))
	must(t, netlink.LinkSetUp(uplink))
	addr, err := netlink.ParseAddr("192.0.2.1/24")
	must(t, err)
	must(t, netlink.AddrAdd(uplink, addr))
	vx := netlink.NewLinkAttrs()
	vx.Name = "fairlead-vx4"
	tunnel := &netlink.Vxlan{LinkAttrs: vx, VxlanId: 4096, Port: 4789, SrcAddr: net.IPv4(192, 0, 2, 1), Learning: false}
	must(t, netlink.LinkAdd(tunnel))
	must(t, netlink.LinkSetUp(tunnel))
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	must(t, netlink.NeighAppend(&netlink.Neigh{LinkIndex: tunnel.Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, State: netlink.NUD_PERMANENT, IP: net.IPv4(198, 51, 100, 9), HardwareAddr: mac}))
	must(t, netlink.NeighSet(&netlink.Neigh{LinkIndex: tunnel.Index, State: netlink.NUD_PERMANENT, IP: net.IPv4(10, 244, 1, 0), HardwareAddr: mac}))
	_, to, err := net.ParseCIDR("10.244.1.0/24")
	must(t, err)
	must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: tunnel.Index, Dst: to, Gw: net.IPv4(10, 244, 1, 0), Flags: int(netlink.FLAG_ONLINK), MTU: 1450, Protocol: 175}))
	_, other, err := net.ParseCIDR("10.244.0.0/24")
	must(t, err)
	must(t, netlink.RouteAdd(&netlink.Route{Dst: other, Type: unix.RTN_UNREACHABLE, Protocol: 175}))
	addTables(t)

	k := Read()
	if len(k.Errors) != 0 || len(k.Truncated) != 0 {
		t.Errorf("errors %q, truncated %q", k.Errors, k.Truncated)
	}
	if at := slices.IndexFunc(k.Links, func(l Link) bool { return l.Name == "up0" }); at < 0 || k.Links[at].Alias != attrs.Alias ||
		k.Links[at].Kind != "veth" || !slices.Contains(k.Links[at].Addresses, "192.0.2.1/24") {
		t.Errorf("links are %+v", k.Links)
	}
	if at := slices.IndexFunc(k.Links, func(l Link) bool { return l.Kind == "vxlan" }); at < 0 || k.Links[at].Tunnel["vni"] != "4096" || k.Links[at].Tunnel["local"] != "192.0.2.1" {
		t.Errorf("links are %+v", k.Links)
	}
	for _, want := range []string{"10.244.1.0/24 via 10.244.1.0 dev fairlead-vx4 proto 175 mtu 1450 flags onlink", "10.244.0.0/24 type unreachable proto 175"} {
		if !slices.ContainsFunc(k.Routes, func(r string) bool { return strings.HasPrefix(r, want) }) {
			t.Errorf("%q is not in %q", want, k.Routes)
		}
	}
	for _, want := range []Neighbor{
		{Device: "fairlead-vx4", Address: "10.244.1.0", MAC: mac.String(), State: "permanent"},
		{Device: "fairlead-vx4", Address: "198.51.100.9", MAC: mac.String(), State: "permanent", Bridge: true},
	} {
		if !slices.Contains(k.Neighbors, want) {
			t.Errorf("%+v is not in %+v", want, k.Neighbors)
		}
	}
	if k.Sysctls["net/ipv4/ip_forward"] == "" || k.Sysctls["net/ipv4/conf/up0/rp_filter"] == "" {
		t.Errorf("sysctls are %v", k.Sysctls)
	}
	verifyTables(t, k)
	if _, err := json.Marshal(k); err != nil {
		t.Error(err)
	}
}

// addTables adds ours, and a foreign one that drops what is forwarded.
func addTables(t *testing.T) {
	conn, err := nft.New()
	must(t, err)
	table := conn.AddTable(&nft.Table{Family: nft.TableFamilyINet, Name: ourTable})
	chain := conn.AddChain(&nft.Chain{Table: table, Name: "raw", Type: nft.ChainTypeFilter, Hooknum: nft.ChainHookPrerouting, Priority: nft.ChainPriorityRaw})
	conn.AddRule(&nft.Rule{Table: table, Chain: chain, UserData: userdata.AppendString(nil, userdata.TypeComment, "why"), Exprs: []expr.Any{&expr.Ct{Key: expr.CtKeyPROTODST, Register: 1}, &expr.Counter{Packets: 7}, &expr.Verdict{Kind: expr.VerdictDrop}}})
	must(t, conn.AddSet(&nft.Set{Table: table, Name: "pods4", KeyType: nft.TypeIPAddr}, []nft.SetElement{{Key: []byte{10, 244, 0, 1}}}))
	foreign := conn.AddTable(&nft.Table{Family: nft.TableFamilyIPv4, Name: "filter"})
	policy := nft.ChainPolicyDrop
	drops := conn.AddChain(&nft.Chain{Table: foreign, Name: "FORWARD", Type: nft.ChainTypeFilter, Hooknum: nft.ChainHookForward, Priority: nft.ChainPriorityFilter, Policy: &policy})
	conn.AddRule(&nft.Rule{Table: foreign, Chain: drops, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}})
	must(t, conn.Flush())
}

func verifyTables(t *testing.T, k *Kernel) {
	text, err := json.Marshal(k.Tables)
	must(t, err)
	for _, want := range []string{
		`"comment":"why"`, `Packets:7} (Counter)`, `"elements":["0af40001"]`,
		`{"family":"ip","name":"filter","chains":[{"name":"FORWARD","type":"filter","hook":"forward","policy":"drop"}]}`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s is not in %s", want, text)
		}
	}
}
