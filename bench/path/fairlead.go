package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/fairlead-net/fairlead/dataplane"
	"github.com/fairlead-net/fairlead/dataplane/netlink"
	"github.com/fairlead-net/fairlead/dataplane/nftables"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/servers/udptunnel"
)

// fairlead joins the pods by all that an agent programs, with so many Services.
func fairlead(backend model.Backend, direct bool, services int) recipe {
	return func(ctx context.Context, _ *world, node int) error {
		return program(ctx, plan.Compute(nil, withServices(snapshot(backend, direct, node), services), nodeName(node)))
	}
}

// program carries out a plan in the namespace of its node.
func program(ctx context.Context, desired *plan.Node) error {
	tunnel := udptunnel.New(slog.Default())
	routes, err := netlink.New()
	if err != nil {
		return err
	}
	defer routes.Close()
	for _, plane := range []dataplane.Dataplane{tunnel, routes, nftables.New()} {
		problems, err := plane.Apply(ctx, desired)
		if err != nil {
			return err
		}
		if len(problems) > 0 {
			return fmt.Errorf("%s", problems[0])
		}
	}
	go func() { _ = tunnel.Run(ctx) }()
	return nil
}

func nodeName(node int) string { return fmt.Sprintf("node%d", node) }

func snapshot(backend model.Backend, direct bool, node int) *model.Snapshot {
	s := &model.Snapshot{Revision: 1, Network: model.DefaultNetwork(), PoliciesKnown: true}
	s.Network.Backend, s.Network.DirectRouting = backend, direct
	for i := range 2 {
		s.Nodes = s.Nodes.With(nodeName(i), &model.Node{
			Name: nodeName(i), Addresses: []netip.Addr{nodeAddress(i)}, PodCIDRs: []netip.Prefix{podRange(i)},
		})
	}
	s.Links = s.Links.With(uplink, &model.Link{
		Name: uplink, MTU: 1500, Addresses: []netip.Prefix{netip.PrefixFrom(nodeAddress(node), 24)},
	})
	pod := &model.Pod{PodKey: model.PodKey{Namespace: "default", Name: "pod"}, Node: nodeName(node), Addresses: []netip.Addr{podAddress(node)}}
	s.Pods = s.Pods.With(pod.PodKey, pod)
	attachment := &model.Attachment{
		AttachmentKey: model.AttachmentKey{ContainerID: "c", Interface: "eth0"},
		Pod:           pod.PodKey,
		Device:        deviceOf(node), MAC: model.MAC(hardware(node, 1)), Addresses: []netip.Addr{podAddress(node)},
	}
	s.Attachments = s.Attachments.With(attachment.AttachmentKey, attachment)
	return s
}
