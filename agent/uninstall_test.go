package agent

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/dataplane"
	planenetlink "github.com/fairlead-net/fairlead/dataplane/netlink"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/route"
	"github.com/fairlead-net/fairlead/whole"
)

// TestUninstall: nothing of ours is left, and what is another's stays.
func TestUninstall(t *testing.T) {
	needNode(t)
	a := start(t, newCluster("10.244.1.0/24", "fd00:10:244:1::/64"), t.TempDir())
	a.add(t, "c1")
	foreign := filepath.Join(a.config.CNIConfDir, "99-other.conflist")
	must(t, os.WriteFile(foreign, []byte("{}"), 0o600))

	config := a.config
	if err := Uninstall(t.Context(), config, false, func(string) {}); !errors.Is(err, ErrAgentRuns) {
		t.Errorf("beside a running agent: %v", err)
	}
	a.stop()
	config.StateDir = filepath.Join(t.TempDir(), "fairlead")
	must(t, os.Rename(a.config.StateDir, config.StateDir))
	must(t, os.Mkdir(config.dnsStateDir(), 0o700))
	must(t, os.WriteFile(filepath.Join(config.dnsStateDir(), "names"), nil, 0o600))
	plane, err := planenetlink.New()
	must(t, err)
	defer plane.Close()
	config.Dataplanes = []dataplane.Dataplane{plane}
	var said []string
	// What a data plane has changed.
	const setting = "net/ipv4/ip_forward_use_pmtu"
	must(t, os.WriteFile("/proc/sys/"+setting, []byte("0"), 0))
	plane.Former = RememberSysctls(config.StateDir, config.Log)
	changed := &route.Plan{Sysctls: model.MapOf(map[string]string{setting: "1"})}
	if _, err := plane.Apply(t.Context(), &plan.Node{Route: changed}); err != nil {
		t.Fatal(err)
	}

	var left *PodsLeftError
	if err := Uninstall(t.Context(), config, false, func(string) {}); !errors.As(err, &left) || !slices.Equal(left.Pods, []string{"default/c1"}) {
		t.Fatalf("with a pod that runs: %v", err)
	}
	if !exists(filepath.Join(config.CNIConfDir, leavingConflist)) || exists(filepath.Join(config.CNIConfDir, conflist)) {
		t.Error("runtimes cannot end pods, or still make some")
	}
	if devices := podDevices(t); len(devices) != 1 {
		t.Errorf("the pod that runs is cut off: %q", devices)
	}

	must(t, Uninstall(t.Context(), config, true, func(step string) { said = append(said, step) }))
	if len(said) != 9 {
		t.Errorf("said %q", said)
	}
	if now, _ := os.ReadFile("/proc/sys/" + setting); strings.TrimSpace(string(now)) != "0" {
		t.Errorf("%s is %s", setting, now)
	}
	if left := ours(t); len(left) > 0 {
		t.Errorf("left in the kernel: %q", left)
	}
	links, err := whole.List(netlink.LinkList)
	must(t, err)
	for _, link := range links {
		if name := link.Attrs().Name; isPodDevice(name) || strings.HasPrefix(name, "fairlead-") {
			t.Errorf("left: %s", name)
		}
	}
	for _, path := range []string{filepath.Join(config.CNIConfDir, conflist), filepath.Join(config.CNIConfDir, leavingConflist), filepath.Join(config.CNIBinDir, pluginName), config.RunDir, config.StateDir, config.dnsStateDir()} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("left: %s", path)
		}
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Errorf("another network's configuration: %v", err)
	}
	// Twice is no error.
	must(t, Uninstall(t.Context(), config, false, func(string) {}))
}

// TestUninstallLeavesLongNames: a pod whose name has no room on its link runs like any
// other.
func TestUninstallLeavesLongNames(t *testing.T) {
	needNode(t)
	a := start(t, newCluster("10.244.1.0/24", "fd00:10:244:1::/64"), t.TempDir())
	long := strings.Repeat("n", 253)
	add := request("ADD", "c1")
	add.Args = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + long
	reply := a.ask(t, add, newPod(t, "c1").netns)
	if reply.Error != nil {
		t.Fatal(reply.Error)
	}
	a.stop()
	for _, want := range []string{"default/" + long, "the one that has " + reply.Result.IPs[0].Address.IP.String()} {
		var left *PodsLeftError
		err := Uninstall(t.Context(), a.config, false, func(string) {})
		if !errors.As(err, &left) || len(left.Pods) != 1 || !strings.HasPrefix(left.Pods[0], want) {
			t.Errorf("got %v, want one of %s", err, want)
		}
		if devices := podDevices(t); len(devices) != 1 {
			t.Errorf("the pod that runs is cut off: %q", devices)
		}
		must(t, os.RemoveAll(a.config.journalPath())) // and without one
	}
}

// TestUninstallTriesAgain: what sysctls were is known until they are that again.
func TestUninstallTriesAgain(t *testing.T) {
	needNode(t)
	const setting = "net/ipv4/ip_forward_use_pmtu"
	must(t, os.WriteFile("/proc/sys/"+setting, []byte("1"), 0))
	dir := t.TempDir()
	config := Config{RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "fairlead"), CNIBinDir: dir, CNIConfDir: dir}
	must(t, os.Mkdir(config.StateDir, 0o700))
	must(t, os.WriteFile(config.journalPath(), nil, 0o600))
	RememberSysctls(config.StateDir, slog.New(slog.DiscardHandler))(setting, "nonsense", "1") // which the kernel refuses

	for range 2 {
		if err := Uninstall(t.Context(), config, false, func(string) {}); err == nil || !strings.Contains(err.Error(), setting) || !strings.Contains(err.Error(), "nonsense") {
			t.Errorf("a sysctl that cannot be put back: %v", err)
		}
		if !exists(filepath.Join(config.StateDir, sysctlsFile)) || exists(config.journalPath()) {
			t.Error("what sysctls were is forgotten, or something else is kept")
		}
	}
	must(t, os.WriteFile("/proc/sys/"+setting, []byte("0"), 0))
	must(t, Uninstall(t.Context(), config, false, func(string) {}))
	if exists(config.StateDir) {
		t.Errorf("left: %s", config.StateDir)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// TestFormerSysctls: the first value of each counts, since the node booted; what
// somebody else has set is theirs.
func TestFormerSysctls(t *testing.T) {
	needNode(t)
	dir := t.TempDir()
	remember := RememberSysctls(dir, slog.New(slog.DiscardHandler))
	set := func(path, value string) { must(t, os.WriteFile("/proc/sys/"+path, []byte(value), 0)) }
	get := func(path string) string {
		text, err := os.ReadFile("/proc/sys/" + path)
		must(t, err)
		return strings.TrimSpace(string(text))
	}
	const ours, theirs = "net/ipv4/conf/lo/rp_filter", "net/ipv4/conf/lo/log_martians"
	remember(ours, "0", "1")
	remember(ours, "1", "2")
	remember(theirs, "0", "1")
	remember("net/ipv4/conf/gone/rp_filter", "0", "1")
	set(ours, "2")
	set(theirs, "0")
	var said []string
	must(t, restoreSysctls(dir, func(text string) { said = append(said, text) }))
	if get(ours) != "0" || get(theirs) != "0" || len(said) != 1 {
		t.Errorf("%s is %s, %s is %s; said %q", ours, get(ours), theirs, get(theirs), said)
	}

	// Of another boot, nothing is known.
	set(ours, "2")
	known, err := readSysctls(filepath.Join(dir, sysctlsFile))
	must(t, err)
	known.Boot = "another"
	must(t, known.write(filepath.Join(dir, sysctlsFile)))
	must(t, restoreSysctls(dir, func(string) {}))
	if get(ours) != "2" {
		t.Errorf("%s is %s", ours, get(ours))
	}
}
