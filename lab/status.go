package lab

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/fairlead-net/fairlead/lab/world"
)

// WriteStatus tells how the lab is: its machines with their services, its
// memory, and what the API server says of its nodes.
func (l *Lab) WriteStatus(ctx context.Context, out io.Writer) error {
	machines, err := l.world.Machines()
	if err != nil {
		return err
	}
	memory, err := l.Memory()
	if err != nil {
		return err
	}
	total := uint64(0)
	for _, bytes := range memory {
		total += bytes
	}
	c := l.state.Config
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "lab %s: %d nodes on %d segments, %s, kube-proxy %s, dns %s, network %s\n",
		c.Name, len(l.state.Nodes), c.Segments, c.Family, c.KubeProxy, c.DNS, c.Network)
	if l.state.Ready != 0 {
		fmt.Fprintf(table, "up for %s, was ready after %.1f s; memory %d MiB (PSS)\n",
			time.Since(l.state.Started).Round(time.Second), l.state.Ready.Seconds(), total>>20)
	} else {
		fmt.Fprintf(table, "up has not finished; if it does not run any more: fairlead lab down --name %s\n", c.Name)
	}
	fmt.Fprintf(table, "export KUBECONFIG=%s\n\nMACHINE\tSTATE\tMEMORY\tADDRESSES\tSERVICES\n", l.Kubeconfig())
	for _, machine := range machines {
		state := "off"
		if machine.Running {
			state = "running"
		}
		var addrs []string
		for _, addr := range l.Addresses(machine.Name) {
			addrs = append(addrs, addr.String())
		}
		fmt.Fprintf(table, "%s\t%s\t%d MiB\t%s\t%s\n", machine.Name, state, memory[machine.Name]>>20,
			strings.Join(addrs, ","), services(machine))
	}
	fmt.Fprintln(table)
	if err := table.Flush(); err != nil {
		return fmt.Errorf("writing the status: %w", err)
	}
	nodes, err := l.Kubectl(ctx, "get", "nodes", "--output=wide", "--request-timeout=5s")
	if err != nil {
		nodes = fmt.Sprintf("The API server does not answer: %v\n", err)
	}
	_, err = io.WriteString(out, nodes)
	return err
}

// services lists those of a machine, with what is not as it should be.
func services(machine world.MachineState) string {
	var texts []string
	for _, service := range machine.Services {
		text := service.Name
		switch {
		case service.Stopped:
			text += " (stopped)"
		case service.PID == 0:
			text += fmt.Sprintf(" (not running: %s)", service.LastExit)
		case service.Restarts > 0:
			text += fmt.Sprintf(" (restarted %d times, last: %s)", service.Restarts, service.LastExit)
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}

// Memory returns the proportional set size of each machine's processes, in
// bytes. A page that several processes share counts once in the sum.
func (l *Lab) Memory() (map[string]uint64, error) {
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	memory := map[string]uint64{}
	for _, process := range processes {
		// A process that has ended meanwhile has no files: it counts nothing.
		cgroups, _ := os.ReadFile(filepath.Join(process, "cgroup"))
		_, rest, found := strings.Cut(string(cgroups), "/fairlead-lab/"+l.Name()+"/")
		if !found {
			continue
		}
		machine := rest[:strings.IndexAny(rest, "/\n")]
		rollup, _ := os.ReadFile(filepath.Join(process, "smaps_rollup"))
		_, rest, _ = strings.Cut(string(rollup), "\nPss:")
		if fields := strings.Fields(rest); len(fields) > 0 {
			kib, err := strconv.ParseUint(fields[0], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("reading the memory of %s: %w", process, err)
			}
			memory[machine] += kib << 10
		}
	}
	return memory, nil
}

// Logs returns the paths of the logs of some services of a machine; of all if
// none is named.
func (l *Lab) Logs(machine string, services ...string) ([]string, error) {
	paths, err := filepath.Glob(l.world.LogPath(machine, "*"))
	if err != nil {
		return nil, fmt.Errorf("listing the logs of %s: %w", machine, err)
	}
	if len(services) == 0 && len(paths) > 0 {
		return paths, nil
	}
	var chosen, names []string
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".log")
		names = append(names, name)
		for _, service := range services {
			if name == service {
				chosen = append(chosen, path)
			}
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("lab %s has no log of %s on machine %q; there are logs of %q", l.Name(), services, machine, names)
	}
	return chosen, nil
}
