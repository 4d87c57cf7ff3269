package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/lab/world"
)

// How long something may be otherwise than it should, outside of windows.
const (
	apiMost       = 10 * time.Second
	duplicateMost = 3 * time.Second
	statusMost    = 10 * time.Second // a status that is not what the kernel has
	healthMost    = 10 * time.Second // of an agent that has run for youngMost
	youngMost     = 30 * time.Second
	missingMost   = 90 * time.Second // no process of an agent
	problemMost   = 60 * time.Second
	podMost       = 2 * time.Minute // a pod that comes or goes
	staleMost     = 5 * time.Second // a flow over UDP to a pod that is gone
)

// watchMachine notes when this machine cannot do its work.
func (s *soak) watchMachine(ctx context.Context) {
	const every, late = 100 * time.Millisecond, 500 * time.Millisecond
	full := queuesFull()
	for last := time.Now(); ctx.Err() == nil; last = time.Now() {
		pause(ctx, every)
		now := queuesFull()
		if time.Since(last) > every+late || now > full {
			s.busy.note(time.Now())
		}
		full = now
	}
}

// queuesFull counts the packets of the whole machine that found the queue between
// two interfaces full (second column of softnet_stat).
func queuesFull() (packets uint64) {
	text, _ := os.ReadFile("/proc/net/softnet_stat")
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 {
			dropped, _ := strconv.ParseUint(fields[1], 16, 32)
			packets += dropped
		}
	}
	return packets
}

// watchCluster looks at all invariants once a second, but for those of traffic.
func (s *soak) watchCluster(ctx context.Context) {
	judge := newComplaints()
	normal := map[string]bool(nil) // problems that are there from the start
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for ctx.Err() == nil {
		found, v := s.look(ctx)
		if ctx.Err() != nil {
			return
		}
		if v != nil && normal == nil {
			normal = map[string]bool{}
			for _, problem := range problems(v) {
				normal[problem.key] = true
			}
		}
		now := time.Now()
		for _, broken := range judge.judge(now, found, func(c complaint) bool {
			return normal[c.key] || s.windows.excuse(c.needs, c.nodes, now, now) != ""
		}) {
			s.breaks("%s, for %s", broken.text, broken.after)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// look collects what should not be so at this moment. The view is nil if the API
// server does not answer.
func (s *soak) look(ctx context.Context) (found []complaint, v *view) {
	kernels := map[string]*kernelView{}
	flows := map[string][]flow{}
	for _, node := range s.nodes() {
		leave, ok := s.machine(node)
		if !ok {
			continue
		}
		found = append(found, s.lookAgent(node)...)
		err := inside(s.lab.World(), node, func(pid int) (err error) {
			if flows[node], err = connections(unix.IPPROTO_UDP); err == nil {
				kernels[node], err = lookKernel(pid)
			}
			return err
		})
		leave()
		if err != nil {
			found = append(found, complaint{"look " + node, fmt.Sprintf("the kernel of %s cannot be read: %v", node, err), statusMost, links, []string{node}})
			delete(kernels, node)
		}
	}
	found = append(found, duplicates(kernels)...)
	s.looked("addresses of pods in the kernels: none twice", len(kernels))
	v, err := s.cluster.look(ctx)
	if err != nil {
		return append(found, complaint{"api", fmt.Sprintf("the API server does not answer: %v", err), apiMost, api, nil}), nil
	}
	s.mu.Lock()
	s.seen = v
	s.mu.Unlock()
	found = append(found, statusDuplicates(v)...)
	for node, kernel := range kernels {
		found = append(found, kernel.compare(node, v)...)
		found = append(found, stale(node, flows[node], v)...)
	}
	found = append(found, problems(v)...)
	found = append(found, slow(v, time.Now())...)
	for _, node := range v.nodes {
		if !slices.Contains(s.nodes(), node) {
			found = append(found, complaint{"gone " + node, "there is a NodeNetwork " + node + " and no such node", podMost, agents, []string{node}})
		}
	}
	s.looked("addresses of pods in their status: none twice", 1)
	s.looked("pods have the addresses of their status, and a route", len(kernels))
	s.looked("no flow over UDP leads to a pod that is gone", len(kernels))
	s.looked("no new problem stays", 1)
	s.looked("pods come and go", 1)
	return found, v
}

// lookAgent asks an agent for its health.
func (s *soak) lookAgent(node string) []complaint {
	s.looked("agents are healthy", 1)
	nodes := []string{node}
	pid, age, err := processOf(s.lab.World(), node, "agent")
	if errors.Is(err, world.ErrNotRunning) || pid == 0 {
		return []complaint{{"agent " + node, "no agent runs on " + node, missingMost, agents, nodes}}
	}
	if age < youngMost {
		return nil
	}
	var status int
	var body []byte
	err = s.lab.World().Do(node, func() (err error) {
		status, body, err = ask(agentAddress, "/healthz", 2*time.Second)
		return err
	})
	if err != nil || status != http.StatusOK {
		return []complaint{{"health " + node, fmt.Sprintf("the agent of %s is not healthy: %d %q %v", node, status, body, err), healthMost, agents, nodes}}
	}
	return nil
}

// duplicates are addresses that two pods have, in the kernels.
func duplicates(kernels map[string]*kernelView) (found []complaint) {
	owner := map[netip.Addr]string{}
	for _, node := range slices.Sorted(maps.Keys(kernels)) {
		for _, name := range slices.Sorted(maps.Keys(kernels[node].pods)) {
			for _, addr := range kernels[node].pods[name] {
				here := name + " on " + node
				if other, ok := owner[addr]; ok && other != here {
					found = append(found, complaint{"twice " + addr.String(), fmt.Sprintf("%s and %s both have the address %s", other, here, addr), duplicateMost, 0, nil})
				}
				owner[addr] = here
			}
		}
	}
	return found
}

// statusDuplicates are those that the API server has. A pod of a node that
// reboots keeps the address of before in its status for a while.
func statusDuplicates(v *view) (found []complaint) {
	owner := map[netip.Addr]*pod{}
	for i := range v.pods {
		p := &v.pods[i]
		if p.Spec.HostNetwork || p.ended() || p.Metadata.Deleted != nil {
			continue
		}
		for _, addr := range p.addresses() {
			if other := owner[addr]; other != nil {
				found = append(found, complaint{
					"status twice " + addr.String(), fmt.Sprintf("%s and %s both say that they have the address %s", other.name(), p.name(), addr),
					duplicateMost, statuses, []string{other.Spec.Node, p.Spec.Node},
				})
			}
			owner[addr] = p
		}
	}
	return found
}

// compare says where the kernel of a node does not have what running pods should.
func (k *kernelView) compare(node string, v *view) (found []complaint) {
	for i := range v.pods {
		p := &v.pods[i]
		if p.Spec.Node != node || !p.running() {
			continue
		}
		say := func(key, format string, args ...any) {
			found = append(found, complaint{key + " " + p.name(), fmt.Sprintf(format, args...), statusMost, statuses | agents, []string{node}})
		}
		has, ok := k.pods[p.name()]
		want := p.addresses()
		slices.SortFunc(has, netip.Addr.Compare)
		slices.SortFunc(want, netip.Addr.Compare)
		if !ok {
			say("absent", "pod %s runs on %s, which has no device of it", p.name(), node)
		} else if !slices.Equal(has, want) {
			say("addresses", "pod %s has %s and its status says %s", p.name(), has, want)
		}
		for _, addr := range want {
			if device := k.routes[addr]; ok && device != k.device[p.name()] {
				say("route", "the route of %s to %s on %s goes to %q, not to %q", p.name(), addr, node, device, k.device[p.name()])
			}
		}
	}
	return found
}

// podRange holds the addresses of pods of a lab.
var podRange = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10:244::/56")}

// stale are flows over UDP to pods that are gone, and of which no Service has an endpoint
// any more. The EndpointSlices of a pod may outlive it: the controller that writes them
// waits for longer and longer when it has met an API server that was just started
// ("EndpointSlice informer cache is out of date"), and until then nobody may know better.
func stale(node string, flows []flow, v *view) (found []complaint) {
	living := map[netip.Addr]bool{}
	for i := range v.pods {
		for _, addr := range v.pods[i].addresses() {
			living[addr] = living[addr] || !v.pods[i].ended()
		}
	}
	for _, f := range flows {
		addr := f.endpoint.Addr()
		// Answers to pods that are masqueraded end at the node.
		if !living[addr] && !v.named[addr] && slices.ContainsFunc(podRange, func(p netip.Prefix) bool { return p.Contains(addr) }) {
			found = append(found, complaint{"stale " + node + f.String(), node + ": UDP " + f.String() + ", which neither a pod nor a Service has", staleMost, agents | api, []string{node}})
		}
	}
	return found
}

// problems are those that Fairlead tells of. One of the Network may be of any
// node; that node tells it too.
func problems(v *view) (found []complaint) {
	for _, node := range slices.Sorted(maps.Keys(v.problems)) {
		nodes := []string{node}
		for _, p := range v.problems[node] {
			if node == "" {
				nodes = nil
			}
			name := strings.Join(strings.Fields(strings.Join([]string{node, p.Kind, p.Namespace, p.Name, p.Reason}, " ")), " ")
			found = append(found, complaint{"problem " + name, fmt.Sprintf("problem %s: %s", name, p.Message), problemMost, agents | links | api, nodes})
		}
	}
	return found
}

// slow are pods that neither come nor go.
func slow(v *view, now time.Time) (found []complaint) {
	for i := range v.pods {
		p := &v.pods[i]
		nodes := []string{p.Spec.Node}
		if p.Spec.Node == "" {
			nodes = nil
		}
		switch {
		case p.Metadata.Deleted != nil && now.After(*p.Metadata.Deleted):
			found = append(found, complaint{"ends " + p.Metadata.UID, fmt.Sprintf("pod %s on %s does not end", p.name(), p.Spec.Node), podMost, agents | statuses | api, nodes})
		case p.Metadata.Deleted == nil && !p.ended() && !p.ready():
			found = append(found, complaint{"comes " + p.Metadata.UID, fmt.Sprintf("pod %s on %s is not ready", p.name(), p.Spec.Node), podMost, agents | statuses | api, nodes})
		}
	}
	return found
}
