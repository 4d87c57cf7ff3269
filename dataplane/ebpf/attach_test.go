package ebpf

import (
	"errors"
	"net/netip"
	"os"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	tcx "github.com/cilium/ebpf/link"
	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
)

var wanted = IPIP{
	Name: device, Uplink: "up0", Local: local, MTU: 1480, Pods: netip.MustParsePrefix("10.244.1.0/24"),
}

// enter makes a namespace with the uplinks up0 and up1.
func enter(t *testing.T) {
	netnstest.Enter(t)
	attrs := rtnl.NewLinkAttrs()
	attrs.Name = "up0"
	must(t, rtnl.LinkAdd(&rtnl.Veth{LinkAttrs: attrs, PeerName: "up1"}))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%+v", err)
	}
}

func link(t *testing.T, name string) rtnl.Link {
	t.Helper()
	found, err := rtnl.LinkByName(name)
	must(t, err)
	return found
}

func attached(t *testing.T, want IPIP) {
	t.Helper()
	got, there, err := Attached(device)
	if err != nil || !there || got != want {
		t.Fatalf("attached is %+v, %v, %v; want %+v", got, there, err, want)
	}
}

func TestAttach(t *testing.T) {
	enter(t)
	if got, there, err := Attached(device); there || err != nil {
		t.Fatalf("before, attached is %v, %v", got, err)
	}
	must(t, AttachIPIP(wanted))
	attached(t, wanted)
	index := link(t, device).Attrs().Index

	changed := wanted
	changed.Uplink, changed.Local, changed.MTU, changed.Pods = "up1", remote, 1380, netip.Prefix{}
	for _, want := range []IPIP{wanted, changed, wanted} {
		must(t, AttachIPIP(want))
		attached(t, want)
		for _, uplink := range []string{"up0", "up1"} {
			found, err := find(link(t, uplink), ingress, decapName(device))
			must(t, err)
			if (found != 0) != (uplink == want.Uplink) {
				t.Errorf("with uplink %s, %s has program %d", want.Uplink, uplink, found)
			}
		}
	}
	if now := link(t, device).Attrs().Index; now != index {
		t.Errorf("the device has been made anew: index %d, was %d", now, index)
	}
	for range 2 {
		must(t, DetachIPIP(device))
	}
	if _, there, err := Attached(device); there || err != nil {
		t.Fatalf("after it was detached: %v, %v", there, err)
	}
	if found, _ := find(link(t, "up0"), ingress, decapName(device)); found != 0 {
		t.Error("the uplink still has the program")
	}
}

// TestAttachedIsBroken: whatever somebody takes away is noticed, and mended.
func TestAttachedIsBroken(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T){
		"other end gone": func(t *testing.T) {
			must(t, rtnl.LinkDel(link(t, device+"0")))
			attrs := rtnl.NewLinkAttrs()
			attrs.Name, attrs.Alias = device, wanted.alias()
			must(t, rtnl.LinkAdd(&rtnl.Bridge{LinkAttrs: attrs}))
		},
		"down":           func(t *testing.T) { must(t, rtnl.LinkSetDown(link(t, device))) },
		"other end down": func(t *testing.T) { must(t, rtnl.LinkSetDown(link(t, device+"0"))) },
		"MAC": func(t *testing.T) {
			must(t, rtnl.LinkSetHardwareAddr(link(t, device), []byte{2, 0, 0, 0, 0, 1}))
		},
		"alias": func(t *testing.T) { must(t, rtnl.LinkSetAlias(link(t, device), "mine")) },
		"other version": func(t *testing.T) {
			alias := strings.Replace(wanted.alias(), version(), "0123456789ab", 1)
			must(t, rtnl.LinkSetAlias(link(t, device), alias))
		},
		"out":    func(t *testing.T) { takeAway(t, device, egress, encapName(device)) },
		"in":     func(t *testing.T) { takeAway(t, device, ingress, encapName(device)) },
		"uplink": func(t *testing.T) { takeAway(t, "up0", ingress, decapName(device)) },
		"uplink made anew": func(t *testing.T) {
			must(t, rtnl.LinkDel(link(t, "up0")))
			attrs := rtnl.NewLinkAttrs()
			attrs.Name = "up0"
			must(t, rtnl.LinkAdd(&rtnl.Veth{LinkAttrs: attrs, PeerName: "up1"}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			enter(t)
			must(t, AttachIPIP(wanted))
			damage(t)
			attached(t, IPIP{Name: device})
			must(t, AttachIPIP(wanted))
			attached(t, wanted)
		})
	}
}

// TestRemoveFilters: packets go on to the kernel's own device when somebody has
// removed ours.
func TestRemoveFilters(t *testing.T) {
	enter(t)
	must(t, AttachIPIP(wanted))
	must(t, rtnl.LinkDel(link(t, device)))
	for range 2 {
		must(t, RemoveFilters(device))
	}
	if found, err := find(link(t, "up0"), ingress, decapName(device)); found != 0 || err != nil {
		t.Errorf("the uplink has %v, %v", found, err)
	}
}

func takeAway(t *testing.T, device string, w way, name string) {
	t.Helper()
	must(t, unchain(link(t, device), w, name))
	must(t, removeFilter(link(t, device), w.parent, name))
}

// TestForeignFilters stay, and have their preference.
func TestForeignFilters(t *testing.T) {
	enter(t)
	loaded, err := load(nil)
	must(t, err)
	defer loaded.Close()
	uplink := link(t, "up0")
	must(t, rtnl.QdiscAdd(&rtnl.GenericQdisc{
		QdiscAttrs: rtnl.QdiscAttrs{LinkIndex: uplink.Attrs().Index, Handle: rtnl.MakeHandle(0xffff, 0), Parent: rtnl.HANDLE_INGRESS},
		QdiscType:  "ingress", // with less than clsact, but enough
	}))
	foreign := &rtnl.BpfFilter{
		FilterAttrs: filterAttrs(uplink, ingress.parent), Fd: loaded.Programs["decap"].FD(), Name: "foreign", DirectAction: true,
	}
	foreign.Priority = preference + 1
	must(t, rtnl.FilterAdd(foreign))
	must(t, AttachIPIP(wanted))
	must(t, DetachIPIP(device))
	if found, err := findFilter(uplink, ingress.parent, "foreign"); err != nil || found == nil {
		t.Fatalf("the foreign filter: %v, %v", found, err)
	}
	foreign.Priority = preference
	must(t, rtnl.FilterAdd(foreign))
	err = AttachIPIP(wanted)
	if _, unsupported := programsOf(uplink, ingress); unsupported == nil && err == nil {
		attached(t, wanted) // not among the filters
		return
	}
	if !errors.Is(err, unix.EEXIST) {
		t.Fatalf("attach in the place of a foreign filter: %v", err)
	}
	attached(t, IPIP{Name: device})
}

// needChain skips where the kernel has only filters.
func needChain(t *testing.T) {
	t.Helper()
	if _, err := programsOf(link(t, "up0"), ingress); err != nil {
		t.Skip("this kernel has no tcx (Linux 6.6)")
	}
}

// TestFilterOfEarlierVersion: what an earlier version had among the filters goes when
// the chain has it.
func TestFilterOfEarlierVersion(t *testing.T) {
	enter(t)
	needChain(t)
	loaded, err := load(nil)
	must(t, err)
	defer loaded.Close()
	uplink := link(t, "up0")
	must(t, putFilter(uplink, ingress.parent, decapName(device), loaded.Programs["decap"]))
	if id, err := find(uplink, ingress, decapName(device)); id == 0 || err != nil {
		t.Fatalf("the filter is not found: %v", err)
	}
	must(t, AttachIPIP(wanted))
	attached(t, wanted)
	if found, err := findFilter(uplink, ingress.parent, decapName(device)); found != nil || err != nil {
		t.Errorf("the filter is there still: %v, %v", found, err)
	}
}

// TestBackAndForth: an earlier version, which does not know the chain, has put filters
// behind what this one had left there, for another address. This one, again, does not
// take it for what is wanted.
func TestBackAndForth(t *testing.T) {
	enter(t)
	needChain(t)
	must(t, AttachIPIP(wanted))
	moved := wanted
	moved.Local = remote
	device, _, err := moved.pair()
	must(t, err)
	loaded, err := load(map[string]uint32{"local": inMemory(remote.AsSlice())})
	must(t, err)
	defer loaded.Close()
	must(t, putFilter(device, egress.parent, encapName(moved.Name), loaded.Programs["encap"]))
	must(t, putFilter(device, ingress.parent, encapName(moved.Name), loaded.Programs["encap"]))
	must(t, putFilter(link(t, "up0"), ingress.parent, decapName(moved.Name), loaded.Programs["decap"]))
	must(t, rtnl.LinkSetAlias(device, moved.alias()))
	attached(t, IPIP{Name: moved.Name})
	must(t, AttachIPIP(moved))
	attached(t, moved)
}

// TestNothingStaysOpen: looking leaves no file descriptor behind.
func TestNothingStaysOpen(t *testing.T) {
	enter(t)
	must(t, AttachIPIP(wanted))
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // which closes what is forgotten
	open := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(entries)
	}
	look := func() {
		attached(t, wanted)
		_, err := Dropped(device)
		must(t, err)
		must(t, AttachIPIP(wanted))
	}
	look()
	before := open()
	for range 10 {
		look()
	}
	if now := open(); now > before {
		t.Errorf("%d files are open, and were %d", now, before)
	}
}

// attachForeign adds a program to the chain that is not ours by its name, and lets all
// packets go on.
func attachForeign(t *testing.T, to rtnl.Link, w way) {
	t.Helper()
	spec, err := readObject()
	must(t, err)
	foreign, err := ebpf.NewCollection(spec)
	must(t, err)
	defer foreign.Close()
	must(t, tcx.RawAttachProgram(tcx.RawAttachProgramOptions{
		Target: to.Attrs().Index, Program: foreign.Programs["decap"], Attach: w.chain,
	}))
}

// TestForeignPrograms stay in the chain, behind ours.
func TestForeignPrograms(t *testing.T) {
	enter(t)
	needChain(t)
	uplink := link(t, "up0")
	attachForeign(t, uplink, ingress)
	for _, step := range []func() error{
		func() error { return AttachIPIP(wanted) },
		func() error { return AttachIPIP(wanted) },
		func() error { return DetachIPIP(device) },
	} {
		must(t, step())
		there, err := tcx.QueryPrograms(tcx.QueryOptions{Target: uplink.Attrs().Index, Attach: ingress.chain})
		must(t, err)
		ours, err := find(uplink, ingress, decapName(device))
		must(t, err)
		want := 1
		if ours != 0 {
			want = 2
		}
		if len(there.Programs) != want || there.Programs[want-1].ID == ours || want == 2 && there.Programs[0].ID != ours {
			t.Errorf("the chain is %v, and ours is %d", there.Programs, ours)
		}
	}
}

func TestAttachRefuses(t *testing.T) {
	enter(t)
	before, err := rtnl.LinkList() // modules bring some of their own
	must(t, err)
	for name, change := range map[string]func(*IPIP){
		"IPv6":      func(p *IPIP) { p.Local = netip.MustParseAddr("2001:db8::1") },
		"IPv6 pods": func(p *IPIP) { p.Pods = netip.MustParsePrefix("2001:db8::/64") },
		"loopback":  func(p *IPIP) { p.Uplink = "lo" },
		"no uplink": func(p *IPIP) { p.Uplink = "up7" },
		"long name": func(p *IPIP) { p.Name = "fairlead-ipip00" },
	} {
		want := wanted
		change(&want)
		err := AttachIPIP(want)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	after, err := rtnl.LinkList()
	must(t, err)
	if len(after) != len(before) {
		t.Errorf("there are %d links, there were %d", len(after), len(before))
	}
}
