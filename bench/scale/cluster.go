package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/bench/apiserver"
)

// task is what one process measures, in namespaces of its own.
type task struct {
	Programs  string // directory of what was built
	Nodes     int
	Pods      int
	Services  int
	Endpoints int           // of each Service
	Policies  int           // and 200 pods of the node
	Rest      time.Duration // of a cluster in which nothing but heartbeats happens
	Agents    int           // 0: one real agent; else so many simulated ones
	Heap      string        // file for a profile of the heap; empty: none
	Processor string        // file for a profile of the processors; empty: none
}

// figures are of one agent.
type figures struct {
	List         int64              // bytes of the first lists
	First        time.Duration      // from the start of the process to the last route
	Ready        time.Duration      // from the start of the process to ready
	StartCPU     time.Duration      // of the process until then
	RestartCPU   time.Duration      // of the process of Restart until it is ready
	Connected    time.Duration      // from the start of a second process to ready, with pods, and without our table
	FirstPeak    int64              // bytes, until then and a moment later
	Resident     int64              // bytes, at rest: the median
	MostResident int64              // bytes, at rest
	Anonymous    int64              // bytes, at rest, of what is no file: the median
	Peak         int64              // bytes, after all that follows
	RestCPU      float64            // of a core, while only heartbeats of nodes come
	ChurnCPU     float64            // of a core, with churn
	Nodes        []time.Duration    // from the event to the kernel, of nodes that come and go
	Endpoints    []time.Duration    // from the event to the kernel, of an endpoint that takes the place of another
	Labels       [2][]time.Duration // from the event to the kernel, of pods of the node and others that become another app
	Adds         [2][]time.Duration // from ADD to its answer, of pods that policies restrict and others
	Join         time.Duration      // until 1,000 more nodes at once are in the kernel
	Relist       time.Duration      // from the moment that all connections break to the first change that is seen
	Restart      time.Duration      // from the start of a second process to ready, with the kernel as it was
}

const (
	heartbeat = 5 * time.Minute // how often a kubelet writes its Node although nothing has changed
	churn     = 50              // pods a second
	changes   = 40              // nodes that come and go
	joining   = 1000            // nodes at once
	settling  = 10 * time.Second
	alone     = 100 * time.Millisecond // between changes, so that none waits for another
)

// cluster is one agent and the API server that it asks.
type cluster struct {
	task
	server *apiserver.Server
	kernel *kernel
	agent  *process
	dir    string
	result figures

	addresses  map[string][]corev1.PodIP // of pods of the node, by name
	namespaces []*os.File                // of those
}

func measure(ctx context.Context, t task) (*figures, error) {
	dir, err := os.MkdirTemp("", "fairlead-bench-scale-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	done := make(chan struct{})
	defer close(done)
	c := &cluster{task: t, dir: dir, addresses: map[string][]corev1.PodIP{}}
	if c.kernel, err = watchKernel(done); err != nil {
		return nil, err
	}
	if c.server, err = apiserver.New(); err != nil {
		return nil, err
	}
	if err := errors.Join(writeCredentials(c.server.Authority), c.populate()); err != nil {
		return nil, err
	}
	defer func() { c.agent.stop() }()
	for _, step := range []func(context.Context) error{
		c.start, c.connect, c.rest, c.churn, c.change, c.changeEndpoints, c.changeLabels, c.comeAndGo, c.join, c.relist, c.restart,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return &c.result, nil
}

func (c *cluster) populate() error {
	err := errors.Join(
		c.server.Put(apiserver.Slices, serverSlice(c.server.Address)),
		c.server.Put(apiserver.Networks, &v1alpha1.Network{TypeMeta: apiserver.TypeOf("Network"), ObjectMeta: objectMeta(v1alpha1.NetworkName)}))
	for i := 0; i < c.Nodes && err == nil; i++ {
		err = c.server.Put(apiserver.Nodes, nodeObject(i))
	}
	for i := 0; i < namespaces && err == nil; i++ {
		err = c.server.Put(apiserver.Namespaces, namespaceObject(i))
	}
	for i := 0; i < c.Pods && err == nil; i++ {
		err = c.server.Put(apiserver.Pods, c.podObject(i))
	}
	for i := 0; i < c.Services && err == nil; i++ {
		err = c.putService(i)
	}
	for i := 0; i < c.Policies && err == nil; i++ {
		err = c.server.Put(apiserver.Policies, policyObject(i))
	}
	c.result.List = c.server.Settle()
	return err
}

// start measures the first full apply.
func (c *cluster) start(ctx context.Context) (err error) {
	if err := c.again(ctx, &c.result.Ready); err != nil {
		return err
	}
	if c.result.StartCPU, err = c.agent.cpu(); err != nil {
		return err
	}
	at, err := c.kernel.until(1, c.Nodes-1, true)
	c.result.First = at.Sub(c.agent.began)
	return err
}

// again starts an agent, and measures until it is ready.
func (c *cluster) again(ctx context.Context, took *time.Duration) (err error) {
	if c.agent, err = startAgent(c.Programs, c.dir, c.server.Address); err != nil {
		return err
	}
	if err = c.agent.ready(ctx); err == nil {
		*took = time.Since(c.agent.began)
	}
	return err
}

// rest measures an agent to which nothing happens but heartbeats of nodes.
func (c *cluster) rest(ctx context.Context) error {
	if _, err := c.beat(ctx, settling); err != nil {
		return err
	}
	m, err := c.agent.memory()
	if err != nil {
		return err
	}
	c.result.FirstPeak = m.Peak
	seen, err := c.beat(ctx, c.Rest)
	if err != nil {
		return err
	}
	c.result.RestCPU = seen.cpu
	c.result.Resident, c.result.MostResident = quantile(seen.resident, 0.5), quantile(seen.resident, 1)
	c.result.Anonymous = quantile(seen.anonymous, 0.5)
	if c.Heap != "" {
		return saveHeap(c.Heap)
	}
	return nil
}

// beat lets the kubelets of all nodes write their heartbeats for a while.
func (c *cluster) beat(ctx context.Context, d time.Duration) (seen, error) {
	next := 0
	return c.during(ctx, d, heartbeat/time.Duration(c.Nodes), func() error {
		next = (next + 1) % c.Nodes
		return c.server.Put(apiserver.Nodes, nodeObject(next))
	})
}

// churn measures an agent to which pods come and go elsewhere.
func (c *cluster) churn(ctx context.Context) error {
	i := 0
	seen, err := c.during(ctx, c.Rest/2, time.Second/churn, func() error {
		i++
		pod := c.podObject(c.Pods + i/2)
		if i%2 == 0 {
			return c.server.Put(apiserver.Pods, pod)
		}
		return c.server.Remove(apiserver.Pods, pod)
	})
	c.result.ChurnCPU = seen.cpu
	return err
}

// seen is what was seen of the agent over a while.
type seen struct {
	cpu                 float64 // of a core
	resident, anonymous []int64 // bytes, each second
}

// during does something at an interval and looks at the agent meanwhile.
func (c *cluster) during(ctx context.Context, d, interval time.Duration, do func() error) (seen seen, err error) {
	before, err := c.agent.cpu()
	if err != nil {
		return seen, err
	}
	began := time.Now()
	acts, looks, ended := time.NewTicker(interval), time.NewTicker(time.Second), time.After(d)
	defer acts.Stop()
	defer looks.Stop()
	for err == nil {
		select {
		case <-ctx.Done():
			return seen, ctx.Err()
		case <-ended:
			after, err := c.agent.cpu()
			seen.cpu = float64(after-before) / float64(time.Since(began))
			return seen, err
		case <-acts.C:
			err = do()
		case <-looks.C:
			var m memory
			m, err = c.agent.memory()
			seen.resident, seen.anonymous = append(seen.resident, m.Resident), append(seen.anonymous, m.Anonymous)
		}
	}
	return seen, err
}

// change measures one node that comes or goes, reached by tunnel.
func (c *cluster) change(context.Context) error {
	for i := range changes {
		node := c.newNode(i / 2)
		present := i%2 == 0
		began := time.Now()
		err := c.server.Remove(apiserver.Nodes, nodeObject(node))
		if present {
			err = c.server.Put(apiserver.Nodes, nodeObject(node))
		}
		if err != nil {
			return err
		}
		at, err := c.kernel.until(node, node, present)
		if err != nil {
			return err
		}
		c.result.Nodes = append(c.result.Nodes, at.Sub(began))
		time.Sleep(alone)
	}
	return nil
}

// newNode is a node that is not there yet, beyond the tunnel.
func (c *cluster) newNode(i int) int { return max(c.Nodes, perSegment) + i }

// join measures many nodes that come in the same moment.
func (c *cluster) join(context.Context) error {
	began := time.Now()
	first := c.newNode(0)
	for i := range joining {
		if err := c.server.Put(apiserver.Nodes, nodeObject(first+i)); err != nil {
			return err
		}
	}
	at, err := c.kernel.until(first, first+joining-1, true)
	c.result.Join = at.Sub(began)
	return err
}

// relist measures what a lost connection and a history that was forgotten cost.
func (c *cluster) relist(ctx context.Context) error {
	began := time.Now()
	c.server.Forget()
	c.server.Drop()
	node := c.newNode(joining)
	if err := c.server.Put(apiserver.Nodes, nodeObject(node)); err != nil {
		return err
	}
	at, err := c.kernel.until(node, node, true)
	if err != nil {
		return err
	}
	c.result.Relist = at.Sub(began)
	if err := c.settled(ctx); err != nil {
		return err
	}
	m, err := c.agent.memory()
	c.result.Peak = m.Peak
	return err
}

// settled waits until the agent has listed pods again.
func (c *cluster) settled(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	for {
		wait := 100 * time.Millisecond
		listed := c.server.Requests.Of("watch list pods").Total > 1
		if listed {
			wait = settling // a list that changes nothing says nothing
		}
		select {
		case <-ctx.Done():
			log, _ := os.ReadFile(c.agent.log.Name())
			return fmt.Errorf("the agent did not list pods again:\n%s", log)
		case <-time.After(wait):
			if listed {
				return nil
			}
		}
	}
}

// restart measures an agent that finds the kernel as it left it, in a cluster as
// large as at the start.
func (c *cluster) restart(ctx context.Context) error {
	first := c.newNode(0)
	for i := range joining + 1 {
		if err := c.server.Remove(apiserver.Nodes, nodeObject(first+i)); err != nil {
			return err
		}
	}
	if _, err := c.kernel.until(first, first+joining, false); err != nil {
		return err
	}
	c.agent.stop()
	var profiled chan error
	if c.Processor != "" {
		profiled = make(chan error, 1)
		go func() { profiled <- saveProfile(ctx, c.Processor) }()
	}
	err := c.again(ctx, &c.result.Restart)
	if err == nil {
		c.result.RestartCPU, err = c.agent.cpu()
	}
	if err == nil && profiled != nil {
		err = <-profiled
	}
	return err
}
