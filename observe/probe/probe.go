// Package probe finds out whether packets get from one node to another: it asks
// a peer by ICMP, UDP and TCP, finds the greatest packet that passes, answers
// such questions, and says what the answers of all nodes together mean.
//
// It does not decide when to ask, and knows nothing of Kubernetes. Everything
// in it may be called concurrently.
package probe

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// Port is where every node answers, by UDP and TCP: on the node's addresses, and
// on those of its endpoint (see model.ProbeAddress).
const Port = 9815

// Path says between what packets go. A pod is the endpoint of its node.
type Path string

// The paths.
const (
	PodToPod   Path = "pod-to-pod"
	PodToHost  Path = "pod-to-host"
	HostToPod  Path = "host-to-pod"
	HostToHost Path = "host-to-host"
)

// Paths are all of them, those that users of the network meet first.
var Paths = [...]Path{PodToPod, PodToHost, HostToPod, HostToHost}

// FromPod tells whether packets of the path leave from a pod.
func (p Path) FromPod() bool { return p == PodToPod || p == PodToHost }

// ToPod tells whether packets of the path go to a pod.
func (p Path) ToPod() bool { return p == PodToPod || p == HostToPod }

// Kind is what was asked.
type Kind string

// The kinds. MTU asks for the greatest packet that passes.
const (
	ICMP Kind = "icmp"
	UDP  Kind = "udp"
	TCP  Kind = "tcp"
	MTU  Kind = "mtu"
)

// Task is a path to one address of a peer.
type Task struct {
	Peer string // name of the node; it may be the own one
	Path Path
	To   netip.Addr
	MTU  int // bytes that should pass; 0: it is not asked
	// Here calls a function where sockets are to be opened; nil: anywhere.
	Here func(open func() error) error
}

// Result is what became of one question. What is not told is zero.
type Result struct {
	Peer   string     `json:"peer"`
	Path   Path       `json:"path"`
	Family string     `json:"family"` // IPv4 or IPv6
	Kind   Kind       `json:"kind"`
	To     netip.Addr `json:"to"`
	OK     bool       `json:"ok"`
	Sent   int        `json:"sent"` // packets, or connections
	Lost   int        `json:"lost"` // of those
	RTT    float64    `json:"rttSeconds,omitempty"`

	// What was heard instead of an answer, and who said so.
	Error   string     `json:"error,omitempty"`
	From    netip.Addr `json:"from,omitzero"`
	Refused bool       `json:"refused,omitempty"` // nobody listens there, says who refuses

	// Of MTU alone, in bytes. A path whose MTU is less than planned is OK if a
	// router tells the sender so: then the kernel sends smaller packets.
	Planned int  `json:"planned,omitempty"`
	Found   int  `json:"found,omitempty"`
	Told    bool `json:"told,omitempty"`

	// Of UDP alone: who answered has an endpoint.
	Endpoint bool `json:"endpoint,omitempty"`
}

// Reduced tells whether less passes than planned, and the senders are told.
func (r Result) Reduced() bool { return r.Kind == MTU && r.OK && r.Found < r.Planned }

func (t Task) result(kind Kind) Result {
	return Result{Peer: t.Peer, Path: t.Path, Family: model.FamilyOf(t.To).String(), Kind: kind, To: t.To}
}

func (t Task) here(open func() error) error {
	if t.Here == nil {
		return open()
	}
	return t.Here(open)
}

// most is how many tasks are worked on at a time.
const most = 64

// All asks everything of all tasks. Results are in the order of tasks; without
// an MTU to ask for, or if nothing came back at all, a task has no result for
// it. It takes a few seconds when nothing answers.
func All(ctx context.Context, tasks []Task) []Result {
	found := make([][]Result, len(tasks))
	each(tasks, func(i int, task Task) {
		var icmp, udp, tcp Result
		var asking sync.WaitGroup
		asking.Go(func() { icmp = task.Ping(ctx, ICMP) })
		asking.Go(func() { udp = task.Ping(ctx, UDP) })
		asking.Go(func() { tcp = task.connect(ctx) })
		asking.Wait()
		found[i] = []Result{icmp, udp, tcp}
		switch {
		case task.MTU == 0:
		case icmp.OK:
			found[i] = append(found[i], task.FindMTU(ctx, ICMP))
		case udp.OK:
			found[i] = append(found[i], task.FindMTU(ctx, UDP))
		}
	})
	var all []Result
	for _, results := range found {
		all = append(all, results...)
	}
	return all
}

func each(tasks []Task, do func(i int, task Task)) {
	var working sync.WaitGroup
	slots := make(chan struct{}, most)
	for i, task := range tasks {
		slots <- struct{}{}
		working.Go(func() {
			defer func() { <-slots }()
			do(i, task)
		})
	}
	working.Wait()
}

// How often something is asked until it is taken for lost, and how long an
// answer is waited for each time. The last answer may be to the first question.
const (
	tries = 4
	gap   = 350 * time.Millisecond
)

// small is the size of packets that pass anywhere, in bytes with the IP header.
const small = 100

// Ping asks by ICMP or UDP until an answer comes.
func (t Task) Ping(ctx context.Context, kind Kind) Result {
	r := t.result(kind)
	conn, err := t.open(ctx, kind)
	if err != nil {
		r.Sent, r.Lost, r.Error = 1, 1, explain(err)
		return r
	}
	defer conn.Close()
	x := exchange{conn: conn, sizes: []int{small}, tries: tries, gap: gap}
	x.run(ctx)
	r.Sent, r.OK = x.sent, x.largest() > 0
	r.RTT, r.Endpoint = x.rtt.Seconds(), x.endpoint
	if r.OK {
		r.Lost = r.Sent - 1
		return r
	}
	r.Lost, r.Error, r.From, r.Refused = r.Sent, x.refusal.text, x.refusal.from, x.refusal.closed
	return r
}
