package kube

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/model"
)

// Source watches the cluster and edits a feed as it changes.
type Source struct {
	client *Client
	few    bool // nodes and the Network alone
	among  int  // see Among

	problems *problems
	synced   chan struct{}
	policed  chan struct{} // closed when policies have been read
	shared   *entrance     // of turns

	askNames   sync.Once
	namesAsked chan struct{} // closed when somebody wants names
}

// Source returns a source of all that an agent follows: nodes, pods, Services
// with what belongs to them, and the Network. What FollowNames says comes later.
func (c *Client) Source() *Source {
	return &Source{client: c, problems: newProblems(), synced: make(chan struct{}), policed: make(chan struct{}), shared: newEntrance(), namesAsked: make(chan struct{})}
}

// NodeSource returns a source of nodes and the Network alone.
func (c *Client) NodeSource() *Source {
	source := c.Source()
	source.few = true
	return source
}

// Synced returns a channel that is closed once the feed has all of it.
func (s *Source) Synced() <-chan struct{} { return s.synced }

// PoliciesRead returns a channel that is closed once the feed has all that policies
// are made of, just before its snapshots say so.
func (s *Source) PoliciesRead() <-chan struct{} { return s.policed }

// Problems returns what could not be understood, sorted: values of objects
// that are ignored, a Network that is not followed, kinds that the API server
// does not give us.
func (s *Source) Problems() []model.Problem {
	all, _ := s.problems.all()
	return all
}

// Changed returns a channel that is closed when Problems returns something
// new. Take it before calling Problems.
func (s *Source) Changed() <-chan struct{} {
	_, changed := s.problems.all()
	return changed
}

// Run watches until ctx ends, and then returns nil. Whatever fails meanwhile
// is tried again, with growing pauses; Problems tells.
func (s *Source) Run(ctx context.Context, feed *model.Feed) error {
	type prepare = func(*model.Feed, func()) func(context.Context)
	// Services, and the two watches that FollowNames begins.
	named := after(3, func() {
		feed.Edit(func(snapshot *model.Snapshot) { snapshot.NamesKnown = true })
	})
	services := func(feed *model.Feed, known func()) func(context.Context) {
		once := sync.OnceFunc(named)
		return s.services(feed, func() { known(); once() })
	}
	first, policies := []prepare{s.nodes, s.network}, []prepare(nil)
	if !s.few {
		first = append(first, s.podsOf, services, s.slices, s.serviceCIDRs)
		policies = []prepare{s.namespaces, s.policies, s.clusterPolicies}
	}
	// The rest does not wait for policies, which we may not be allowed to read: what
	// they forbade stays forbidden. They wait for the rest, since without the pods
	// they say nothing.
	known := after(len(policies)+1, func() {
		if !s.few {
			close(s.policed)
		}
		feed.Edit(func(snapshot *model.Snapshot) { snapshot.PoliciesKnown = !s.few })
	})
	synced := after(len(first), func() {
		close(s.synced)
		known()
	})
	var group errgroup.Group
	if !s.few {
		group.Go(func() error { s.names(ctx, feed, named); return nil })
	}
	for _, prepare := range first {
		run := prepare(feed, sync.OnceFunc(synced))
		group.Go(func() error { run(ctx); return nil })
	}
	for _, prepare := range policies {
		run := prepare(feed, sync.OnceFunc(known))
		group.Go(func() error { run(ctx); return nil })
	}
	return group.Wait()
}

// after returns a function that does something when it has been called so often.
func after(times int, do func()) func() {
	var left atomic.Int32
	left.Store(int32(times))
	return func() {
		if left.Add(-1) == 0 {
			do()
		}
	}
}

// turns are for a source that every node has. The one of the leader has no
// others beside it.
func (s *Source) turns(feed *model.Feed) *turns {
	if s.few {
		return nil
	}
	return &turns{shared: s.shared, agents: func() int {
		snapshot, _ := feed.Latest()
		return max(snapshot.Nodes.Len(), s.among)
	}}
}

// Among makes the source take turns as in a cluster of so many nodes, whatever the API
// server has: so that many can be measured on one machine, where each would know all.
func (s *Source) Among(nodes int) { s.among = nodes }

func (s *Source) nodes(feed *model.Feed, known func()) func(context.Context) {
	return watch(&reflection[string, *model.Node]{
		client: s.client.nodes, list: s.client.nodes.list, resource: "nodes", object: &arrival[string, *model.Node]{},
		store: &store[string, *model.Node]{
			convert: convertFrom(convertNode),
			key:     func(node *model.Node) string { return node.Name },
			equal:   (*model.Node).Equal,
			edit: func(edit func(model.Map[string, *model.Node]) model.Map[string, *model.Node]) {
				feed.Edit(func(snapshot *model.Snapshot) { snapshot.Nodes = edit(snapshot.Nodes) })
			},
			synced: known, problems: s.problems, kind: "Node",
		},
		turns: s.turns(feed),
	})
}

func (s *Source) podsOf(feed *model.Feed, known func()) func(context.Context) {
	return watch(&reflection[model.PodKey, *model.Pod]{
		client: s.client.pods, list: s.client.pods.list, resource: "pods", object: &arrival[model.PodKey, *model.Pod]{},
		store: &store[model.PodKey, *model.Pod]{
			convert: convertFrom(convertPod),
			key:     func(pod *model.Pod) model.PodKey { return pod.PodKey },
			equal:   (*model.Pod).Equal,
			edit: func(edit func(model.Map[model.PodKey, *model.Pod]) model.Map[model.PodKey, *model.Pod]) {
				feed.Edit(func(snapshot *model.Snapshot) { snapshot.Pods = edit(snapshot.Pods) })
			},
			synced: known, problems: s.problems, kind: "Pod",
		},
		turns: s.turns(feed),
	})
}

func (s *Source) slices(feed *model.Feed, known func()) func(context.Context) {
	apiServers := &apiServers{servers: s.client.servers, problems: s.problems, own: map[model.SliceKey]*model.EndpointSlice{}}
	return watch(&reflection[model.SliceKey, *model.EndpointSlice]{
		client: s.client.slices, list: s.client.slices.list, resource: "endpointslices", object: &arrival[model.SliceKey, *model.EndpointSlice]{}, label: notServed,
		store: &store[model.SliceKey, *model.EndpointSlice]{
			convert: convertFrom(convertSlice),
			key:     func(slice *model.EndpointSlice) model.SliceKey { return slice.SliceKey },
			equal:   (*model.EndpointSlice).Equal,
			edit: func(edit func(model.Map[model.SliceKey, *model.EndpointSlice]) model.Map[model.SliceKey, *model.EndpointSlice]) {
				var all model.Map[model.SliceKey, *model.EndpointSlice]
				feed.Edit(func(snapshot *model.Snapshot) {
					snapshot.Slices = edit(snapshot.Slices)
					all = snapshot.Slices
				})
				if s.client.servers != nil { // a node's agent keeps them for all on the node
					apiServers.follow(all)
				}
			},
			synced: known, problems: s.problems, kind: "EndpointSlice",
		},
		turns: s.turns(feed),
	})
}

// serviceCIDRs are known to Kubernetes from 1.33 on. Without them, packets to
// addresses that no Service has go where the node's routes lead.
func (s *Source) serviceCIDRs(feed *model.Feed, known func()) func(context.Context) {
	return watch(&reflection[string, *model.ServiceCIDR]{
		client: s.client.networking.RESTClient(), resource: "servicecidrs", object: &networkingv1.ServiceCIDR{},
		missing: known, absent: absence{patient: true},
		store: &store[string, *model.ServiceCIDR]{
			convert: convertFrom(convertServiceCIDR),
			key:     func(cidr *model.ServiceCIDR) string { return cidr.Name },
			equal:   (*model.ServiceCIDR).Equal,
			edit: func(edit func(model.Map[string, *model.ServiceCIDR]) model.Map[string, *model.ServiceCIDR]) {
				feed.Edit(func(snapshot *model.Snapshot) { snapshot.ServiceCIDRs = edit(snapshot.ServiceCIDRs) })
			},
			synced: known, problems: s.problems, kind: "ServiceCIDR",
		},
		turns: s.turns(feed),
	})
}

// networkObject is a Network with whether all of it was understood.
type networkObject struct {
	network *model.Network
	valid   bool
}

func (n networkObject) equal(other networkObject) bool {
	return n.valid == other.valid && n.network.Equal(other.network)
}

func (s *Source) network(feed *model.Feed, known func()) func(context.Context) {
	var networks model.Map[string, networkObject]
	convert := func(object *v1alpha1.Network) converted[string, networkObject] {
		to := convertNetwork(object)
		return converted[string, networkObject]{
			key: to.key, value: networkObject{to.value, len(to.problems) == 0}, problems: to.problems,
		}
	}
	return watch(&reflection[string, networkObject]{
		client: s.client.fairlead, resource: "networks", object: &v1alpha1.Network{},
		// A cluster without the kind has the defaults. One that had a Network
		// keeps it: the watch has told if it was deleted.
		missing: func() {
			feed.Edit(func(snapshot *model.Snapshot) {
				if snapshot.Network == nil {
					snapshot.Network = model.DefaultNetwork()
				}
			})
			known()
		},
		store: &store[string, networkObject]{
			convert: convertFrom(convert),
			equal:   networkObject.equal,
			edit: func(edit func(model.Map[string, networkObject]) model.Map[string, networkObject]) {
				networks = edit(networks)
				object, ok := networks.Get(v1alpha1.NetworkName)
				if !ok {
					object = networkObject{model.DefaultNetwork(), true}
				}
				feed.Edit(func(snapshot *model.Snapshot) { follow(snapshot, object) })
			},
			synced: known, problems: s.problems, kind: "Network",
		},
		turns: s.turns(feed),
	})
}

// follow makes the configuration that of the object. An invalid one never
// replaces one that was good.
func follow(snapshot *model.Snapshot, object networkObject) {
	if snapshot.Network != nil && (!object.valid || snapshot.Follows(object.network)) {
		return
	}
	if !object.valid {
		// Not the half of it that was understood: nodes that saw a good one go on
		// with that. So did this one, before it was started again.
		object.network = model.DefaultNetwork()
		if snapshot.Former != nil {
			object.network.Routing = *snapshot.Former
		}
	}
	snapshot.Follow(object.network)
}

// apiServers keep the addresses of the API servers: those of the Service
// kubernetes, which they write themselves.
type apiServers struct {
	servers  *servers
	problems *problems
	slices   model.Map[model.SliceKey, *model.EndpointSlice] // as they were
	own      map[model.SliceKey]*model.EndpointSlice         // of them, those of the API servers
}

// follow takes in what all EndpointSlices have become.
func (a *apiServers) follow(all model.Map[model.SliceKey, *model.EndpointSlice]) {
	is := func(slice *model.EndpointSlice) bool {
		return slice != nil && slice.Namespace == metav1.NamespaceDefault && slice.Service == "kubernetes"
	}
	changed := false
	for change := range model.Diff(a.slices, all) {
		if is(change.Old) || is(change.New) {
			changed = true
			delete(a.own, change.Key)
		}
		if is(change.New) {
			a.own[change.Key] = change.New
		}
	}
	a.slices = all
	if !changed {
		return
	}
	var addresses []string
	for _, slice := range a.own {
		addresses = append(addresses, endpointAddresses(slice)...)
	}
	a.problems.set("apiservers.json", "", notSaved(a.servers.learn(addresses)))
}

func notSaved(err error) []model.Problem {
	if err == nil {
		return nil
	}
	return []model.Problem{{
		Kind: "EndpointSlice", Namespace: metav1.NamespaceDefault, Name: "kubernetes", Reason: "NotSaved",
		Message: "the addresses of the API servers are not on disk for the next start: " + err.Error(),
		Remedy:  "make room on the disk of the node, or make it writable",
	}}
}

func endpointAddresses(slice *model.EndpointSlice) (all []string) {
	for _, port := range slice.Ports {
		if port.Name != "" && port.Name != "https" {
			continue
		}
		for _, endpoint := range slice.Endpoints {
			all = append(all, netip.AddrPortFrom(endpoint.Address, port.Port).String())
		}
	}
	return all
}
