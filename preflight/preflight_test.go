package preflight

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
)

func good() *NodeFacts {
	return &NodeFacts{Kernel: "6.1.0-30-amd64", Root: true, Uplink: "eth0", MTU: 1500, FreeBytes: 1 << 30}
}

// only returns the findings of a check that are not OK.
func only(findings []Finding, check string) (found []Finding) {
	for _, f := range findings {
		if f.Check == check && f.Level != OK {
			found = append(found, f)
		}
	}
	return found
}

func TestNode(t *testing.T) {
	if findings := Node(good()); Worst(findings) != OK || len(findings) < 10 {
		t.Fatalf("of a node that is well: %+v", findings)
	}
	for _, c := range []struct {
		name  string
		edit  func(*NodeFacts)
		check string
		level Level
		says  string
	}{
		{"old kernel", func(f *NodeFacts) { f.Kernel = "5.4.0-1" }, "kernel", Fail, "5.4.0-1"},
		{"no nftables", func(f *NodeFacts) { f.Missing = "NAT in tables of the family inet (Linux 5.2)" }, "nftables", Fail, "Linux 5.2"},
		{"no veth", func(f *NodeFacts) { f.NoLink = []string{"veth"} }, "veth", Fail, "veth"},
		{"no vxlan", func(f *NodeFacts) { f.NoLink = []string{"vxlan"} }, "vxlan", Warn, "VXLAN"},
		{"no root", func(f *NodeFacts) { f.Root = false }, "root", Warn, "root"},
		{"read-only sysctls", func(f *NodeFacts) { f.SysctlsFixed = true }, "sysctl", Fail, "/proc/sys/net"},
		{"Docker", func(f *NodeFacts) { f.Drops = []model.ForwardChain{{Family: "ip", Table: "filter", Chain: "FORWARD"}} }, "firewall", Warn, "ip filter FORWARD"},
		{"firewalld", func(f *NodeFacts) { f.Drops = []model.ForwardChain{{Family: "inet", Table: "firewalld", Chain: "f"}} }, "firewall", Warn, "firewalld"},
		{"ufw of iptables-legacy", func(f *NodeFacts) { f.Legacy = []string{"iptables-legacy -S FORWARD"} }, "firewall", Warn, "iptables-legacy"},
		{"small MTU", func(f *NodeFacts) { f.MTU = 1300 }, "uplink", Warn, "1300"},
		{"the only address on lo", func(f *NodeFacts) { f.Bare = []netip.Addr{netip.MustParseAddr("192.0.2.9")} }, "address", Fail, "192.0.2.9 is on lo"},
		{"an address on lo", func(f *NodeFacts) { f.Bare, f.OnUplink = []netip.Addr{netip.MustParseAddr("2001:db8::9")}, true }, "address", Warn, "2001:db8::9 is on lo"},
		{"firewalls not read", func(f *NodeFacts) { f.Unread = map[string]error{"firewall": errors.New("odd")} }, "firewall", Warn, "odd"},
		{"routes not read", func(f *NodeFacts) { f.Uplink, f.Unread = "", map[string]error{"uplink": errors.New("odd")} }, "uplink", Warn, "odd"},
		{"disk not read", func(f *NodeFacts) { f.FreeBytes, f.Unread = 0, map[string]error{"disk": errors.New("odd")} }, "disk", Warn, "odd"},
		{"Cilium", func(f *NodeFacts) { f.Interfaces = []string{"lxc0a1b2c3d4e5f", "lxcbr0"} }, "network", Warn, "Cilium has made lxc0a1b2c3d4e5f"},
		{"no uplink", func(f *NodeFacts) { f.Uplink = "" }, "uplink", Warn, "default route"},
		{"flannel", func(f *NodeFacts) { f.Interfaces = []string{"eth0", "flannel.1", "cni0"} }, "network", Warn, "flannel has made flannel.1, cni0"},
		{"Calico", func(f *NodeFacts) { f.Interfaces = []string{"cali12345678901"} }, "network", Warn, "Calico"},
		{"first configuration", func(f *NodeFacts) { f.Configs = []string{"/etc/cni/net.d/00-multus.conf"} }, "cni", Fail, "00-multus.conf"},
		{"later configuration", func(f *NodeFacts) { f.Configs = []string{"/etc/cni/net.d/10-flannel.conflist"} }, "cni", Warn, "10-flannel"},
		{"health port", func(f *NodeFacts) { f.Ports = []Port{{"tcp", 9811}} }, "ports", Fail, "9811 of TCP"},
		{"port of probes", func(f *NodeFacts) { f.Ports = []Port{{"udp", 9815}} }, "ports", Warn, "9815 of UDP"},
		{"VXLAN port", func(f *NodeFacts) { f.Ports = []Port{{"udp", 4789}} }, "ports", Warn, "4789 of UDP"},
		{"full disk", func(f *NodeFacts) { f.FreeBytes = 1 << 20 }, "disk", Fail, "1 MiB"},
		{"read-only disk", func(f *NodeFacts) { f.ReadOnly = true }, "disk", Fail, "read-only"},
		{"/run on disk", func(f *NodeFacts) { f.RunOnDisk = true }, "run", Warn, "tmpfs"},
		{"clock", func(f *NodeFacts) { f.Unsynced = true }, "time", Warn, "clock"},
	} {
		facts := good()
		c.edit(facts)
		findings := Node(facts)
		found := only(findings, c.check)
		if len(found) != 1 || found[0].Level != c.level || !strings.Contains(found[0].What, c.says) || found[0].Why == "" || found[0].Next == "" {
			t.Errorf("%s: %+v, want %s that says %q, why and what next", c.name, found, c.level, c.says)
		}
		if Worst(findings) != c.level {
			t.Errorf("%s: the worst is %s, want %s", c.name, Worst(findings), c.level)
		}
	}
	strangers := good() // a bridge of LXC, and what is there wherever the module ipip is loaded
	strangers.Interfaces = []string{"eth0", "lxcbr0", "tunl0"}
	if findings := Node(strangers); Worst(findings) != OK {
		t.Errorf("of what is no network of a cluster: %+v", only(findings, "network"))
	}
	ours := good()
	ours.Configs, ours.Ports = []string{"/etc/cni/net.d/05-fairlead.conflist"}, []Port{{"tcp", 9811}}
	if findings := Node(ours); Worst(findings) != OK {
		t.Errorf("where Fairlead is: %+v", findings)
	}
}

func TestCluster(t *testing.T) {
	node := func(name, address string, ranges ...string) kube.NodeSurvey {
		n := &model.Node{Name: name, Addresses: []netip.Addr{netip.MustParseAddr(address)}}
		for _, prefix := range ranges {
			n.PodCIDRs = append(n.PodCIDRs, netip.MustParsePrefix(prefix))
		}
		return kube.NodeSurvey{Node: n, OS: "linux", Kernel: "6.1.0"}
	}
	fine := func() *kube.Survey {
		return &kube.Survey{Version: "v1.36.3", KubeProxy: "nftables", Nodes: []kube.NodeSurvey{
			node("a", "192.0.2.1", "10.244.0.0/24"), node("b", "192.0.2.2", "10.244.1.0/24"),
		}}
	}
	if findings := Cluster(fine()); Worst(findings) != OK {
		t.Fatalf("of a cluster that is well: %+v", findings)
	}
	for _, c := range []struct {
		name  string
		edit  func(*kube.Survey)
		check string
		level Level
		says  string
	}{
		{"old", func(s *kube.Survey) { s.Version = "v1.29.9" }, "kubernetes", Fail, "v1.29.9"},
		{"old kernel", func(s *kube.Survey) { s.Nodes[1].Kernel = "4.19.0" }, "kernel", Fail, "b (4.19.0)"},
		{"Windows", func(s *kube.Survey) { s.Nodes[1].OS = "windows" }, "os", Warn, "b"},
		{"no range", func(s *kube.Survey) { s.Nodes[1] = node("b", "192.0.2.2") }, "ranges", Fail, "node b spec.podCIDRs"},
		{"one range", func(s *kube.Survey) { s.Nodes[1] = node("b", "192.0.2.2", "10.244.0.0/24") }, "ranges", Fail, "10.244.0.0/24 is the range of several nodes"},
		{"nodes in a range", func(s *kube.Survey) { s.Nodes[1] = node("b", "192.0.2.2", "192.0.2.0/24") }, "ranges", Fail, "has the address of node a"},
		{"Calico", func(s *kube.Survey) { s.DaemonSets = []string{"kube-system/calico-node"} }, "network", Fail, "Calico runs (DaemonSet kube-system/calico-node)"},
		{"kube-proxy in mode ipvs", func(s *kube.Survey) { s.KubeProxy = "ipvs" }, "services", Warn, "ipvs"},
		{"rights", func(s *kube.Survey) { s.Lacking = []string{"create daemonsets.apps kube-system"} }, "rights", Fail, "daemonsets.apps"},
	} {
		survey := fine()
		c.edit(survey)
		found := only(Cluster(survey), c.check)
		if len(found) == 0 || found[0].Level != c.level || !strings.Contains(found[0].What, c.says) || found[0].Why == "" || found[0].Next == "" {
			t.Errorf("%s: %+v, want %s that says %q, why and what next", c.name, found, c.level, c.says)
		}
	}
	for _, address := range []string{"192.0.2.0/24", "10.244.0.0/24"} { // of nodes, and of another's pods
		survey := fine()
		survey.Nodes[1] = node("b", "192.0.2.2", address)
		for _, found := range only(Cluster(survey), "ranges") {
			if !strings.Contains(found.Next, "drain it, kubectl delete node NODE, then restart its kubelet") {
				t.Errorf("a kubelet that runs does not register again, and the remedy is to %s", found.Next)
			}
		}
	}
	away := fine() // a node without an agent has nothing that an agent needs
	away.Nodes[1].Kernel, away.Nodes[1].NoAgent = "4.19.0", true
	away.Nodes[1].Node = &model.Node{Name: "b", Labels: model.LabelsOf(map[string]string{"fairlead.io/agent": "none"})}
	windows := node("c", "192.0.2.3", "10.244.2.0/24")
	windows.OS = "windows"
	away.Nodes = append(away.Nodes, windows)
	findings := Cluster(away)
	if Worst(findings) != Warn || !slices.ContainsFunc(findings, func(f Finding) bool { return f.What == "3, 1 of which get an agent" }) {
		t.Errorf("of nodes without agents: %+v", findings)
	}
}

// TestReadRoutes reads the uplinks of networks as there are.
func TestReadRoutes(t *testing.T) {
	const links = `
		ip link set lo up
		ip link add eth0 mtu 9000 type veth peer name peer0; ip link set eth0 up; ip link set peer0 up
		ip link add eth1 mtu 1500 type veth peer name peer1; ip link set eth1 up; ip link set peer1 up`
	for _, test := range []struct {
		name, script string
		want         NodeFacts
	}{
		{"usual", "ip addr add 192.0.2.5/24 dev eth0; ip route add default via 192.0.2.1; ip addr add 203.0.113.1/32 dev lo", NodeFacts{Uplink: "eth0", MTU: 9000, OnUplink: true}},
		{"none", "ip addr add 192.0.2.5/24 dev eth0", NodeFacts{}},
		{"several next hops", "ip addr add 192.0.2.5/24 dev eth0; ip addr add 198.51.100.5/24 dev eth1; ip route add default nexthop via 192.0.2.1 nexthop via 198.51.100.1", NodeFacts{Uplink: "eth0, eth1", MTU: 1500, OnUplink: true}},
		{"refused", "ip -6 route add unreachable default", NodeFacts{}},
		{"the address on lo", "ip addr add 192.0.2.5/32 dev lo; ip route add default nexthop via 169.254.0.1 dev eth0 onlink nexthop via 169.254.0.1 dev eth1 onlink",
			NodeFacts{Uplink: "eth0, eth1", MTU: 1500, Bare: []netip.Addr{netip.MustParseAddr("192.0.2.5")}}},
		{"IPv6 on lo", "ip addr add 192.0.2.5/24 dev eth0; ip route add default via 192.0.2.1; ip addr add 2001:db8::5/128 dev lo nodad; ip -6 route add default via fe80::1 dev eth1",
			NodeFacts{Uplink: "eth0", MTU: 9000, OnUplink: true, Bare: []netip.Addr{netip.MustParseAddr("2001:db8::5")}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			netnstest.Enter(t)
			if out, err := exec.Command("sh", "-ec", links+"\n"+test.script).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			var got NodeFacts
			for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
				if err := got.readRoutes(family); err != nil {
					t.Fatal(err)
				}
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("read %+v, want %+v", got, test.want)
			}
		})
	}
}

// TestUnreadable: what cannot be looked at does not keep the rest from being told.
func TestUnreadable(t *testing.T) {
	facts, err := ReadNode(filepath.Join(t.TempDir(), "absent"), filepath.Join(os.Args[0], "no-directory"))
	if err != nil || facts.Kernel == "" || len(facts.Interfaces) == 0 || facts.Unread["disk"] == nil || facts.Unread["cni"] == nil {
		t.Errorf("read %+v, %v", facts, err)
	}
}

func TestOlder(t *testing.T) {
	for _, c := range []struct {
		version, than string
		want          bool
	}{
		{"v1.29.9", "1.30", true}, {"v1.30.0", "1.30", false}, {"v2.0.0", "1.30", false}, {"1.9", "1.30", true},
		{"5.4.0-1-amd64", "5.10", true}, {"5.10.0", "5.10", false}, {"6.18+", "5.10", false}, {"", "5.10", false}, {"gibberish", "5.10", false},
	} {
		if got := older(c.version, c.than); got != c.want {
			t.Errorf("older(%q, %q) is %t", c.version, c.than, got)
		}
	}
}

// TestReadPorts reads what Linux writes.
func TestReadPorts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tcp")
	text := `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2653 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 21862 1
   1: 0100007F:2654 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 21863 1
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := readPorts("tcp", path); !slices.Equal(got, []Port{{"tcp", 9811}}) {
		t.Errorf("read %v", got)
	}
}
