package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/cni"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/route"
)

// Uninstall takes away all that agents have put on this node: the configuration
// of the container runtime first, so that no pod comes any more, then the
// plugin, the pods' links, what is in the kernel, and the directories. say is
// told each step. Pods that run are cut off; they are to be made anew by another
// network. Sysctls stay, since nobody knows who else relies on them.
func Uninstall(ctx context.Context, c Config, say func(string)) error {
	socket := filepath.Join(c.RunDir, socketName)
	if conn, err := net.Dial("unix", socket); err == nil {
		_ = conn.Close()
		return errors.New("the agent of this node is running; delete its DaemonSet first: kubectl delete -f deploy/fairlead.yaml")
	}
	steps := []struct {
		what string
		do   func() error
	}{
		{"the CNI configuration", func() error { return os.Remove(filepath.Join(c.CNIConfDir, conflist)) }},
		{"the CNI plugin", func() error { return removePlugin(c.CNIBinDir) }},
		{"the links of pods", removePodLinks},
		{"routes, tunnels and tables", func() error { return applyNothing(ctx, &c) }},
		{c.RunDir, func() error { return os.RemoveAll(c.RunDir) }},
		{c.StateDir, func() error { return os.RemoveAll(c.StateDir) }},
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
	links, err := whole(netlink.LinkList)
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
