package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/probe"
)

const (
	probedPeers = 4                // by each node, and so as many probe each node
	roundPause  = 10 * time.Second // on average
)

// rounds probes some other nodes all the time. It is a collector of what it
// found: a path that is not probed any more has no series.
type rounds struct {
	node    string
	feed    *model.Feed
	tasks   func(*model.Snapshot, *model.Node) []probe.Task
	way     func(peer string) probe.Way
	legacy  func() []string // commands that list what iptables-legacy has here
	notices *notices

	nodes model.Map[string, *model.Node] // that peers were chosen from
	peers []string

	mu      sync.Mutex // guards what is below
	history probe.History
}

// Run probes until the context ends.
func (r *rounds) Run(ctx context.Context) error {
	for pause(ctx, jitter(roundPause)) {
		r.round(ctx)
	}
	return nil
}

// round probes each path once.
func (r *rounds) round(ctx context.Context) {
	snapshot, _ := r.feed.Latest()
	keys := map[probe.Key]bool{}
	var probing sync.WaitGroup
	for _, task := range r.choose(snapshot) {
		keys[keyOfTask(task)] = true
		probing.Go(func() { r.probe(ctx, task) })
	}
	probing.Wait()
	if ctx.Err() != nil {
		return
	}
	r.mu.Lock()
	r.history.Forget(func(key probe.Key) bool { return !keys[key] })
	faults := r.history.Faults()
	r.mu.Unlock()
	r.notices.set("probes", r.problems(faults)...)
}

// choose returns what is to be probed this time.
func (r *rounds) choose(s *model.Snapshot) (tasks []probe.Task) {
	if r.nodes != s.Nodes {
		r.nodes = s.Nodes
		var names []string
		for name, node := range s.Nodes.All() {
			if len(node.Addresses) > 0 {
				names = append(names, name)
			}
		}
		r.peers = probe.Choose(r.node, names, probedPeers)
	}
	for _, name := range r.peers {
		peer, _ := s.Nodes.Get(name)
		tasks = append(tasks, r.tasks(s, peer)...)
	}
	return tasks
}

func keyOfTask(task probe.Task) probe.Key {
	return probe.Key{Peer: task.Peer, Path: task.Path, Family: model.FamilyOf(task.To).String()}
}

// probe asks by ICMP, which the kernel answers also while an agent is restarted.
// By UDP it asks only whether there is an agent with an endpoint, when one does
// not answer.
func (r *rounds) probe(ctx context.Context, task probe.Task) {
	key := keyOfTask(task)
	ping := task.Ping(ctx, probe.ICMP)
	var mtu *probe.Result
	if ping.OK && task.MTU > 0 {
		passes := task.Passes(ctx, probe.ICMP)
		r.mu.Lock()
		search := !passes.OK && r.history.Search(key)
		r.mu.Unlock()
		if search {
			passes = task.FindMTU(ctx, probe.ICMP)
		}
		mtu = &passes
	}
	var agent probe.Result
	if task.Path == probe.HostToHost && ping.OK && r.doubts(task.Peer) {
		agent = task.Ping(ctx, probe.UDP)
	}
	if ctx.Err() != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.Note(ping, mtu)
	if agent.OK || agent.Refused {
		r.history.Vouch(task.Peer, agent.Endpoint)
	}
}

// doubts tells whether a peer's endpoint did not answer in the last round.
func (r *rounds) doubts(peer string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, track := range r.history.Tracks {
		if key.Peer == peer && key.Path.ToPod() && !track.Up {
			return true
		}
	}
	return false
}

// problems are what this node says of the paths to its peers.
func (r *rounds) problems(faults []probe.Fault) (problems []model.Problem) {
	for _, fault := range faults {
		problem := model.Problem{Kind: "Node", Name: r.node, Field: "path to " + fault.Peer}
		families := strings.Join(fault.Families, " and ")
		if fault.Large {
			problem.Reason = "PathMTU"
			problem.Message = fmt.Sprintf("%s packets %s of node %s are lost if they are large: those of %d bytes, which should pass",
				families, fault.Words(), fault.Peer, fault.Planned)
			problem.Remedy = "raise the MTU of the links between the nodes, or lower spec.mtu of networks.fairlead.io default"
			if fault.Passed > 0 {
				problem.Message += fmt.Sprintf("; %d bytes pass", fault.Passed)
				problem.Remedy += fmt.Sprintf(" by %d", fault.Planned-fault.Passed)
			}
		} else {
			problem.Reason = "PathBroken"
			problem.Message = fmt.Sprintf("%s packets %s of node %s are lost, although the nodes reach each other", families, fault.Words(), fault.Peer)
			if fault.Error != "" {
				problem.Message += " (" + fault.Error + ")"
			}
			problem.Remedy = fmt.Sprintf("let firewalls of and between the two nodes pass %s; fairlead check --nodes %s,%s says more",
				r.way(fault.Peer).Carrier(), r.node, fault.Peer)
			if legacy := r.legacy(); len(legacy) > 0 {
				problem.Remedy += "; iptables-legacy may drop them on this node: " + strings.Join(legacy, " and ")
			}
		}
		problems = append(problems, problem)
	}
	slices.SortFunc(problems, model.Problem.Compare)
	return problems
}

var probeLabels = []string{"peer", "path", "family"}

// The metrics of probes, for each path to each peer in each family.
var (
	probeUp = prometheus.NewDesc("fairlead_probe_up",
		"1 if the last round of probes was answered, else 0.", probeLabels, nil)
	probeSent = prometheus.NewDesc("fairlead_probe_packets_total",
		"ICMP echo requests that were sent, without those for the MTU.", probeLabels, nil)
	probeLost = prometheus.NewDesc("fairlead_probe_lost_packets_total",
		"Those that were not answered.", probeLabels, nil)
	probeRTT = prometheus.NewDesc("fairlead_probe_rtt_seconds",
		"Time from a request to its answer, there and back.", probeLabels, nil)
	probeMTU = prometheus.NewDesc("fairlead_probe_mtu_bytes",
		"Size of the largest packet that passed in the last round, with its IP header.", probeLabels, nil)
	probePlanned = prometheus.NewDesc("fairlead_probe_planned_mtu_bytes",
		"Size of the largest packet that should pass.", probeLabels, nil)
)

// Describe implements prometheus.Collector.
func (r *rounds) Describe(to chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{probeUp, probeSent, probeLost, probeRTT, probeMTU, probePlanned} {
		to <- desc
	}
}

// Collect implements prometheus.Collector.
func (r *rounds) Collect(to chan<- prometheus.Metric) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, track := range r.history.Tracks {
		labels := []string{key.Peer, string(key.Path), key.Family}
		value := func(desc *prometheus.Desc, kind prometheus.ValueType, value float64) {
			to <- prometheus.MustNewConstMetric(desc, kind, value, labels...)
		}
		up := 0.0
		if track.Up {
			up = 1
		}
		value(probeUp, prometheus.GaugeValue, up)
		value(probeSent, prometheus.CounterValue, float64(track.Sent))
		value(probeLost, prometheus.CounterValue, float64(track.Lost))
		to <- prometheus.MustNewConstSummary(probeRTT, uint64(track.Answers), track.RTT, nil, labels...)
		if track.Passed > 0 {
			value(probeMTU, prometheus.GaugeValue, float64(track.Passed))
		}
		if track.Planned > 0 {
			value(probePlanned, prometheus.GaugeValue, float64(track.Planned))
		}
	}
}
