package kube

import (
	"cmp"
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	apps "k8s.io/client-go/kubernetes/typed/apps/v1"
)

// parked is in the node selector of a DaemonSet that is to run nowhere.
const parked = "fairlead.io/parked"

// ParkAgents ends all agents, and keeps their DaemonSet. It returns when their
// pods are gone, or says which are not when the context ends. Those of nodes from
// which nothing can be expected are not waited for; see NodeOverview.Silent.
func (c *Client) ParkAgents(ctx context.Context) error {
	client, err := apps.NewForConfig(c.config)
	if err != nil {
		return err
	}
	patch := fmt.Sprintf(`{"spec":{"template":{"spec":{"nodeSelector":{%q:"true"}}}}}`, parked)
	_, err = client.DaemonSets(SystemNamespace).Patch(ctx, agentName, "application/merge-patch+json", []byte(patch), metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("end the agents: %w", err)
	}
	return c.awaitEnd(ctx, agentLabel)
}

// overdue is for how long after its time the end of a pod is waited for on a node
// that is not ready: its container runtime may be dead.
const overdue = 30 * time.Second

// ending are pods that are to end, and the nodes that they may be on.
type ending struct {
	pods  map[string]*corev1.Pod  // by name
	nodes map[string]*corev1.Node // by name
}

// awaited is a pod whose end is to be waited for; nil: there is none. That of some
// is waited for until a time, which is zero if there are none of these.
func (e *ending) awaited(now time.Time) (pod *corev1.Pod, until time.Time) {
	for _, p := range e.pods {
		node := e.nodes[p.Spec.NodeName]
		if node == nil || nodeSilent(node) {
			continue
		}
		if !nodeReady(node) && p.DeletionTimestamp != nil { // when its grace ends
			end := p.DeletionTimestamp.Add(overdue)
			if !now.Before(end) {
				continue
			}
			if until.IsZero() || end.Before(until) {
				until = end
			}
		}
		pod = p
	}
	return pod, until
}

// note takes in an event. It is false if all has to be listed anew.
func (e *ending) note(event apiwatch.Event) bool {
	switch object := event.Object.(type) {
	case *corev1.Pod:
		if e.pods[object.Name] = object; event.Type == apiwatch.Deleted {
			delete(e.pods, object.Name)
		}
	case *corev1.Node:
		if e.nodes[object.Name] = object; event.Type == apiwatch.Deleted {
			delete(e.nodes, object.Name)
		}
	default:
		return false
	}
	return true
}

// awaitEnd returns when of the pods with a label in our namespace none is left but
// those of nodes from which nothing can be expected. An API server that does not answer
// for a while is waited for.
func (c *Client) awaitEnd(ctx context.Context, label string) error {
	for {
		left, err := c.awaitOnce(ctx, label)
		switch {
		case left == nil && err == nil:
			return nil
		case ctx.Err() == nil && err == nil: // a watch has ended
			continue
		}
		select {
		case <-time.After(time.Second):
			continue
		case <-ctx.Done():
		}
		err = cmp.Or(err, ctx.Err())
		if left == nil {
			return err
		}
		return &NotEndedError{Pod: left.Name, Node: left.Spec.NodeName, err: err}
	}
}

// awaitOnce is awaitEnd until something fails or a watch ends, and returns a pod that
// is waited for, if any is known.
func (c *Client) awaitOnce(ctx context.Context, label string) (left *corev1.Pod, err error) {
	pods, err := c.core.Pods(SystemNamespace).List(ctx, metav1.ListOptions{LabelSelector: label})
	if err != nil {
		return nil, fmt.Errorf("list pods that are to end: %w", err)
	}
	nodes, err := c.core.Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	e := &ending{pods: map[string]*corev1.Pod{}, nodes: map[string]*corev1.Node{}}
	for i := range pods.Items {
		e.pods[pods.Items[i].Name] = &pods.Items[i]
	}
	for i := range nodes.Items {
		e.nodes[nodes.Items[i].Name] = &nodes.Items[i]
	}
	return c.follow(ctx, e,
		metav1.ListOptions{LabelSelector: label, ResourceVersion: pods.ResourceVersion}, metav1.ListOptions{ResourceVersion: nodes.ResourceVersion})
}

// follow returns when no pod is awaited, or one that still is when a watch or the
// context ends.
func (c *Client) follow(ctx context.Context, e *ending, ofPods, ofNodes metav1.ListOptions) (left *corev1.Pod, err error) {
	left, until := e.awaited(time.Now())
	if left == nil {
		return nil, nil
	}
	pods, err := c.core.Pods(SystemNamespace).Watch(ctx, ofPods)
	if err != nil {
		return left, err
	}
	defer pods.Stop()
	nodes, err := c.core.Nodes().Watch(ctx, ofNodes)
	if err != nil {
		return left, err
	}
	defer nodes.Stop()
	for left != nil {
		var expired <-chan time.Time
		if !until.IsZero() {
			expired = time.After(time.Until(until))
		}
		known := true
		select {
		case <-ctx.Done():
			return left, ctx.Err()
		case <-expired:
		case event := <-pods.ResultChan():
			known = e.note(event)
		case event := <-nodes.ResultChan():
			known = e.note(event)
		}
		if !known {
			return left, nil
		}
		left, until = e.awaited(time.Now())
	}
	return nil, nil
}

// NotEndedError says that a pod did not end in the time that there was.
type NotEndedError struct {
	Pod, Node string
	err       error
}

func (e *NotEndedError) Error() string {
	return fmt.Sprintf("wait for pod %s on node %s to end: %v", e.Pod, e.Node, e.err)
}

// Unwrap returns why it is not waited for any longer.
func (e *NotEndedError) Unwrap() error { return e.err }
