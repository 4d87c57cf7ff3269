package lab

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"
)

// Node returns the node of this name.
func (l *Lab) Node(name string) (Node, error) {
	for _, node := range l.state.Nodes {
		if node.Name == name {
			return node, nil
		}
	}
	return Node{}, fmt.Errorf("lab %s has no node %q", l.Name(), name)
}

// AddNode makes one more node, on the segment that has the fewest, and returns
// when it is ready, or registered if the lab has no network. The caller holds
// the lock of the lab.
func (l *Lab) AddNode(ctx context.Context, out io.Writer) (Node, error) {
	load := make([]int, l.state.Config.Segments)
	for _, node := range l.state.Nodes {
		load[node.Segment-1]++
	}
	number, err := l.nextNumber()
	if err != nil {
		return Node{}, fmt.Errorf("adding a node: %w", err)
	}
	node := l.state.Config.node(number, 1+slices.Index(load, slices.Min(load)))
	return node, l.addNode(ctx, node, out)
}

// nextNumber is higher than that of any node; addresses go by it.
func (l *Lab) nextNumber() (int, error) {
	number := 1
	for _, node := range l.state.Nodes {
		number = max(number, node.Number+1)
	}
	if number > maxNodes {
		return 0, fmt.Errorf("lab %s has used all of its %d numbers", l.Name(), maxNodes)
	}
	return number, nil
}

// addNode makes this node.
func (l *Lab) addNode(ctx context.Context, node Node, out io.Writer) error {
	ca, err := readAuthority(filepath.Join(l.etcDir(Control), "pki"))
	if err != nil {
		return err
	}
	s := &steps{out: out, start: time.Now()}
	l.state.Nodes = append(l.state.Nodes, node)
	if err := l.writeNodeFiles(ca, node); err != nil {
		return err
	}
	if err := l.save(); err != nil {
		return err
	}
	if err := s.do(node.Name+" has booted", func() error { return l.world.AddMachine(ctx, l.node(node)) }); err != nil {
		return err
	}
	if err := s.do("images are loaded", func() error { return l.loadImages(ctx, node.Name, l.imagesPath()) }); err != nil {
		return err
	}
	if err := l.waitFor(ctx, node.Name, "kubelet", "--for=create", "node/"+node.Name); err != nil {
		return err
	}
	if l.state.Config.Network == None {
		return nil
	}
	return s.do(node.Name+" is ready", func() error {
		return l.waitFor(ctx, node.Name, "kubelet", "--for=condition=Ready", "node/"+node.Name)
	})
}

// DeleteNode removes a node: its object and its machine. The caller holds the
// lock of the lab.
func (l *Lab) DeleteNode(ctx context.Context, name string) error {
	node, err := l.Node(name)
	if err != nil {
		return err
	}
	// The machine goes first: its kubelet would register the node again.
	if err := l.world.RemoveMachine(ctx, name); err != nil {
		return err
	}
	if _, err := l.Kubectl(ctx, "delete", "node", name, "--ignore-not-found"); err != nil {
		return err
	}
	l.state.Nodes = slices.DeleteFunc(l.state.Nodes, func(n Node) bool { return n == node })
	return l.save()
}

// Reboot switches a machine off and on. What it had in memory and in /run is
// gone, what it had on disk is not.
func (l *Lab) Reboot(ctx context.Context, machine string) error {
	if err := l.world.StopMachine(ctx, machine, true); err != nil {
		return err
	}
	return l.Start(ctx, machine)
}

// Start boots a machine that is off.
func (l *Lab) Start(ctx context.Context, machine string) error {
	if err := l.world.StartMachine(ctx, machine); err != nil {
		return err
	}
	if machine == Control {
		return l.openPortal(ctx)
	}
	return nil
}

// RenameNode removes a node and makes it again, from its first boot, under
// another name and with the same addresses. The caller holds the lock of the
// lab.
func (l *Lab) RenameNode(ctx context.Context, name, to string, out io.Writer) error {
	node, err := l.Node(name)
	if err != nil {
		return err
	}
	if _, err := l.Node(to); err == nil || !nameOf.MatchString(to) {
		return fmt.Errorf("renaming node %s: %q is taken, or is not a lower-case letter followed by up to 19 letters, digits and dashes", name, to)
	}
	if err := l.DeleteNode(ctx, name); err != nil {
		return err
	}
	node.Name = to
	return l.addNode(ctx, node, out)
}

// ReaddressNode reboots a node and gives it other addresses of its segment, as a
// lease that was lost does. Its name and what it has on disk stay. It returns
// when the cluster knows the node by its new addresses. The caller holds the
// lock of the lab.
func (l *Lab) ReaddressNode(ctx context.Context, name string) error {
	node, err := l.Node(name)
	if err != nil {
		return err
	}
	at := slices.Index(l.state.Nodes, node)
	if node.Number, err = l.nextNumber(); err != nil {
		return fmt.Errorf("readdressing node %s: %w", name, err)
	}
	ca, err := readAuthority(filepath.Join(l.etcDir(Control), "pki"))
	if err != nil {
		return err
	}
	if err := l.world.StopMachine(ctx, name, true); err != nil {
		return err
	}
	l.state.Nodes[at] = node
	if err := l.writeNodeFiles(ca, node); err != nil {
		return err
	}
	if err := l.world.ChangeMachine(ctx, l.node(node)); err != nil {
		return err
	}
	if err := l.save(); err != nil {
		return err
	}
	if err := l.world.StartMachine(ctx, name); err != nil {
		return err
	}
	return l.waitFor(ctx, name, "kubelet",
		"--for=jsonpath={.status.addresses[0].address}="+l.Addresses(name)[0].String(), "node/"+name)
}
