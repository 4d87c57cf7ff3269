package kube

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/model"
)

// HeartbeatInterval is how often a node's status is written although nothing
// has changed, up to a fifth earlier or later. StaleAfter is the age at which
// it is no longer believed.
const (
	HeartbeatInterval = 4 * time.Minute
	StaleAfter        = 10 * time.Minute
)

// MaxProblems is the most that the schema of a NodeNetwork admits.
const MaxProblems = 100

// NodeStatus is what an agent says of its node.
type NodeStatus struct {
	Node              string // name of the Node object
	UID               string // of the Node object; empty if that is not known
	Version           string // of the agent
	Ready             bool
	Reason, Message   string // of the condition Ready; Reason is one CamelCase word
	Problems          []model.Problem
	Attached          int // pods
	Direct, Tunnelled int // other nodes, by the way to them
	Uplink            string
	MTU               int // of the uplink, in bytes
}

// publisher remembers what was written, so that it is not written again.
type publisher struct {
	mu   sync.Mutex
	last *v1alpha1.NodeNetwork // as the API server returned it; nil before the first
	next time.Time             // of the heartbeat
}

// PublishNode writes the NodeNetwork of a node if it differs from what was
// written last, or if a heartbeat is due; call it on every change and about
// once a minute. What fails is tried again until ctx ends, with growing pauses
// with jitter, unless the API server refuses it for good.
func (c *Client) PublishNode(ctx context.Context, status NodeStatus) error {
	p := &c.publisher
	p.mu.Lock()
	defer p.mu.Unlock()
	backoff := wait.Backoff{Duration: time.Second, Factor: 2, Jitter: 0.5, Steps: 10, Cap: time.Minute}
	for {
		err := c.publish(ctx, status)
		if err == nil {
			return nil
		}
		err = fmt.Errorf("publishing the status of node %s: %w", status.Node, err)
		// The kind may not be there, or not for us, for as long as the cluster lives.
		if IsNotFound(err) || apierrors.IsForbidden(err) || apierrors.IsInvalid(err) {
			return err
		}
		p.last = nil
		select {
		case <-ctx.Done():
			return err
		case <-time.After(backoff.Step()):
		}
	}
}

// publish is called with the publisher's lock held.
func (c *Client) publish(ctx context.Context, status NodeStatus) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	p := &c.publisher
	if p.last == nil || p.last.Name != status.Node || !status.owns(p.last) {
		found, err := c.nodeNetwork(ctx, status.Node)
		if err != nil {
			return err
		}
		p.last, p.next = found, time.Time{}
	}
	next := p.last.DeepCopy()
	if problem, wrong := c.clockProblem(status.Node); wrong {
		status.Problems = append([]model.Problem{problem}, status.Problems...)
	}
	status.fill(&next.Status)
	now := time.Now()
	if reflect.DeepEqual(next.Status, p.last.Status) && now.Before(p.next) {
		return nil
	}
	next.Status.HeartbeatTime = metav1.NewTime(c.Now())
	written := &v1alpha1.NodeNetwork{}
	err := c.fairlead.Put().Resource("nodenetworks").Name(next.Name).SubResource("status").Body(next).Do(ctx).Into(written)
	if err != nil {
		p.last = nil
		if IsNotFound(err) { // it went away with an older Node of this name
			return apierrors.NewConflict(v1alpha1.GroupVersion().WithResource("nodenetworks").GroupResource(), next.Name, err)
		}
		return err
	}
	if p.last = written; !status.owns(written) {
		p.last = nil // it goes with the Node of before, and has to be made anew then
	}
	p.next = now.Add(time.Duration(float64(HeartbeatInterval) * (0.8 + 0.4*rand.Float64())))
	return nil
}

// owns tells whether an object lives as long as the Node, as far as is known: it does not
// if that was replaced by another of its name.
func (s *NodeStatus) owns(made *v1alpha1.NodeNetwork) bool {
	return s.UID == "" || len(made.OwnerReferences) == 0 || string(made.OwnerReferences[0].UID) == s.UID
}

// requestTimeout is for a few small requests in a row.
const requestTimeout = 20 * time.Second

// nodeNetwork reads the node's object, or makes it.
func (c *Client) nodeNetwork(ctx context.Context, name string) (*v1alpha1.NodeNetwork, error) {
	found := &v1alpha1.NodeNetwork{}
	err := c.fairlead.Get().Resource("nodenetworks").Name(name).Do(ctx).Into(found)
	if err == nil || !IsNotFound(err) {
		return found, err
	}
	node, err := c.core.Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	made := &v1alpha1.NodeNetwork{ObjectMeta: metav1.ObjectMeta{
		Name:            name,
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: name, UID: node.UID}},
	}}
	return found, c.fairlead.Post().Resource("nodenetworks").Body(made).Do(ctx).Into(found)
}

// fill writes all but the heartbeat. What does not change keeps its times.
func (s *NodeStatus) fill(to *v1alpha1.NodeNetworkStatus) {
	to.AgentVersion = s.Version
	to.Uplink, to.MTU = s.Uplink, int32(s.MTU)
	to.Peers = v1alpha1.PeerCount{Direct: int32(s.Direct), Tunnelled: int32(s.Tunnelled)}
	to.Pods = int32(s.Attached)
	to.Problems = Problems(s.Problems, MaxProblems)
	ready := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: s.Reason, Message: s.Message}
	if s.Ready {
		ready.Status = metav1.ConditionTrue
	}
	if ready.Reason == "" { // the schema of conditions asks for one
		ready.Reason = map[bool]string{true: "Ready", false: "NotReady"}[s.Ready]
	}
	meta.SetStatusCondition(&to.Conditions, ready)
	meta.SetStatusCondition(&to.Conditions, s.degraded())
}

// degraded is named after the first problem, which is said in full; all of them are
// in the status.
func (s *NodeStatus) degraded() metav1.Condition {
	if len(s.Problems) == 0 {
		return metav1.Condition{Type: v1alpha1.ConditionDegraded, Status: metav1.ConditionFalse, Reason: "NoProblems", Message: "there are no problems"}
	}
	message := s.Problems[0].String()
	if more := len(s.Problems) - 1; more > 0 {
		message += fmt.Sprintf(" (and %d more)", more)
	}
	return metav1.Condition{
		Type: v1alpha1.ConditionDegraded, Status: metav1.ConditionTrue,
		Reason: s.Problems[0].Reason, Message: message,
	}
}

// Problems puts problems into the words of the API, up to a number of them.
func Problems(from []model.Problem, most int) []v1alpha1.Problem {
	var to []v1alpha1.Problem
	for _, p := range from[:min(len(from), most)] {
		to = append(to, v1alpha1.Problem(p))
	}
	return to
}

// Pod reads one pod from the API server: for one that the watch has not
// brought yet. IsNotFound tells if there is none.
func (c *Client) Pod(ctx context.Context, key model.PodKey) (*model.Pod, error) {
	object, err := c.core.Pods(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading pod %s: %w", key, err)
	}
	return convertPod(object).value, nil
}
