package preflight

import (
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// NodeFacts is what a machine is, as far as Fairlead is concerned.
type NodeFacts struct {
	Kernel       string   // such as 6.1.0-30-amd64
	Root         bool     // the rest could be looked at
	Missing      string   // the first feature of nftables that the kernel lacks; empty: none
	NoLink       []string // kinds of network interfaces that the kernel does not make
	SysctlsFixed bool     // /proc/sys/net is read-only
	Interfaces   []string // all names
	Uplink       string   // the interfaces of the default route; empty: none
	MTU          int      // the least of theirs, in bytes
	Configs      []string // CNI configurations in their order
	Ports        []Port   // that are taken
	Drops        []model.ForwardChain
	Legacy       []string         // commands that list what iptables-legacy has; none without its tables
	FreeBytes    uint64           // where state is kept
	ReadOnly     bool             // that place
	RunOnDisk    bool             // /run is no tmpfs
	Unsynced     bool             // the kernel's clock follows no time source
	Bare         []netip.Addr     // on lo or dummies, while the uplinks have none of their family
	OnUplink     bool             // uplinks have an address of the other family
	Unread       map[string]error // by the check that they are for: why facts are missing
}

// Port is a port that a socket has.
type Port struct {
	Protocol string // tcp or udp
	Number   uint16
}

// predecessors begin the names of interfaces that other networks make.
var predecessors = map[string]string{
	"flannel": "flannel", "cni0": "flannel", "cali": "Calico", "vxlan.calico": "Calico",
	"cilium": "Cilium", "lxc": "Cilium", "weave": "Weave", "kube-bridge": "kube-router", "antrea-gw": "Antrea",
	"ovn-k8s": "OVN-Kubernetes", "eni": "the AWS VPC CNI",
}

// bridgeOfLXC begins the names of bridges of LXC, which is no network of a cluster.
const bridgeOfLXC = "lxcbr"

// Node judges a machine.
func Node(f *NodeFacts) []Finding {
	r := &report{}
	for _, check := range slices.Sorted(maps.Keys(f.Unread)) {
		r.add(check, Warn, "this could not be looked at: "+f.Unread[check].Error(), "what may be wrong there is not known", "look at it yourself; the other findings hold")
	}
	if older(f.Kernel, oldestKernel) {
		r.add("kernel", Fail, "the kernel is "+f.Kernel, "Fairlead needs Linux "+oldestKernel+" or newer", "install a newer kernel")
	} else {
		r.ok("kernel", "Linux %s", f.Kernel)
	}
	if !f.Root {
		r.add("root", Warn, "this is not run by root", "what the kernel can do, firewalls and sysctls were not looked at", "run it with sudo")
	} else {
		f.features(r)
		f.firewalls(r)
	}
	f.uplink(r)
	f.others(r)
	f.ports(r)
	f.files(r)
	if f.Unsynced {
		r.add("time", Warn, "the clock follows no time source", "certificates of the API server are refused when it is wrong", "run chrony or systemd-timesyncd")
	} else {
		r.ok("time", "the clock is synchronised")
	}
	return r.findings
}

func (f *NodeFacts) features(r *report) {
	f.modules(r)
	if f.SysctlsFixed {
		r.add("sysctl", Fail, "/proc/sys/net is read-only", "forwarding has to be turned on", "run this on the node, not in a container that is not privileged")
	} else {
		r.ok("sysctl", "/proc/sys/net can be written")
	}
}

func (f *NodeFacts) modules(r *report) {
	if f.Unread["modules"] != nil {
		return
	}
	if f.Missing != "" {
		r.add("nftables", Fail, "the kernel has no "+f.Missing, "masquerade, host ports and anti-spoofing are made of it", "build or load the kernel's modules of nftables (nf_tables, nft_nat, nft_masq, nft_fib_inet)")
	} else {
		r.ok("nftables", "all that is needed")
	}
	for _, kind := range []string{"veth", "vxlan"} {
		switch {
		case !slices.Contains(f.NoLink, kind):
			r.ok(kind, "the kernel makes such interfaces")
		case kind == "veth":
			r.add(kind, Fail, "the kernel makes no veth interfaces", "each pod has one", "build or load its module veth")
		default:
			r.add(kind, Warn, "the kernel makes no VXLAN interfaces", "backend vxlan, the default, does not work for nodes behind a router",
				"build or load its module vxlan, or choose spec.backend: udp, or host-gw if all nodes are on one link")
		}
	}
}

func (f *NodeFacts) firewalls(r *report) {
	for _, chain := range f.Drops {
		why := "what it does not accept is dropped, whatever Fairlead accepts; Fairlead adds a rule to it for pods, unless spec.foreignFirewall is Report or Ignore"
		next := "nothing, or accept forwarded packets there yourself"
		if chain.Family == "inet" {
			why = "what it does not accept is dropped, whatever Fairlead accepts: if it does not accept what pods send and are sent, they reach nothing"
			next = "accept packets from and to the ranges of pods there, if it does not: see docs/firewall.md"
		}
		r.add("firewall", Warn, "the chain "+chain.String()+" drops what is forwarded", why, next)
	}
	if len(f.Legacy) > 0 {
		r.add("firewall", Warn, "there are tables of iptables-legacy, which nft does not list",
			"if they drop what is forwarded, pods reach nothing beyond their node, whatever Fairlead accepts; if they drop nothing, all is well",
			"see whether they do: "+strings.Join(f.Legacy, " and ")+"; if so, use iptables-nft, or accept the pods' packets there: see docs/firewall.md")
	}
	if len(f.Drops) == 0 && len(f.Legacy) == 0 && f.Unread["firewall"] == nil {
		r.ok("firewall", "none drops what is forwarded")
	}
}

// leastMTU leaves 1280 bytes, which IPv6 needs, inside of VXLAN over IPv6.
const leastMTU = 1280 + 70

func (f *NodeFacts) uplink(r *report) {
	if len(f.Bare) > 0 {
		level := Fail
		if f.OnUplink {
			level = Warn // if that is the node's
		}
		r.add("address", level, fmt.Sprintf("%v is on lo or a dummy interface, and %s has no address of that family", f.Bare[0], f.Uplink),
			"if it is the node's address (kubectl get nodes -o wide), no pod is connected, or pods of other nodes are not reached: the interface that has it carries the tunnels",
			fmt.Sprintf("give it to the interface by which the other nodes are reached, too, such as ip address add %v/%d dev %s: see docs/install.md", f.Bare[0], f.Bare[0].BitLen(), strings.Split(f.Uplink, ",")[0]))
	}
	switch {
	case f.Unread["uplink"] != nil && f.Uplink == "":
	case f.Uplink == "":
		r.add("uplink", Warn, "there is no default route", "pods do not reach the outside", "give the node one, if they should")
	case f.MTU < leastMTU:
		r.add("uplink", Warn, fmt.Sprintf("%s has an MTU of %d", f.Uplink, f.MTU), "inside of tunnels less than 1280 bytes may be left, which IPv6 needs", "raise it")
	default:
		r.ok("uplink", "%s with an MTU of %d", f.Uplink, f.MTU)
	}
}

// ourConfig is the CNI configuration of Fairlead's.
const ourConfig = "05-fairlead.conflist"

func (f *NodeFacts) others(r *report) {
	found := map[string][]string{}
	var names []string
	for _, name := range f.Interfaces {
		for prefix, network := range predecessors {
			// Those of single pods come in numbers, and say no more.
			if strings.HasPrefix(name, prefix) && !strings.HasPrefix(name, bridgeOfLXC) && len(found[network]) < 3 {
				if found[network] == nil {
					names = append(names, network)
				}
				found[network] = append(found[network], name)
			}
		}
	}
	slices.Sort(names)
	for _, network := range names {
		next := "take it away from this node before, or drain the node and reboot it"
		if network == "flannel" {
			next = "move node by node: docs/install.md tells how"
		}
		r.add("network", Warn, fmt.Sprintf("%s has made %s", network, strings.Join(found[network], ", ")),
			"its pods keep its rules, and two networks on a node get in each other's way", next)
	}
	if len(names) == 0 && f.Unread["network"] == nil {
		r.ok("network", "no interfaces of another network's")
	}
	for _, path := range f.Configs {
		switch name := filepath.Base(path); {
		case name == ourConfig:
			r.ok("cni", "%s is there already", path)
		case name < ourConfig:
			r.add("cni", Fail, path+" comes before "+ourConfig, "the container runtime takes the first, and so not Fairlead", "delete it when its network is gone")
		default:
			r.add("cni", Warn, path+" is there", "Fairlead's comes before it; when Fairlead is taken away, pods are made by this one", "delete it when its network is gone")
		}
	}
	if len(f.Configs) == 0 && f.Unread["cni"] == nil {
		r.ok("cni", "no other configuration")
	}
}

// uses are the ports that Fairlead has on nodes by default.
var uses = []struct {
	Port
	what string
	next string
}{
	{Port{"udp", 4789}, "VXLAN", "end what has it, or choose another spec.vxlan.port"},
	{Port{"udp", 8285}, "backend udp", "end what has it, or choose another spec.udp.port, if you use that backend"},
	{Port{"tcp", 9811}, "the health of the agent", "end what has it"},
	{Port{"tcp", 9812}, "the health of the controller", "end what has it"},
	{Port{"tcp", 9815}, "probes between nodes", "end what has it, or run the agents with --probes=false"},
	{Port{"udp", 9815}, "probes between nodes", "end what has it, or run the agents with --probes=false"},
}

func (f *NodeFacts) ports(r *report) {
	if slices.ContainsFunc(f.Configs, func(path string) bool { return filepath.Base(path) == ourConfig }) {
		return // they are Fairlead's own, as a rule
	}
	free := true
	for _, use := range uses {
		if slices.Contains(f.Ports, use.Port) {
			free = false
			level := Fail
			if use.Protocol == "udp" {
				level = Warn
			}
			r.add("ports", level, fmt.Sprintf("port %d of %s is taken", use.Number, strings.ToUpper(use.Protocol)), "it is the port of "+use.what, use.next)
		}
	}
	if free {
		r.ok("ports", "UDP 4789, 8285 and 9815, TCP 9811, 9812 and 9815 are free")
	}
}

// leastFree is room for the journal of addresses and the plugin, in bytes.
const leastFree = 64 << 20

func (f *NodeFacts) files(r *report) {
	switch {
	case f.Unread["disk"] != nil:
	case f.ReadOnly:
		r.add("disk", Fail, "/var/lib is read-only", "addresses that are in use would be forgotten", "make it writable")
	case f.FreeBytes < leastFree:
		r.add("disk", Fail, fmt.Sprintf("%d MiB are free in /var/lib", f.FreeBytes>>20), "the plugin and the journal of addresses need some", "make room")
	default:
		r.ok("disk", "%d MiB are free", f.FreeBytes>>20)
	}
	if f.RunOnDisk {
		r.add("run", Warn, "/run is not a tmpfs", "a reboot is recognised by the kernel's boot ID alone", "mount a tmpfs there, as systemd does")
	} else {
		r.ok("run", "/run is a tmpfs")
	}
}
