package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// kind is what a step does.
type kind string

// The kinds of steps: first what users do all day, then faults.
const (
	createWorkload kind = "create deployment"
	scaleWorkload  kind = "scale deployment"
	rollWorkload   kind = "restart deployment"
	deleteWorkload kind = "delete deployment"
	createPod      kind = "create pod"
	deletePod      kind = "delete pod"
	createService  kind = "create service"
	deleteService  kind = "delete service"
	changeNetwork  kind = "change network"

	killAgent        kind = "kill agent"
	starveMemory     kind = "starve agent of memory"
	starveFiles      kind = "starve agent of files"
	deleteAgent      kind = "delete agent's pod"
	deleteController kind = "delete controller's pod"
	stopAPIServer    kind = "stop API server"
	reboot           kind = "reboot node"
	cutLink          kind = "cut link"
	flushRules       kind = "delete nftables table"
	deleteRoute      kind = "delete route"
	deleteEntry      kind = "delete forwarding entry"
	deleteTunnel     kind = "delete tunnel"
	addNode          kind = "add node"
	removeNode       kind = "delete node"
)

// step is one thing to do. It says all, so that what is done depends on the seed
// alone and not on what the cluster looks like.
type step struct {
	Number  int
	Pause   time.Duration // before it
	Kind    kind
	Node    string        // where
	Name    string        // of the object
	Of      string        // the deployment that a Service leads to
	Variant string        // of what is created or changed
	Count   int           // replicas, a port, or which of several
	For     time.Duration // until it is mended
	Force   bool          // without waiting for a pod's end

	// UserSpace says that the agents carry packets themselves meanwhile, so that
	// tunnels end with them.
	UserSpace bool
}

func (s step) String() string {
	text := fmt.Sprintf("%d %s", s.Number, s.Kind)
	for _, word := range []string{s.Node, s.Name, s.Variant} {
		if word != "" {
			text += " " + word
		}
	}
	if s.Of != "" {
		text += " of " + s.Of
	}
	if s.Count > 0 || s.Kind == scaleWorkload {
		text += fmt.Sprintf(" (%d)", s.Count)
	}
	if s.For > 0 {
		text += " for " + s.For.String()
	}
	if s.Force {
		text += " by force"
	}
	return text
}

// Where the fixed pods are. The agent of quietNode is never ended, so that its
// memory at the end is that of the whole time.
const (
	quietNode = "node2"
	spareNode = "node4" // comes and goes
)

var fixedNodes = []string{"node1", "node2", "node3"}

// Bounds of what is there at a time.
const (
	mostWorkloads = 5
	mostReplicas  = 4
	mostPods      = 6
	mostServices  = 12
)

// serviceVariants are the kinds of Services.
var serviceVariants = []string{"ClusterIP", "NodePort", "Local", "affinity", "UDP"}

// backends are those that reach other segments.
var backends = []string{"vxlan", "ipip", "udp"}

// userSpaceLasts is how long after a change of the backend packets may still be
// carried by agents: see docs/adr/0005.
const userSpaceLasts = 15 * time.Second

// schedule is the endless order of steps of a seed. It knows what is there
// because it has put it there. It is pure, and for one caller at a time.
type schedule struct {
	rand   *rand.Rand
	number int
	serial int // of names and ports

	workloads []string
	pods      []string
	services  []string
	spare     bool            // the fourth node is there
	ended     map[string]bool // the agent's container was ended in the pod that it has
	backend   string
	carried   time.Duration // user space may carry packets until then, by the sum of pauses
	clock     time.Duration
}

func newSchedule(seed uint64) *schedule {
	return &schedule{rand: rand.New(rand.NewPCG(seed, 4)), ended: map[string]bool{}, backend: backends[0]}
}

// choice is a kind of step, how often it is chosen, when it can be, and what it
// then is.
type choice struct {
	kind   kind
	weight int
	can    func(*schedule) bool
	fill   func(*schedule, *step)
}

// always is for what can always be done.
func always(*schedule) bool { return true }

var choices = []choice{
	{createWorkload, 8, func(s *schedule) bool { return len(s.workloads) < mostWorkloads }, (*schedule).createWorkload},
	{scaleWorkload, 14, (*schedule).hasWorkload, func(s *schedule, t *step) {
		t.Name, t.Count = pick(s.rand, s.workloads), s.rand.IntN(mostReplicas+1)
	}},
	{rollWorkload, 4, (*schedule).hasWorkload, func(s *schedule, t *step) { t.Name = pick(s.rand, s.workloads) }},
	{deleteWorkload, 4, (*schedule).hasWorkload, func(s *schedule, t *step) { t.Name = take(s.rand, &s.workloads) }},
	{createPod, 8, func(s *schedule) bool { return len(s.pods) < mostPods }, (*schedule).createPod},
	{deletePod, 6, func(s *schedule) bool { return len(s.pods) > 0 }, func(s *schedule, t *step) {
		t.Name, t.Force = take(s.rand, &s.pods), s.rand.IntN(4) == 0
	}},
	{createService, 10, func(s *schedule) bool { return len(s.workloads) > 0 && len(s.services) < mostServices }, (*schedule).createService},
	{deleteService, 6, func(s *schedule) bool { return len(s.services) > 0 }, func(s *schedule, t *step) { t.Name = take(s.rand, &s.services) }},
	{changeNetwork, 4, always, (*schedule).changeNetwork},

	{killAgent, 6, always, (*schedule).endAgent},
	{starveMemory, 3, always, (*schedule).endAgent},
	{starveFiles, 3, always, func(s *schedule, t *step) { t.Node, t.For = pick(s.rand, fixedNodes), s.seconds(5, 15) }},
	{deleteAgent, 4, always, (*schedule).endAgent},
	{deleteController, 3, always, func(*schedule, *step) {}},
	{stopAPIServer, 3, always, func(s *schedule, t *step) { t.For = s.seconds(5, 30) }},
	{reboot, 2, always, (*schedule).reboot},
	{cutLink, 4, always, func(s *schedule, t *step) { t.Node, t.For = pick(s.rand, fixedNodes), s.seconds(1, 8) }},
	{flushRules, 4, always, func(s *schedule, t *step) {
		t.Node, t.Variant = pick(s.rand, fixedNodes), pick(s.rand, []string{"fairlead", "all"})
	}},
	{deleteRoute, 5, always, func(s *schedule, t *step) { t.Node, t.Count = pick(s.rand, fixedNodes), 1+s.rand.IntN(100) }},
	{deleteEntry, 4, always, func(s *schedule, t *step) { t.Node, t.Count = pick(s.rand, fixedNodes), 1+s.rand.IntN(100) }},
	{deleteTunnel, 3, always, func(s *schedule, t *step) { t.Node = pick(s.rand, fixedNodes) }},
	{addNode, 3, func(s *schedule) bool { return !s.spare }, func(s *schedule, t *step) { t.Node, s.spare = spareNode, true }},
	{removeNode, 2, func(s *schedule) bool { return s.spare }, func(s *schedule, t *step) { t.Node, s.spare = spareNode, false }},
}

// next returns the next step.
func (s *schedule) next() step {
	s.number++
	t := step{Number: s.number, Pause: time.Duration(1000+s.rand.IntN(14001)) * time.Millisecond}
	s.clock += t.Pause
	t.UserSpace = s.backend == "udp" || s.clock < s.carried
	total := 0
	for _, c := range choices {
		if c.can(s) {
			total += c.weight
		}
	}
	at := s.rand.IntN(total)
	for _, c := range choices {
		if !c.can(s) {
			continue
		}
		if at -= c.weight; at < 0 {
			t.Kind = c.kind
			c.fill(s, &t)
			break
		}
	}
	return t
}

func (s *schedule) hasWorkload() bool { return len(s.workloads) > 0 }

func (s *schedule) createWorkload(t *step) {
	s.serial++
	t.Name, t.Count = fmt.Sprintf("w%d", s.serial), 1+s.rand.IntN(mostReplicas)
	s.workloads = append(s.workloads, t.Name)
}

// createPod makes a pod on a node, half of them with a host port, which no other
// pod has had.
func (s *schedule) createPod(t *step) {
	s.serial++
	t.Name, t.Node = fmt.Sprintf("p%d", s.serial), pick(s.rand, fixedNodes)
	if s.rand.IntN(2) == 0 {
		t.Count = 20000 + s.serial%5000
	}
	s.pods = append(s.pods, t.Name)
}

// createService makes a Service for the pods of a deployment.
func (s *schedule) createService(t *step) {
	s.serial++
	t.Variant, t.Of = pick(s.rand, serviceVariants), pick(s.rand, s.workloads)
	t.Name = fmt.Sprintf("s%d-%s", s.serial, strings.ToLower(t.Variant))
	s.services = append(s.services, t.Name)
}

// changeNetwork sets another backend, or something that must disturb nobody.
func (s *schedule) changeNetwork(t *step) {
	switch s.rand.IntN(4) {
	case 0:
		// Not for long: outside, nobody knows a way to pods, and CoreDNS does not
		// start without the API server.
		t.Variant, t.For = "masquerade.ipv4=false", s.seconds(5, 30)
	case 1:
		t.Variant = pick(s.rand, []string{"directRouting=false", "directRouting=true"})
	default:
		others := slices.DeleteFunc(slices.Clone(backends), func(b string) bool { return b == s.backend })
		if s.backend == "udp" {
			s.carried = s.clock + userSpaceLasts
		}
		s.backend = pick(s.rand, others)
		t.Variant = "backend=" + s.backend
		t.UserSpace = t.UserSpace || s.backend == "udp"
	}
}

// endAgent: an agent whose container was ended before gets a new pod, because the
// kubelet would let the second restart wait, and the next one longer.
func (s *schedule) endAgent(t *step) {
	t.Node = s.unquietNode()
	if s.ended[t.Node] {
		t.Kind = deleteAgent
	}
	s.ended[t.Node] = t.Kind != deleteAgent
}

func (s *schedule) reboot(t *step) {
	t.Node, t.Variant = s.unquietNode(), pick(s.rand, []string{"shut down", "power lost"})
}

// unquietNode is a node whose agent may end.
func (s *schedule) unquietNode() string {
	return pick(s.rand, slices.DeleteFunc(slices.Clone(fixedNodes), func(n string) bool { return n == quietNode }))
}

// seconds is a time between two bounds.
func (s *schedule) seconds(least, most int) time.Duration {
	return time.Duration(least+s.rand.IntN(most-least+1)) * time.Second
}

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

// take picks one and removes it.
func take(r *rand.Rand, of *[]string) string {
	at := r.IntN(len(*of))
	taken := (*of)[at]
	*of = slices.Delete(*of, at, at+1)
	return taken
}
