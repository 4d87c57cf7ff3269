package agent

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/cni"
)

// A node without the plugin loopback gets ours, and one that has it keeps it.
func TestLoopback(t *testing.T) {
	needNode(t)
	a := start(t, newCluster("10.244.1.0/24"), t.TempDir())
	path := filepath.Join(a.config.CNIBinDir, cni.LoopbackName)
	eventually(t, path, func() bool { _, err := os.Stat(path); return err == nil })
	p := newPod(t, "lonely")
	must(t, inside(p.netns, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(lo)
	}))
	// As containerd has it: older than cniVersions, and for the interface lo.
	list, err := libcni.ConfListFromBytes([]byte(`{"cniVersion": "0.3.1", "name": "cni-loopback", "plugins": [{"type": "loopback"}]}`))
	must(t, err)
	p.conf.IfName = "lo"
	if err := p.dial("127.0.0.1:1"); errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatal("lo is not down")
	}
	runtime := libcni.NewCNIConfigWithCacheDir([]string{a.config.CNIBinDir}, t.TempDir(), nil)
	result, err := runtime.AddNetworkList(context.Background(), list, p.conf)
	must(t, err)
	if addrs := p.addresses(t, result); len(addrs) != 2 || addrs[0] != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("addresses are %v", addrs)
	}
	if err := p.dial("127.0.0.1:1"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("with lo up: %v, want connection refused", err)
	}
	must(t, runtime.DelNetworkList(context.Background(), list, p.conf))

	own := t.TempDir()
	must(t, os.WriteFile(filepath.Join(own, cni.LoopbackName), []byte("its own"), 0o755))
	ended, end := context.WithCancel(context.Background())
	end()
	again := install{plugin: plugin(), binDir: own, checks: checks{{"never", make(chan struct{}), nil}}}
	must(t, again.Run(ended))
	if content, err := os.ReadFile(filepath.Join(own, cni.LoopbackName)); err != nil || string(content) != "its own" {
		t.Errorf("the node's own loopback is %q, %v", content, err)
	}
}
