package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/agent"
	"github.com/fairlead-net/fairlead/dataplane"
	routes "github.com/fairlead-net/fairlead/dataplane/netlink"
	"github.com/fairlead-net/fairlead/dataplane/nftables"
	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
)

// cluster is a source and a publisher without a cluster.
type cluster struct{ synced chan struct{} }

func (c *cluster) Run(ctx context.Context, feed *model.Feed) error {
	feed.Edit(func(s *model.Snapshot) {
		s.Network, s.PoliciesKnown = model.DefaultNetwork(), true
		s.Nodes = s.Nodes.With("node", &model.Node{
			Name: "node", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
			PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")},
		})
	})
	close(c.synced)
	<-ctx.Done()
	return nil
}

// FollowNames does nothing: there is nobody who serves names.
func (c *cluster) FollowNames() {}

func (c *cluster) Synced() <-chan struct{}                            { return c.synced }
func (c *cluster) PoliciesRead() <-chan struct{}                      { return c.synced }
func (c *cluster) Changed() <-chan struct{}                           { return nil }
func (c *cluster) Problems() []model.Problem                          { return nil }
func (c *cluster) PublishNode(context.Context, kube.NodeStatus) error { return nil }
func (c *cluster) Pod(_ context.Context, key model.PodKey) (*model.Pod, error) {
	return &model.Pod{PodKey: key, Node: "node"}, nil
}
func (c *cluster) WriteEvent(context.Context, kube.Event) error { return nil }

// startAgent returns the agent's socket, what reads its histogram, and what ends
// it.
func startAgent(ctx context.Context, dir string) (socket string, metrics func() ([]string, error), stop func(), err error) {
	if err := addUplink(); err != nil {
		return "", nil, nil, err
	}
	plane, err := routes.New()
	if err != nil {
		return "", nil, nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return "", nil, nil, err
	}
	c := &cluster{make(chan struct{})}
	config := agent.Config{
		Node: "node", Version: "bench", Source: c, Publisher: c, Pods: c, Dataplanes: []dataplane.Dataplane{plane, nftables.New()},
		RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state"),
		CNIBinDir: filepath.Join(dir, "bin"), CNIConfDir: filepath.Join(dir, "conf"),
		HealthAddress: address, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- agent.Run(ctx, config) }()
	ready := filepath.Join(config.RunDir, "ready")
	for {
		if _, err := os.Stat(ready); err == nil {
			break
		}
		select {
		case err := <-ended:
			cancel()
			return "", nil, nil, fmt.Errorf("the agent ended: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	stop = func() {
		cancel()
		<-ended
		plane.Close()
	}
	return filepath.Join(config.RunDir, "cni.sock"), func() ([]string, error) { return scrape(address) }, stop, nil
}

// addUplink makes the interface that the node has.
func addUplink() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "uplink"
	uplink := netlink.NewVeth(attrs)
	uplink.PeerName = "wire"
	if err := netlink.LinkAdd(uplink); err != nil {
		return fmt.Errorf("make the uplink: %w", err)
	}
	for _, name := range []string{"lo", "uplink", "wire"} {
		link, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(link)
		}
		if err != nil {
			return fmt.Errorf("set %s up: %w", name, err)
		}
	}
	for _, prefix := range []net.IPNet{
		{IP: net.IPv4(192, 0, 2, 1).To4(), Mask: net.CIDRMask(24, 32)},
		{IP: net.ParseIP("2001:db8::1"), Mask: net.CIDRMask(64, 128)},
	} {
		if err := netlink.AddrAdd(uplink, &netlink.Addr{IPNet: &prefix, Flags: 0x02 /* IFA_F_NODAD */}); err != nil {
			return fmt.Errorf("give the uplink %s: %w", prefix.IP, err)
		}
	}
	return nil
}
