package agent

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead-net/fairlead/dataplane"
	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/metric"
	"github.com/fairlead-net/fairlead/plan/route"
)

// state is what the agent and its node are now. It is read when somebody asks:
// a scrape, or a user. Its methods may be called concurrently.
type state struct {
	node, version string
	began         time.Time
	feed          *model.Feed
	loop          *loop
	source        Source
	notices       *notices
	attacher      *attacher
	checks        checks
	metrics       *metrics
	traffic       *traffic
	drops         *drops
}

// collectors returns the metrics that are read of the state.
func (s *state) collectors() []prometheus.Collector {
	all := []prometheus.Collector{
		metric.Build(s.version),
		metric.Read(stateReadings(), s.read),
		metric.Read(nodeReadings(), s.readNode),
		metric.Read(dropReadings(), s.drops.readMetrics),
	}
	if watching, ok := s.source.(interface{ Watches() []kube.WatchState }); ok {
		all = append(all, metric.Watches(watching.Watches))
	}
	return all
}

// stateReadings are of what the agent knows.
func stateReadings() []metric.Reading {
	return []metric.Reading{
		{Name: "fairlead_snapshot_revision", Help: "Revision of the snapshot of the cluster; it grows with each change, from 1 when the agent begins."},
		{Name: "fairlead_applied_revision", Help: "Revision that was applied last without an error. What it lags behind fairlead_snapshot_revision is not in the kernel yet."},
		{Name: "fairlead_apply_busy_seconds", Help: "How long the apply in progress has taken; 0 between applies."},
		{Name: "fairlead_snapshot_objects", Help: "Objects in the snapshot: of the cluster, and of this node (links, attached pods).", Labels: []string{"kind"}},
		{Name: "fairlead_ready", Help: "1 if the network of the node is as planned, as its status says, else 0."},
		{Name: "fairlead_check_passed", Help: "1 if a step of the agent's start is done, else 0.", Labels: []string{"check"}},
		{Name: "fairlead_problems", Help: "Problems that users have to mend on this node, by their reason.", Labels: []string{"reason"}},
		{Name: "fairlead_refused_items", Help: "Parts of the plan that the kernel refuses."},
		{Name: "fairlead_peers", Help: "Other nodes, by the way to them; none: their pods are not reached.", Labels: []string{"way"}},
		{Name: "fairlead_uplink_mtu_bytes", Help: "MTU of the interface that carries traffic to other nodes.", Labels: []string{"device"}},
		{Name: "fairlead_addresses_capacity", Help: "Addresses that pods of the node can have.", Labels: []string{"family"}},
		{Name: "fairlead_addresses_in_use", Help: "Addresses that pods of the node have, or that others use.", Labels: []string{"family"}},
		{Name: "fairlead_addresses_cooling", Help: "Addresses that were freed not long ago and are not handed out yet.", Labels: []string{"family"}},
	}
}

func (s *state) read(emit metric.Emit) error {
	snapshot, _ := s.feed.Latest()
	result, _ := s.loop.outcome.get()
	emit("fairlead_snapshot_revision", float64(snapshot.Revision))
	emit("fairlead_applied_revision", float64(s.metrics.applied.Load()))
	emit("fairlead_apply_busy_seconds", s.loop.stuck().Seconds())
	for kind, count := range map[string]int{
		"Node": snapshot.Nodes.Len(), "Pod": snapshot.Pods.Len(),
		"Service": snapshot.Services.Len(), "EndpointSlice": snapshot.Slices.Len(),
		"Namespace": snapshot.Namespaces.Len(), "NetworkPolicy": snapshot.Policies.Len(), "ClusterNetworkPolicy": snapshot.ClusterPolicies.Len(),
		"Link": snapshot.Links.Len(), "Attachment": snapshot.Attachments.Len(),
	} {
		emit("fairlead_snapshot_objects", float64(count), kind)
	}
	ready, _, _ := verdict(s.checks, result, s.notices)
	emit("fairlead_ready", metric.Bool(ready))
	for _, check := range s.checks {
		emit("fairlead_check_passed", metric.Bool(isDone(check.done)), check.name)
	}
	reasons := map[string]int{}
	for _, problem := range s.problems() {
		reasons[problem.Reason]++
	}
	for reason, count := range reasons {
		emit("fairlead_problems", float64(count), reason)
	}
	emit("fairlead_refused_items", float64(len(result.refused)))
	for way, count := range waysOf(snapshot, result) {
		emit("fairlead_peers", float64(count), way)
	}
	if link := uplink(snapshot, s.node); link != nil {
		emit("fairlead_uplink_mtu_bytes", float64(link.MTU), link.Name)
	}
	for _, usage := range s.attacher.usage(time.Now()) {
		family := familyLabel(usage.Family)
		emit("fairlead_addresses_capacity", usage.Total, family)
		emit("fairlead_addresses_in_use", float64(usage.InUse), family)
		emit("fairlead_addresses_cooling", float64(usage.Cooling), family)
	}
	return nil
}

// problems are those that the status has.
func (s *state) problems() []model.Problem {
	result, _ := s.loop.outcome.get()
	return allProblems(result, s.source, s.notices)
}

// waysOf counts the other nodes by the way to them.
func waysOf(snapshot *model.Snapshot, result outcome) map[string]int {
	ways := map[string]int{}
	for _, way := range []route.Way{route.Direct, route.ViaVXLAN, route.ViaIPIP, route.ViaUDP} {
		ways[way.String()] = 0
	}
	known := 0
	if result.plan != nil && result.plan.Route != nil {
		for _, way := range result.plan.Route.Ways.All() {
			ways[way.String()]++
			known++
		}
	}
	ways["none"] = max(0, snapshot.Nodes.Len()-1-known)
	return ways
}

func familyLabel(family model.Family) string {
	return map[model.Family]string{model.IPv4: "ipv4", model.IPv6: "ipv6"}[family]
}

// nodeReadings are of what is read from the kernel.
func nodeReadings() []metric.Reading {
	rule := []string{"rule"}
	return append(trafficReadings(),
		metric.Reading{Name: "fairlead_conntrack_entries", Help: "Connections that the kernel of the node tracks."},
		metric.Reading{Name: "fairlead_conntrack_entries_limit", Help: "Connections that it can track; more are dropped."},
		metric.Reading{Name: "fairlead_conntrack_dropped_total", Help: "Packets that connection tracking dropped, or connections that it forgot early for want of room, by the kernel's name for it.", Labels: []string{"cause"}, Counter: true},
		metric.Reading{Name: "fairlead_rule_packets_total", Help: "Packets that a rule of our nftables table met; of rules that translate addresses, connections.", Labels: rule, Counter: true},
		metric.Reading{Name: "fairlead_rule_bytes_total", Help: "Bytes of the packets that a rule of our nftables table met.", Labels: rule, Counter: true},
	)
}

func (s *state) readNode(emit metric.Emit) error {
	snapshot, _ := s.feed.Latest()
	name := ""
	if link := uplink(snapshot, s.node); link != nil {
		name = link.Name
	}
	failed := []error{s.traffic.read(emit, name)}
	readConntrack(emit)
	for _, target := range s.loop.targets {
		counted, ok := target.Dataplane.(dataplane.Counted)
		if !ok {
			continue
		}
		counters, err := counted.Counters()
		failed = append(failed, err)
		for _, counter := range counters {
			emit("fairlead_rule_packets_total", float64(counter.Packets), counter.Rule)
			emit("fairlead_rule_bytes_total", float64(counter.Bytes), counter.Rule)
		}
	}
	return errors.Join(failed...)
}
