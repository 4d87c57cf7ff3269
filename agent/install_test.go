package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/cni"
	"github.com/fairlead-net/fairlead/model"
)

// The plugin tells all versions, by both of its names.
func TestVersion(t *testing.T) {
	for _, name := range []string{pluginName, cni.LoopbackName} {
		path := filepath.Join(t.TempDir(), name)
		must(t, os.Symlink(plugin(), path))
		versions, err := askVersions(context.Background(), path)
		if err != nil || fmt.Sprint(versions) != fmt.Sprint(version.All.SupportedVersions()) {
			t.Errorf("%s: %v, %v", name, versions, err)
		}
	}
}

// The configuration appears when pods can be connected, and not before.
func TestInstall(t *testing.T) {
	needNode(t)
	cluster := newCluster("10.244.1.0/24")
	a := start(t, cluster, t.TempDir())
	path := filepath.Join(a.config.CNIConfDir, conflist)
	eventually(t, path, func() bool { _, err := os.Stat(path); return err == nil })
	list, err := libcni.ConfListFromFile(path)
	must(t, err)
	if list.CNIVersion != "1.1.0" || list.Plugins[0].Network.Type != pluginName {
		t.Errorf("got %+v", list)
	}
	must(t, a.cni.GetStatusNetworkList(context.Background(), list))
	eventually(t, "status to be published", func() bool {
		cluster.mu.Lock()
		defer cluster.mu.Unlock()
		last := len(cluster.published) - 1
		return last >= 0 && cluster.published[last].Ready && cluster.published[last].Uplink == "uplink" && cluster.published[last].MTU == 1400
	})
	if left, _ := filepath.Glob(filepath.Join(a.config.CNIConfDir, ".*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// script is a plugin that says and does this.
func script(t *testing.T, dir, name, text string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(dir, ".new"), []byte("#!/bin/sh\n"+text+"\n"), 0o755))
	must(t, os.Rename(filepath.Join(dir, ".new"), filepath.Join(dir, name)))
}

func supports(versions string) string {
	return `echo '{"cniVersion": "1.1.0", "supportedVersions": [` + versions + `]}'`
}

// The list has the newest version that all plugins support, without those that
// cannot be used, and says what an older one costs.
func TestChain(t *testing.T) {
	dir := t.TempDir()
	script(t, dir, "new", supports(`"0.3.1", "0.4.0", "1.0.0", "1.1.0"`))
	script(t, dir, "debian", supports(`"0.3.1", "0.4.0", "1.0.0"`))
	script(t, dir, "old", supports(`"0.1.0", "0.2.0", "0.3.0", "0.3.1"`))
	script(t, dir, "ancient", supports(`"0.1.0", "0.2.0"`))
	script(t, dir, "modern", supports(`"1.1.0"`))
	script(t, dir, "garbage", "echo hello")
	script(t, dir, "broken", "echo oh no >&2; exit 3")
	script(t, dir, "slow", "sleep 100")
	must(t, os.WriteFile(filepath.Join(dir, "foreign"), []byte("#!/no/such/loader\n"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "text"), []byte("text"), 0o644))
	for _, test := range []struct{ plugins, versions, kept, cost, problem string }{
		{"", "1.0.0 [1.0.0 1.1.0]", "", "", ""},
		{"new", "1.0.0 [1.0.0 1.1.0]", "new", "", ""},
		{"new debian", "1.0.0 []", "new debian", "CNI is used at version 1.0.0, because debian supports no newer one: the container runtime does not ask for GC and STATUS", ""},
		{"debian old", "0.3.1 []", "debian old", "version 0.3.1, because old supports no newer one: the container runtime does not ask for CHECK, GC and STATUS", ""},
		{"ancient", "1.0.0 [1.0.0 1.1.0]", "", "", "CNI plugin ancient: pods are connected without it: it supports versions [0.1.0 0.2.0]"},
		{"modern", "1.1.0 []", "modern", "", ""},
		{"old modern", "0.3.1 []", "old", "old", "CNI plugin modern: pods are connected without it: it supports versions [1.1.0] of CNI"},
		{"garbage", "1.0.0 [1.0.0 1.1.0]", "", "", `it says "hello`},
		{"broken new", "1.0.0 [1.0.0 1.1.0]", "new", "", "exit status 3: oh no"},
		{"slow", "1.0.0 [1.0.0 1.1.0]", "", "", "within 3s"},
		{"foreign", "0.4.0 []", "foreign", "because foreign cannot be asked for a newer one", ""},
		{"text", "1.0.0 [1.0.0 1.1.0]", "", "", "permission denied"},
		{"absent", "1.0.0 [1.0.0 1.1.0]", "", "", "install it in the node's directory of CNI plugins"},
		{"../bin/sh", "1.0.0 [1.0.0 1.1.0]", "", "", "is not the name of a file"},
		{"portmap", "1.0.0 [1.0.0 1.1.0]", "", "", "host ports are Fairlead's own"},
	} {
		b := binaries{dir: dir}
		var plugins []string
		for _, name := range strings.Fields(test.plugins) {
			plugins = append(plugins, fmt.Sprintf(`{"type": %q, "its": "own"}`, name))
		}
		c := newChain("n", "/run/cni.sock", plugins, func(name string) ([]string, error) { return b.versions(t.Context(), name) })
		text, err := c.config()
		must(t, err)
		list, err := libcni.ConfListFromBytes(text)
		must(t, err)
		var kept []string
		for _, plugin := range list.Plugins[1:] {
			kept = append(kept, plugin.Network.Type)
			if !strings.Contains(string(plugin.Bytes), `"own"`) {
				t.Errorf("%s: its own settings are lost: %s", test.plugins, plugin.Bytes)
			}
		}
		var raw struct {
			CNIVersion  string
			CNIVersions []string
		}
		must(t, json.Unmarshal(text, &raw))
		if got := fmt.Sprint(raw.CNIVersion, " ", raw.CNIVersions); got != test.versions || strings.Join(kept, " ") != test.kept {
			t.Errorf("%s: versions %s, kept %v", test.plugins, got, kept)
		}
		if got := c.cost(); !strings.Contains(got, test.cost) || (got == "") != (test.cost == "") {
			t.Errorf("%s: cost is %q", test.plugins, got)
		}
		if said := fmt.Sprint(c.problems); !strings.Contains(said, test.problem) || (len(c.problems) == 0) != (test.problem == "") {
			t.Errorf("%s: problems are %v", test.plugins, said)
		}
	}
}

// What the Network wants is in the file at once; what others make of it is put
// back, kept beside and told.
func TestConfigurationIsKept(t *testing.T) {
	needNode(t)
	cluster, run, conf := newCluster("10.244.1.0/24"), t.TempDir(), t.TempDir()
	a := startIn(t, cluster, run, conf)
	path := filepath.Join(conf, conflist)
	is := func(what string, plugins ...string) {
		t.Helper()
		eventually(t, what, func() bool {
			list, err := libcni.ConfListFromFile(path)
			return err == nil && slices.EqualFunc(list.Plugins[1:], plugins, func(p *libcni.PluginConfig, name string) bool {
				return p.Network.Type == name
			})
		})
	}
	is("the configuration")
	cluster.edit(func(s *model.Snapshot) {
		network := *s.Network
		network.Plugins = []string{`{"type": "later"}`}
		s.Network = &network
	})
	left := "CNI plugin later: pods are connected without it: it is not there"
	said := func(text string) bool { return strings.Contains(strings.Join(cluster.problems(), "\n"), text) }
	eventually(t, left, func() bool { return said(left) })
	script(t, a.config.CNIBinDir, "later", supports(`"0.4.0", "1.0.0"`))
	is("the plugin to be in it", "later")
	cost := "the network is as planned; CNI is used at version 1.0.0, because later supports no newer one"
	eventually(t, cost, func() bool {
		cluster.mu.Lock()
		defer cluster.mu.Unlock()
		return strings.HasPrefix(cluster.published[len(cluster.published)-1].Message, cost)
	})
	eventually(t, "the problem to go", func() bool { return !said(left) })
	must(t, os.Remove(filepath.Join(a.config.CNIBinDir, "later")))
	is("the plugin to be out of it")
	script(t, a.config.CNIBinDir, "later", supports(`"1.0.0"`))
	is("the plugin to be in it again", "later")

	must(t, os.Remove(path))
	is("the removed file to be back", "later")
	for _, edit := range []string{"garbage", `{"cniVersion": "1.0.0", "name": "mine", "plugins": []}`} {
		must(t, os.WriteFile(path, []byte(edit), 0o644))
		is("the edited file to be put back", "later")
		if text, err := os.ReadFile(path + ".edited"); err != nil || string(text) != edit {
			t.Errorf("kept is %q, %v", text, err)
		}
	}
	slowly, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(conf, "other"), nil, 0o644)) // so that the agent looks
	is("the file to be put back that is being edited", "later")
	_, err = slowly.WriteString("slowly")
	must(t, err)
	must(t, slowly.Close())
	if text, err := os.ReadFile(path + ".edited"); err != nil || string(text) != "slowly" {
		t.Errorf("kept is %q, %v", text, err)
	}
	edited := path + ": the CNI configuration was edited by hand"
	eventually(t, edited, func() bool { return said(edited) })
	if found, err := libcni.ConfFiles(conf, []string{".conf", ".conflist", ".json"}); err != nil || len(found) != 1 {
		t.Errorf("runtimes read %v, %v", found, err)
	}
	must(t, os.Remove(path+".edited"))
	eventually(t, "the problem to go", func() bool { return !said(edited) })

	// What is edited while no agent runs is kept as well; what an agent of
	// another version wrote is not an edit.
	a.stop()
	must(t, os.WriteFile(path, []byte("mine"), 0o644))
	a = startIn(t, newCluster("10.244.1.0/24"), run, conf)
	eventually(t, "the edit to be kept", func() bool { text, _ := os.ReadFile(path + ".edited"); return string(text) == "mine" })
	is("the edited file to be put back")
	a.stop()
	must(t, os.Remove(path+".edited"))
	for _, name := range []string{path, filepath.Join(run, "state", conflist)} {
		must(t, os.WriteFile(name, []byte("of an older agent"), 0o644))
	}
	startIn(t, newCluster("10.244.1.0/24"), run, conf)
	is("the older file to be replaced")
	if _, err := os.Stat(path + ".edited"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is taken for an edit: %v", err)
	}
}

// The reference plugins bandwidth and tuning work in the chain, at the newest
// version, from ADD to DEL.
func TestReferencePlugins(t *testing.T) {
	needNode(t)
	cluster, conf := newCluster("10.244.1.0/24", "fd00:10:244:1::/64"), t.TempDir()
	a := startIn(t, cluster, t.TempDir(), conf)
	for _, name := range []string{"bandwidth", "tuning"} { // built by TestMain, where there is a network
		must(t, copyFile(filepath.Join(a.config.CNIBinDir, name), filepath.Join(os.Getenv(inNode), name)))
	}
	<-cluster.synced
	cluster.edit(func(s *model.Snapshot) {
		network := *s.Network
		network.Plugins = []string{
			`{"type": "bandwidth", "capabilities": {"bandwidth": true}}`,
			`{"type": "tuning", "sysctl": {"net.ipv4.conf.all.log_martians": "1"}, "mtu": 1300}`,
		}
		s.Network = &network
	})
	var list *libcni.NetworkConfigList
	eventually(t, "the chain", func() (ok bool) {
		found, err := libcni.ConfListFromFile(filepath.Join(conf, conflist))
		list = found
		return err == nil && len(list.Plugins) == 3
	})
	if list.CNIVersion != "1.1.0" {
		t.Errorf("the version is %s", list.CNIVersion)
	}
	p, ctx := newPod(t, "p"), context.Background()
	p.conf.CapabilityArgs = map[string]any{
		"bandwidth":    map[string]any{"ingressRate": 8_000_000, "ingressBurst": 80_000, "egressRate": 16_000_000, "egressBurst": 80_000},
		"portMappings": []map[string]any{{"hostPort": 80, "containerPort": 8080, "protocol": "tcp"}},
	}
	_, err := a.cni.AddNetworkList(ctx, list, p.conf)
	must(t, err)
	if held := attachmentsOf(a)[keyOf("p")]; fmt.Sprint(held.HostPorts) != "[80/TCP]" {
		t.Errorf("host ports are %v", held.HostPorts)
	}
	must(t, a.cni.CheckNetworkList(ctx, list, p.conf))
	verifyMTU(t, p, 1300)
	rates := map[uint64]bool{}
	qdiscs, err := netlink.QdiscList(nil)
	must(t, err)
	for _, qdisc := range qdiscs {
		if tbf, ok := qdisc.(*netlink.Tbf); ok {
			rates[tbf.Rate] = true
		}
	}
	if !rates[1_000_000] || !rates[2_000_000] {
		t.Errorf("rates in bytes per second are %v", rates)
	}
	must(t, inside(p.netns, func() error {
		value, err := os.ReadFile("/proc/sys/net/ipv4/conf/all/log_martians")
		if string(value) != "1\n" {
			t.Errorf("log_martians is %q", value)
		}
		return err
	}))
	if err := p.dial("192.0.2.1:1"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("the pod does not reach the node: %v", err)
	}
	must(t, a.cni.DelNetworkList(ctx, list, p.conf))
	links, err := netlink.LinkList()
	must(t, err)
	for _, link := range links {
		if link.Type() == "ifb" || isPodDevice(link.Attrs().Name) {
			t.Errorf("left: %s", link.Attrs().Name)
		}
	}
}

// TestReferencePluginLimitsShortTransfers: with the settings of docs/cni.md, what is short is
// limited, too (kubernetes#90838, plugins#609: runtimes give a burst of 512 MB).
func TestReferencePluginLimitsShortTransfers(t *testing.T) {
	needNode(t)
	a := start(t, newCluster("10.244.1.0/24"), t.TempDir())
	must(t, copyFile(filepath.Join(a.config.CNIBinDir, "bandwidth"), filepath.Join(os.Getenv(inNode), "bandwidth")))
	const rate, burst, size = 8_000_000, 80_000, 1 << 20 // bits per second, bits, bytes
	list, err := libcni.ConfListFromBytes(fmt.Appendf(nil, `{"cniVersion": "1.0.0", "name": "fairlead", "plugins": [
		{"type": "fairlead-cni", "socket": %q}, {"type": "bandwidth", "ingressRate": %d, "ingressBurst": %d}]}`, a.socket(), rate, burst))
	must(t, err)
	p, ctx := newPod(t, "p"), context.Background()
	_, err = a.cni.AddNetworkList(ctx, list, p.conf)
	must(t, err)
	var listener net.Listener
	must(t, inside(p.netns, func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(attachmentsOf(a)[keyOf("p")].Addresses[0], 0).String())
		return err
	}))
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.CopyN(io.Discard, conn, size)
		_, _ = conn.Write([]byte("thanks"))
	}()
	conn, err := net.DialTimeout("tcp", listener.Addr().String(), 5*time.Second)
	must(t, err)
	defer conn.Close()
	begin := time.Now()
	_, err = conn.Write(make([]byte, size))
	must(t, err)
	_, err = conn.Read(make([]byte, 1))
	must(t, err)
	// Never less than what the burst leaves to the rate.
	if took, least := time.Since(begin), time.Duration(size*8-burst)*time.Second/rate; took < least {
		t.Errorf("%d bytes came in %v, which the rate allows in %v", size, took, least)
	}
	must(t, a.cni.DelNetworkList(ctx, list, p.conf))
}
