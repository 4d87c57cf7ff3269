package kube

import (
	"context"
	"fmt"
	"reflect"
	"sync"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/model"
)

// Reports watches what the agents say of their nodes. The objects are
// immutable.
type Reports struct {
	client   *Client
	problems *problems
	synced   chan struct{}

	mu      sync.Mutex
	latest  model.Map[string, *v1alpha1.NodeNetwork]
	changed chan struct{} // closed and replaced at each change
}

// Reports returns a watch of all NodeNetworks.
func (c *Client) Reports() *Reports {
	return &Reports{client: c, problems: newProblems(), synced: make(chan struct{}), changed: make(chan struct{})}
}

// Run watches until ctx ends, and then returns nil.
func (r *Reports) Run(ctx context.Context) error {
	watch(&reflection[string, *v1alpha1.NodeNetwork]{
		client: r.client.fairlead, resource: "nodenetworks", object: &v1alpha1.NodeNetwork{},
		store: &store[string, *v1alpha1.NodeNetwork]{
			convert: convertFrom(func(object *v1alpha1.NodeNetwork) converted[string, *v1alpha1.NodeNetwork] {
				object.ManagedFields = nil
				return converted[string, *v1alpha1.NodeNetwork]{key: object.Name, value: object}
			}),
			equal:    func(a, b *v1alpha1.NodeNetwork) bool { return reflect.DeepEqual(a.Status, b.Status) },
			edit:     r.edit,
			synced:   sync.OnceFunc(func() { close(r.synced) }),
			problems: r.problems, kind: "NodeNetwork",
		},
	})(ctx)
	return nil
}

func (r *Reports) edit(edit func(model.Map[string, *v1alpha1.NodeNetwork]) model.Map[string, *v1alpha1.NodeNetwork]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := edit(r.latest)
	if next == r.latest {
		return
	}
	r.latest = next
	close(r.changed)
	r.changed = make(chan struct{})
}

// Synced returns a channel that is closed once all are known.
func (r *Reports) Synced() <-chan struct{} { return r.synced }

// Problems returns what keeps the watch from going on, if anything.
func (r *Reports) Problems() []model.Problem {
	all, _ := r.problems.all()
	return all
}

// Latest returns the reports by name of node, and a channel that is closed
// when there are newer ones.
func (r *Reports) Latest() (model.Map[string, *v1alpha1.NodeNetwork], <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.latest, r.changed
}

// PublishNetwork makes the status of the Network named default be what change
// makes of it, and writes it only if that differs. The object is made, without
// a spec, if there is none. generation is that of the object that is read.
func (c *Client) PublishNetwork(ctx context.Context, change func(status *v1alpha1.NetworkStatus, generation int64)) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	network := &v1alpha1.Network{}
	err := c.fairlead.Get().Resource("networks").Name(v1alpha1.NetworkName).Do(ctx).Into(network)
	if IsNotFound(err) {
		made := &v1alpha1.Network{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.NetworkName}}
		err = c.fairlead.Post().Resource("networks").Body(made).Do(ctx).Into(network)
	}
	if err == nil {
		was := network.Status.DeepCopy()
		change(&network.Status, network.Generation)
		if equality.Semantic.DeepEqual(was, &network.Status) {
			return nil
		}
		err = c.fairlead.Put().Resource("networks").Name(network.Name).SubResource("status").Body(network).Do(ctx).Error()
	}
	if err != nil {
		return fmt.Errorf("publishing the status of the Network: %w", err)
	}
	return nil
}
