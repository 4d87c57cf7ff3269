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
	"github.com/fairlead-net/fairlead/model"
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

// ErrAgentRuns says that a node has an agent, which would put back what is removed.
var ErrAgentRuns = errors.New("the agent of this node is running")

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
		return ErrAgentRuns
	}
	if left, err := c.podsLeft(); err != nil {
		return err
	} else if len(left) > 0 && !cutOff {
		if err := c.leave(socket); err != nil {
			return err
		}
		say("no more pods are connected")
		return &PodsLeftError{left}
	}
	var kept []string // in StateDir
	steps := []struct {
		what string
		do   func() error
	}{
		{"the CNI configuration", func() error { return removeAll(c.CNIConfDir, conflist, leavingConflist, conflist+editedEnding) }},
		{"the CNI plugin", func() error { return removePlugin(c.CNIBinDir) }},
		{"the links of pods", removePodLinks},
		// Before the tables, which guard what route_localnet opens.
		{"changes of sysctls", func() error {
			err := restoreSysctls(c.StateDir, say)
			if err != nil { // the next try needs to know what they were
				kept = append(kept, sysctlsFile)
			}
			return err
		}},
		{"routes, tunnels and tables", func() error { return applyNothing(ctx, &c) }},
		{c.RunDir, func() error { return removeDir(c.RunDir) }},
		{c.StateDir, func() error { return removeDir(c.StateDir, kept...) }},
		{c.dnsStateDir(), func() error { return removeDir(c.dnsStateDir()) }},
	}
	var failed []error
	for _, step := range steps {
		switch err := step.do(); {
		case err == nil:
			say("removed " + step.what)
		case !errors.Is(err, fs.ErrNotExist):
			failed = append(failed, fmt.Errorf("remove %s: %w", step.what, err))
		}
	}
	return errors.Join(failed...)
}

// dnsStateDir is where the DNS server of the node keeps the names: beside what the
// agent keeps, as deploy/dns.yaml has it.
func (c *Config) dnsStateDir() string { return filepath.Join(filepath.Dir(c.StateDir), "fairlead-dns") }

// podsLeft names the pods that are connected, or tells their addresses if their names
// are not known.
func (c *Config) podsLeft() (names []string, err error) {
	remains, err := findRemains()
	if err != nil {
		return nil, err
	}
	// Aliases have no room for long names; the journal has.
	journal := map[model.AttachmentKey]model.PodKey{}
	if records, _, err := readJournal(c.journalPath()); err == nil {
		for _, r := range records {
			if !r.Released {
				journal[r.Attachment.AttachmentKey] = r.Attachment.Pod
			}
		}
	}
	for _, r := range remains.found {
		if r.AttachmentKey == endpointKey { // of probes; no pod
			continue
		}
		pod := r.Pod
		if pod.Name == "" {
			pod = journal[r.AttachmentKey]
		}
		if pod.Name == "" {
			names = append(names, "the one that has "+strings.Trim(fmt.Sprint(r.Addresses), "[]"))
			continue
		}
		names = append(names, pod.String())
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
// container's, which is the node's to remove. With anything to be kept in it, all
// else goes.
func removeDir(dir string, kept ...string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var failed []error
	for _, entry := range entries {
		if !slices.Contains(kept, entry.Name()) {
			failed = append(failed, os.RemoveAll(filepath.Join(dir, entry.Name())))
		}
	}
	if err := errors.Join(failed...); err != nil || len(kept) > 0 {
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
