package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/dataplane"
	planenetlink "github.com/fairlead-net/fairlead/dataplane/netlink"
)

// TestUninstall: nothing of ours is left, and what is another's stays.
func TestUninstall(t *testing.T) {
	needNode(t)
	a := start(t, newCluster("10.244.1.0/24", "fd00:10:244:1::/64"), t.TempDir())
	a.add(t, "c1")
	foreign := filepath.Join(a.config.CNIConfDir, "99-other.conflist")
	must(t, os.WriteFile(foreign, []byte("{}"), 0o600))

	config := a.config
	if err := Uninstall(t.Context(), config, func(string) {}); err == nil || !strings.Contains(err.Error(), "is running") {
		t.Errorf("beside a running agent: %v", err)
	}
	a.stop()
	plane, err := planenetlink.New()
	must(t, err)
	defer plane.Close()
	config.Dataplanes = []dataplane.Dataplane{plane}
	var said []string
	must(t, Uninstall(t.Context(), config, func(step string) { said = append(said, step) }))
	if len(said) != 6 {
		t.Errorf("said %q", said)
	}
	if left := ours(t); len(left) > 0 {
		t.Errorf("left in the kernel: %q", left)
	}
	links, err := whole(netlink.LinkList)
	must(t, err)
	for _, link := range links {
		if name := link.Attrs().Name; isPodDevice(name) || strings.HasPrefix(name, "fairlead-") {
			t.Errorf("left: %s", name)
		}
	}
	for _, path := range []string{filepath.Join(config.CNIConfDir, conflist), filepath.Join(config.CNIBinDir, pluginName), config.RunDir, config.StateDir} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("left: %s", path)
		}
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Errorf("another network's configuration: %v", err)
	}
	// Twice is no error.
	must(t, Uninstall(t.Context(), config, func(string) {}))
}
