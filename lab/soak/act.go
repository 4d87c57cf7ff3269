package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/lab"
	"github.com/fairlead-net/fairlead/whole"
)

// How long after a fault has been mended its effects may last.
const (
	repairMost = 3 * time.Second  // what the agent puts back takes less than one
	bootMost   = 5 * time.Second  // after the agent and the pods of a node are back
	statusLag  = 60 * time.Second // until the API server has what is true of a node's pods
	backMost   = 2 * time.Minute  // until an agent that was ended answers
	nodeMost   = 4 * time.Minute  // until a node that was off is as before
)

// ourProtocol marks routes of Fairlead ("proto 175").
const ourProtocol = netlink.RouteProtocol(175)

// do carries out a step, announces what it may cost, and waits until it is over.
func (s *soak) do(ctx context.Context, t step) error {
	switch t.Kind {
	case createWorkload:
		return s.lab.Apply(ctx, []byte(workloadManifest(t.Name, t.Count)))
	case scaleWorkload:
		return s.kubectl(ctx, "scale", "deployment", t.Name, fmt.Sprintf("--replicas=%d", t.Count))
	case rollWorkload:
		return s.kubectl(ctx, "rollout", "restart", "deployment", t.Name)
	case deleteWorkload:
		return s.kubectl(ctx, "delete", "deployment", t.Name, "--wait=false")
	case createPod:
		return s.lab.Apply(ctx, []byte(podManifest(t.Name, t.Node, t.Count)))
	case deletePod:
		if t.Force {
			return s.kubectl(ctx, "delete", "pod", t.Name, "--wait=false", "--force")
		}
		return s.kubectl(ctx, "delete", "pod", t.Name, "--wait=false")
	case createService:
		return s.lab.Apply(ctx, []byte(serviceManifest(t.Name, t.Variant, t.Of)))
	case deleteService:
		return s.kubectl(ctx, "delete", "service", t.Name, "--wait=false")
	case changeNetwork:
		if err := s.changeNetwork(ctx, t.Variant); err != nil || t.For == 0 {
			return err
		}
		pause(ctx, t.For)
		back := strings.Replace(t.Variant, "=false", "=true", 1)
		return s.changeNetwork(context.WithoutCancel(ctx), back)
	case killAgent, starveMemory, deleteAgent:
		return s.endAgent(ctx, t)
	case deleteController:
		return s.kubectl(ctx, "delete", "pod", "--namespace=kube-system", "--selector=app.kubernetes.io/name=fairlead-controller", "--wait=false")
	case addNode:
		return s.addNode(ctx, t)
	case removeNode:
		return s.removeNode(ctx, t)
	default:
		return s.fault(ctx, t)
	}
}

// fault does the steps that break something for a while.
func (s *soak) fault(ctx context.Context, t step) error {
	world := s.lab.World()
	announce := func(effects effect, lag time.Duration) (end func()) {
		opened := s.windows.open(time.Now(), t.String(), effects, t.Node)
		return func() { s.windows.close(opened, time.Now().Add(lag)) }
	}
	switch t.Kind {
	case starveFiles:
		defer announce(agents, bootMost)()
		if err := s.lab.LimitAgent(ctx, t.Node, 8); err != nil {
			return err
		}
		pause(ctx, t.For)
		return s.lab.LimitAgent(ctx, t.Node, 1<<20)
	case stopAPIServer:
		return s.stopAPIServer(ctx, t)
	case reboot:
		return s.reboot(ctx, t)
	case cutLink:
		defer announce(links|statuses, bootMost)()
		if err := world.SetLink(ctx, t.Node, "eth0", false); err != nil {
			return err
		}
		pause(ctx, t.For)
		return world.SetLink(context.WithoutCancel(ctx), t.Node, "eth0", true)
	case flushRules:
		defer announce(services, repairMost)()
		argv := []string{"nft", "delete", "table", "inet", ourTable}
		if t.Variant == "all" {
			argv = []string{"nft", "flush", "ruleset"}
		}
		_, err := s.lab.Exec(ctx, t.Node, argv...)
		return err
	case deleteRoute:
		defer announce(links|tunnels|services, repairMost)()
		return s.inside(t.Node, func() (string, error) { return dropRoute(t.Count) })
	case deleteEntry:
		defer announce(tunnels, repairMost)()
		return s.inside(t.Node, func() (string, error) { return dropEntry(t.Count) })
	case deleteTunnel:
		defer announce(tunnels, repairMost)()
		return s.inside(t.Node, dropTunnels)
	default:
		return fmt.Errorf("no such action: %s", t.Kind)
	}
}

func (s *soak) kubectl(ctx context.Context, argv ...string) error {
	if argv[0] == "delete" {
		argv = append(argv, "--ignore-not-found")
	}
	if !slices.ContainsFunc(argv, func(a string) bool { return strings.HasPrefix(a, "--namespace=") }) {
		argv = append(argv, "--namespace="+namespace)
	}
	_, err := s.lab.Kubectl(ctx, argv...)
	return err
}

// inside does something to the kernel of a node, and logs what it was.
func (s *soak) inside(node string, f func() (string, error)) error {
	return s.lab.World().Do(node, func() error {
		what, err := f()
		s.log("on %s: %s", node, what)
		return err
	})
}

// changeNetwork sets a field of the Network, such as backend=udp or
// masquerade.ipv4=false.
func (s *soak) changeNetwork(ctx context.Context, setting string) error {
	path, text, _ := strings.Cut(setting, "=")
	var value any = text
	if text == "true" || text == "false" {
		value = text == "true"
	}
	fields := strings.Split(path, ".")
	for _, field := range slices.Backward(fields) {
		value = map[string]any{field: value}
	}
	patch, err := json.Marshal(map[string]any{"spec": value})
	if err != nil {
		return err
	}
	return s.kubectl(ctx, "patch", "networks.fairlead.io", "default", "--type=merge", "--patch="+string(patch))
}

// endAgent ends the agent of a node in one of three ways, and waits until there is
// another one.
func (s *soak) endAgent(ctx context.Context, t step) error {
	effects := agents
	if t.UserSpace {
		effects |= tunnels
	}
	opened := s.windows.open(time.Now(), t.String(), effects, t.Node)
	defer func() { s.windows.close(opened, time.Now().Add(bootMost)) }()
	before, _, err := processOf(s.lab.World(), t.Node, "agent")
	if err != nil {
		return err
	}
	switch t.Kind {
	case killAgent:
		err = s.lab.KillAgent(ctx, t.Node)
	case starveMemory:
		err = s.lab.StarveAgent(ctx, t.Node)
	default:
		err = s.kubectl(ctx, "delete", "pod", "--namespace=kube-system", "--wait=false",
			"--selector=app.kubernetes.io/name=fairlead-agent", "--field-selector=spec.nodeName="+t.Node)
	}
	if err != nil {
		return err
	}
	return until(ctx, backMost, "another agent on "+t.Node, func(context.Context) error { return s.agentAnswers(t.Node, before) })
}

// agentAnswers says whether an agent that is not the one of before is ready.
func (s *soak) agentAnswers(node string, before int) error {
	pid, _, err := processOf(s.lab.World(), node, "agent")
	if err != nil {
		return err
	}
	if pid == 0 || pid == before {
		return fmt.Errorf("the process is %d, and was %d", pid, before)
	}
	return s.lab.World().Do(node, func() error {
		status, body, err := ask(agentAddress, "/readyz", 2*time.Second)
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("status %d: %s", status, body)
		}
		return err
	})
}

func (s *soak) stopAPIServer(ctx context.Context, t step) error {
	opened := s.windows.open(time.Now(), t.String(), api|statuses)
	defer func() { s.windows.close(opened, time.Now().Add(statusLag/2)) }()
	world := s.lab.World()
	if err := world.StopService(ctx, lab.Control, "kube-apiserver"); err != nil {
		return err
	}
	pause(ctx, t.For)
	if err := world.StartService(context.WithoutCancel(ctx), lab.Control, "kube-apiserver"); err != nil {
		return err
	}
	return until(ctx, time.Minute, "the API server", func(ctx context.Context) error {
		_, err := s.cluster.look(ctx)
		return err
	})
}

// reboot waits until the fixed pod of the node is known by its new address.
func (s *soak) reboot(ctx context.Context, t step) error {
	now := time.Now()
	traffic := s.windows.open(now, t.String(), links|tunnels|services|agents, t.Node)
	status := s.windows.open(now, t.String(), statuses, t.Node)
	defer func() {
		s.windows.close(traffic, time.Now().Add(bootMost))
		s.windows.close(status, time.Now().Add(statusLag))
	}()
	door := s.door(t.Node)
	door.Lock() // whoever is in its network leaves within seconds
	err := s.lab.World().StopMachine(ctx, t.Node, t.Variant == "shut down")
	if err == nil {
		err = s.lab.Start(ctx, t.Node)
	}
	door.Unlock()
	if err != nil {
		return err
	}
	name := strings.Replace(t.Node, "node", "fixed", 1)
	return until(ctx, nodeMost, t.Node+" as before", func(ctx context.Context) error {
		if err := s.agentAnswers(t.Node, 0); err != nil {
			return err
		}
		e, err := s.end(name)
		if err != nil {
			return err
		}
		defer e.netns.Close()
		var p pod
		if err := s.cluster.get(ctx, "/api/v1/namespaces/"+namespace+"/pods/"+name, &p); err != nil {
			return err
		}
		for _, addr := range p.addresses() {
			if !p.running() || !slices.Contains(e.addrs, addr) {
				return fmt.Errorf("pod %s has %s and its status says %s, running %t", name, e.addrs, p.addresses(), p.running())
			}
		}
		return nil
	})
}

func (s *soak) addNode(ctx context.Context, t step) error {
	now := time.Now()
	opened := s.windows.open(now, t.String(), agents|statuses|links, t.Node)
	defer func() { s.windows.close(opened, time.Now().Add(statusLag)) }()
	unlock, err := s.lab.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	node, err := s.lab.AddNode(ctx, io.Discard)
	if err == nil && node.Name != t.Node {
		err = fmt.Errorf("it is called %s", node.Name)
	}
	if err != nil {
		return err
	}
	s.setNode(t.Node, true)
	return nil
}

// removeNode removes a node, and what Kubernetes would forget a minute later: the
// pods on it.
func (s *soak) removeNode(ctx context.Context, t step) error {
	opened := s.windows.open(time.Now(), t.String(), agents|statuses|links, t.Node)
	defer func() { s.windows.close(opened, time.Now().Add(statusLag)) }()
	unlock, err := s.lab.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	s.setNode(t.Node, false)
	door := s.door(t.Node)
	door.Lock()
	err = s.lab.DeleteNode(ctx, t.Node)
	door.Unlock()
	if err != nil {
		return err
	}
	for _, where := range []string{"kube-system", namespace} {
		err = errors.Join(err, s.kubectl(ctx, "delete", "pod", "--namespace="+where, "--field-selector=spec.nodeName="+t.Node, "--force", "--wait=false"))
	}
	return err
}

// deleteAll makes the cluster what it was in the beginning.
func (s *soak) deleteAll(ctx context.Context) error {
	if slices.Contains(s.nodes(), spareNode) {
		if err := s.removeNode(ctx, step{Kind: removeNode, Node: spareNode}); err != nil {
			return err
		}
	}
	for _, setting := range []string{"backend=" + backends[0], "directRouting=true", "masquerade.ipv4=true"} {
		if err := s.changeNetwork(ctx, setting); err != nil {
			return err
		}
	}
	if err := s.kubectl(ctx, "delete", "deployments,services,pods", "--selector=soak="+churn); err != nil {
		return err
	}
	for _, node := range s.nodes() {
		if err := until(ctx, backMost, "the agent of "+node, func(context.Context) error { return s.agentAnswers(node, 0) }); err != nil {
			return err
		}
	}
	return nil
}

// dropRoute deletes one of Fairlead's routes, chosen by a number.
func dropRoute(number int) (string, error) {
	all, err := whole.List(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Protocol: ourProtocol}, netlink.RT_FILTER_PROTOCOL)
	})
	if err != nil {
		return "no route deleted", fmt.Errorf("listing routes: %w", err)
	}
	if len(all) == 0 {
		return "there is no route to delete", nil
	}
	chosen := all[number%len(all)]
	if err := netlink.RouteDel(&chosen); err != nil && !errors.Is(err, unix.ESRCH) {
		return "no route deleted", fmt.Errorf("deleting route %s: %w", chosen, err)
	}
	return "deleted route " + chosen.String(), nil
}

// dropEntry deletes one of the forwarding entries of tunnels.
func dropEntry(number int) (string, error) {
	all, err := whole.List(func() ([]netlink.Neigh, error) { return netlink.NeighList(0, unix.AF_BRIDGE) })
	if err != nil {
		return "no entry deleted", fmt.Errorf("listing forwarding entries: %w", err)
	}
	all = slices.DeleteFunc(all, func(n netlink.Neigh) bool { return n.State&netlink.NUD_PERMANENT == 0 || n.IP == nil })
	if len(all) == 0 {
		return "there is no forwarding entry to delete", nil
	}
	chosen := all[number%len(all)]
	if err := netlink.NeighDel(&chosen); err != nil && !errors.Is(err, unix.ENOENT) {
		return "no entry deleted", fmt.Errorf("deleting the forwarding entry of %s: %w", chosen.HardwareAddr, err)
	}
	return fmt.Sprintf("deleted the forwarding entry of %s to %s", chosen.HardwareAddr, chosen.IP), nil
}

// dropTunnels deletes the devices of all tunnels.
func dropTunnels() (string, error) {
	all, err := whole.List(netlink.LinkList)
	if err != nil {
		return "no tunnel deleted", fmt.Errorf("listing links: %w", err)
	}
	var deleted []string
	for _, link := range all {
		name := link.Attrs().Name
		if !strings.HasPrefix(name, "fairlead-") || !slices.Contains([]string{"vxlan", "ipip", "tuntap", "tun"}, link.Type()) {
			continue
		}
		if err := netlink.LinkDel(link); err != nil {
			return "no tunnel deleted", fmt.Errorf("deleting %s: %w", name, err)
		}
		deleted = append(deleted, name)
	}
	return "deleted tunnels: " + strings.Join(deleted, ", "), nil
}
