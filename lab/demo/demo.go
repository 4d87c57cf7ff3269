// Package demo is a tour for newcomers: it brings up a lab, deploys a small web
// application in it, and shows which way each packet goes. It checks what it
// shows and fails if that is not so; it is no replacement for tests.
//
// It is driven by one caller at a time.
package demo

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/lab"
)

// Name is the name of the demo's lab.
const Name = "demo"

//go:embed app.yaml
var app []byte

// Ports of the web application's pods and of the host outside.
const (
	podPort      = 8080
	internetPort = 80
)

// tour is a demo under way.
type tour struct {
	lab      *lab.Lab
	out      io.Writer
	pods     []pod // by node, then by name
	failures int
}

// pod is one replica of the web application.
type pod struct {
	Name      string
	Node      string
	Addresses []netip.Addr
}

// ErrFailed says that something was not as it should be; what, was printed.
var ErrFailed = errors.New("the demo showed something that should not be so; see the lines marked ✗")

// Run brings up the demo's lab, unless it is up, and gives the tour.
func Run(ctx context.Context, out io.Writer) error {
	running, err := lab.Open(Name)
	if err != nil || !running.Ready() {
		fmt.Fprintln(out, "A real Kubernetes cluster of 3 nodes on 2 segments, with Fairlead as its network:")
		if running, err = lab.Up(ctx, lab.Config{Name: Name}, out); err != nil {
			return err
		}
	}
	t := &tour{lab: running, out: out}
	if err := t.deploy(ctx); err != nil {
		return err
	}
	for _, show := range []func(context.Context) error{t.showPods, t.showNode, t.showOutside, t.showService} {
		if err := show(ctx); err != nil {
			return err
		}
	}
	if t.failures > 0 {
		return ErrFailed
	}
	t.end()
	return nil
}

// deploy applies the application and waits until it runs.
func (t *tour) deploy(ctx context.Context) error {
	fmt.Fprintln(t.out, "\nA small web application, from ordinary YAML (lab/demo/app.yaml):")
	if err := t.lab.Apply(ctx, bytes.ReplaceAll(app, []byte("AGNHOST_IMAGE"), []byte(lab.AgnhostImage))); err != nil {
		return err
	}
	if _, err := t.lab.Kubectl(ctx, "-n", "demo", "rollout", "status", "deployment/web", "--timeout=120s"); err != nil {
		return err
	}
	listed, err := t.lab.Kubectl(ctx, "-n", "demo", "get", "pods", "-l", "app=web", "-o", "json")
	if err != nil {
		return err
	}
	t.pods, err = readPods(listed)
	if err != nil {
		return err
	}
	for _, pod := range t.pods {
		fmt.Fprintf(t.out, "  %-22s on %s  %s\n", pod.Name, pod.Node, joined(pod.Addresses))
	}
	return nil
}

func readPods(listed string) ([]pod, error) {
	var list struct {
		Items []struct {
			Metadata struct {
				Name              string
				DeletionTimestamp string
			}
			Spec   struct{ NodeName string }
			Status struct {
				PodIPs []struct{ IP netip.Addr }
			}
		}
	}
	if err := json.Unmarshal([]byte(listed), &list); err != nil {
		return nil, fmt.Errorf("reading the list of pods: %w", err)
	}
	var pods []pod
	for _, item := range list.Items {
		if item.Metadata.DeletionTimestamp != "" {
			continue
		}
		found := pod{Name: item.Metadata.Name, Node: item.Spec.NodeName}
		for _, ip := range item.Status.PodIPs {
			found.Addresses = append(found.Addresses, ip.IP)
		}
		pods = append(pods, found)
	}
	slices.SortFunc(pods, func(a, b pod) int { return strings.Compare(a.Node+a.Name, b.Node+b.Name) })
	return pods, nil
}

// showPods goes from one pod to another on the same node, on a node of the
// same segment, and on a node behind the router.
func (t *tour) showPods(ctx context.Context) error {
	from, to, err := t.choosePairs()
	if err != nil {
		return err
	}
	titles := []string{"pod to pod, on the same node", "pod to pod, nodes on one segment", "pod to pod, nodes with a router between them"}
	for i, title := range titles {
		t.section(title)
		for _, target := range to[i].Addresses {
			source, ok := sameFamily(from[i].Addresses, target)
			if !ok {
				continue
			}
			err := t.visit(ctx, visit{
				node: from[i].Node, pod: from[i].Name, from: from[i].Name,
				target: netip.AddrPortFrom(target, podPort), to: to[i].Name, seenAs: []netip.Addr{source}, meaning: "its own address",
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// choosePairs picks pods by the segments of their nodes.
func (t *tour) choosePairs() (from, to [3]pod, err error) {
	segment := map[string]int{}
	for _, node := range t.lab.Nodes() {
		segment[node.Name] = node.Segment
	}
	for _, a := range t.pods {
		for _, b := range t.pods {
			way := 2
			switch {
			case a.Name == b.Name:
				continue
			case a.Node == b.Node:
				way = 0
			case segment[a.Node] == segment[b.Node]:
				way = 1
			}
			if from[way].Name == "" {
				from[way], to[way] = a, b
			}
		}
	}
	for _, pod := range from {
		if pod.Name == "" {
			return from, to, fmt.Errorf("the application's pods are not spread over the nodes; fairlead lab --name %s kubectl -n demo get pods -o wide shows where they are", Name)
		}
	}
	return from, to, nil
}

// showNode goes from nodes themselves to pods, all three ways.
func (t *tour) showNode(ctx context.Context) error {
	from, to, err := t.choosePairs()
	if err != nil {
		return err
	}
	t.section("node to pod")
	for i := range from {
		own, err := t.ownAddresses(from[i].Node)
		if err != nil {
			return err
		}
		err = t.visit(ctx, visit{
			node: from[i].Node, from: from[i].Node,
			target: netip.AddrPortFrom(to[i].Addresses[0], podPort), to: to[i].Name, meaning: "the node's",
			seenAs: own,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// showOutside goes from a pod to the host outside the cluster, which has no
// way back to pods.
func (t *tour) showOutside(ctx context.Context) error {
	t.section("pod to the outside")
	from := t.pods[0]
	for _, target := range t.lab.Addresses(lab.Internet) {
		if _, ok := sameFamily(from.Addresses, target); !ok {
			continue
		}
		err := t.visit(ctx, visit{
			node: from.Node, pod: from.Name, from: from.Name,
			target: netip.AddrPortFrom(target, internetPort), to: lab.Internet,
			seenAs: t.lab.Addresses(from.Node), meaning: "masqueraded as its node",
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// showService asks the application by name, through cluster DNS, which
// runs as it does anywhere, and its Service.
func (t *tour) showService(ctx context.Context) error {
	t.section("by name, through cluster DNS and its Service")
	from := t.pods[0]
	answered := map[string]int{}
	for range 12 {
		name, err := t.lab.Kubectl(ctx, append([]string{"-n", "demo", "exec", from.Name, "--"}, get("http://web.demo/hostname")...)...)
		if err != nil {
			return fmt.Errorf("asking http://web.demo: %w", err)
		}
		answered[strings.TrimSpace(name)]++
	}
	fmt.Fprintf(t.out, "  ✓ http://web.demo was answered by %d of the %d pods in 12 requests\n", len(answered), len(t.pods))
	return nil
}

func (t *tour) section(title string) { fmt.Fprintf(t.out, "\n%s\n", title) }

func (t *tour) end() {
	fmt.Fprintf(t.out, `
All of it is as it should be. What to try next:
  bin/fairlead lab --name %[1]s kubectl get pods -A -o wide
  bin/fairlead lab --name %[1]s shell node1      then: ip route; nft list ruleset; tcpdump -ni any
  bin/fairlead lab --name %[1]s link down node3  and see what status says
  bin/fairlead lab --name %[1]s kubectl get nodenetworks
  KUBECONFIG=%[2]s bin/fairlead status
  make demo-down                            takes it all away
`, Name, t.lab.Kubeconfig())
}

func joined(addresses []netip.Addr) string {
	var texts []string
	for _, addr := range addresses {
		texts = append(texts, addr.String())
	}
	return strings.Join(texts, "  ")
}

func sameFamily(addresses []netip.Addr, as netip.Addr) (netip.Addr, bool) {
	for _, addr := range addresses {
		if addr.Is4() == as.Is4() {
			return addr, true
		}
	}
	return netip.Addr{}, false
}
