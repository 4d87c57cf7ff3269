package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/cni"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/route"
	"github.com/fairlead-net/fairlead/whole"
)

// PodsLeftError says that pods still run on links of Fairlead's. What they need
// is left until they are gone.
type PodsLeftError struct {
	Pods []string // namespace/name, sorted
}

func (e *PodsLeftError) Error() string {
	return fmt.Sprintf("%d pods still run on this node, and keep their network until they end: %s. Delete them, or drain the node, and uninstall again",
		len(e.Pods), strings.Join(e.Pods, ", "))
}

// leavingConflist is what the CNI configuration is called while pods are left: any
// other network's comes before it, and while there is none, runtimes need one to
// end pods. Its plugin connects none without an agent.
const leavingConflist = "99-fairlead.conflist"

// Uninstall takes away all that agents have put on this node: the configuration
// of the container runtime first, so that no pod comes any more, then the
// plugin, the pods' links, what is in the kernel, and the directories, and puts
// sysctls back to what they were. say is told each step. While pods run, what
// they need stays, and the error is a PodsLeftError, unless they are to be cut
// off. Uninstall may be repeated.
func Uninstall(ctx context.Context, c Config, cutOff bool, say func(string)) error {
	socket := filepath.Join(c.RunDir, socketName)
	if conn, err := net.Dial("unix", socket); err == nil {
		_ = conn.Close()
		return errors.New("the agent of this node is running; to uninstall from the whole cluster, run: fairlead uninstall")
	}
	if left, err := podsLeft(); err != nil {
		return err
	} else if len(left) > 0 && !cutOff {
		if err := c.leave(socket); err != nil {
			return err
		}
		say("no more pods are connected")
		return &PodsLeftError{left}
	}
	steps := []struct {
		what string
		do   func() error
	}{
		{"the CNI configuration", func() error { return removeAll(c.CNIConfDir, conflist, leavingConflist, conflist+editedEnding) }},
		{"the CNI plugin", func() error { return removePlugin(c.CNIBinDir) }},
		{"the links of pods", removePodLinks},
		// Before the tables, which guard what route_localnet opens.
		{"changes of sysctls", func() error { return restoreSysctls(c.StateDir, say) }},
		{"routes, tunnels and tables", func() error { return applyNothing(ctx, &c) }},
		{c.RunDir, func() error { return removeDir(c.RunDir) }},
		{c.StateDir, func() error { return removeDir(c.StateDir) }},
	}
	var failed []error
	for _, step := range steps {
		if err := step.do(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, fmt.Errorf("remove %s: %w", step.what, err))
			continue
		}
		say("removed " + step.what)
	}
	return errors.Join(failed...)
}

// podsLeft names the pods that are connected.
func podsLeft() (names []string, err error) {
	remains, err := findRemains()
	if err != nil {
		return nil, err
	}
	for _, r := range remains.found {
		if r.Pod.Name != "" {
			names = append(names, r.Pod.Namespace+"/"+r.Pod.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// leave makes the node connect no more pods, so that those that run can end.
func (c *Config) leave(socket string) error {
	err := os.Rename(filepath.Join(c.CNIConfDir, conflist), filepath.Join(c.CNIConfDir, leavingConflist))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("put the CNI configuration last: %w", err)
	}
	if err := os.Remove(cni.ReadyFile(socket)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("say that no pods are connected: %w", err)
	}
	return nil
}

func removeAll(dir string, names ...string) error {
	var failed []error
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// removeDir removes a directory, or what is in it if it is a mount of the
// container's, which is the node's to remove.
func removeDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var failed []error
	for _, entry := range entries {
		failed = append(failed, os.RemoveAll(filepath.Join(dir, entry.Name())))
	}
	if err := errors.Join(failed...); err != nil {
		return err
	}
	if err := os.Remove(dir); !errors.Is(err, unix.EBUSY) {
		return err
	}
	return nil
}

// removePlugin removes the plugin loopback only if it is ours.
func removePlugin(dir string) error {
	loopback := filepath.Join(dir, cni.LoopbackName)
	if to, err := os.Readlink(loopback); err == nil && filepath.Base(to) == pluginName {
		if err := os.Remove(loopback); err != nil {
			return err
		}
	}
	return os.Remove(filepath.Join(dir, pluginName))
}

func removePodLinks() error {
	links, err := whole.List(netlink.LinkList)
	if err != nil {
		return err
	}
	var failed []error
	for _, link := range links {
		attrs := link.Attrs()
		if isPodDevice(attrs.Name) && link.Type() == "veth" && (attrs.Alias == "" || strings.HasPrefix(attrs.Alias, aliasWord+" ")) {
			failed = append(failed, removeDevice(attrs.Name))
		}
	}
	return errors.Join(failed...)
}

// applyNothing makes every data plane hold nothing of ours.
func applyNothing(ctx context.Context, c *Config) error {
	var failed []error
	nothing := &plan.Node{Name: c.Node, Route: &route.Plan{}}
	for _, plane := range c.Dataplanes {
		problems, err := plane.Apply(ctx, nothing)
		failed = append(failed, err)
		for _, problem := range problems {
			failed = append(failed, errors.New(problem.String()))
		}
		if remover, ok := plane.(interface{ Remove() error }); ok {
			failed = append(failed, remover.Remove())
		}
	}
	return errors.Join(failed...)
}
