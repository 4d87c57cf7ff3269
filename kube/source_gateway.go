package kube

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-net/fairlead/model"
)

// GatewaySource watches what requests from outside are led by: Ingresses and their
// classes, Services with their endpoints, and the Network; and, beside the feed,
// the Secrets that are named, which no snapshot has.
type GatewaySource struct {
	*Source
	secrets *secrets
}

// GatewaySource returns one.
func (c *Client) GatewaySource() *GatewaySource {
	source := c.NodeSource()
	return &GatewaySource{Source: source, secrets: newSecrets(c, source.problems)}
}

// Name says which Secrets are wanted. What others have is not kept; what these have
// is followed.
func (s *GatewaySource) Name(keys model.Map[model.SecretKey, int]) { s.secrets.name(keys) }

// Secrets returns those that are named and are there; whether of some the API server
// has not answered yet; and a channel that is closed when there is more to tell.
func (s *GatewaySource) Secrets() (known model.Map[model.SecretKey, *model.Secret], waiting bool, changed <-chan struct{}) {
	s.secrets.mu.Lock()
	defer s.secrets.mu.Unlock()
	return s.secrets.known, s.secrets.waiting > 0, s.secrets.changed
}

// Run is as that of Source.
func (s *GatewaySource) Run(ctx context.Context, feed *model.Feed) error {
	all := []func(*model.Feed, func()) func(context.Context){s.network, s.services, s.slices, s.ingresses, s.ingressClasses, s.secretsOf}
	known := after(len(all), func() { close(s.synced) })
	var group errgroup.Group
	for _, prepare := range all {
		run := prepare(feed, sync.OnceFunc(known))
		group.Go(func() error { run(ctx); return nil })
	}
	return group.Wait()
}

func (s *GatewaySource) ingresses(feed *model.Feed, known func()) func(context.Context) {
	return watch(&reflection[model.IngressKey, *model.HTTPIngress]{
		client: s.client.ingresses, list: s.client.ingresses.list, resource: "ingresses", object: &arrival[model.IngressKey, *model.HTTPIngress]{},
		store: &store[model.IngressKey, *model.HTTPIngress]{
			convert: convertFrom(convertIngress),
			key:     func(ingress *model.HTTPIngress) model.IngressKey { return ingress.IngressKey },
			equal:   (*model.HTTPIngress).Equal,
			edit: func(edit func(model.Map[model.IngressKey, *model.HTTPIngress]) model.Map[model.IngressKey, *model.HTTPIngress]) {
				feed.Edit(func(snapshot *model.Snapshot) { snapshot.Ingresses = edit(snapshot.Ingresses) })
			},
			synced: known, problems: s.problems, kind: "Ingress",
		},
	})
}

func (s *GatewaySource) ingressClasses(feed *model.Feed, known func()) func(context.Context) {
	return watch(&reflection[string, *model.IngressClass]{
		client: s.client.networking.RESTClient(), resource: "ingressclasses", object: &networkingv1.IngressClass{},
		store: &store[string, *model.IngressClass]{
			convert: convertFrom(convertIngressClass),
			key:     func(class *model.IngressClass) string { return class.Name },
			equal:   func(a, b *model.IngressClass) bool { return *a == *b },
			edit: func(edit func(model.Map[string, *model.IngressClass]) model.Map[string, *model.IngressClass]) {
				feed.Edit(func(snapshot *model.Snapshot) { snapshot.IngressClasses = edit(snapshot.IngressClasses) })
			},
			synced: known, problems: s.problems, kind: "IngressClass",
		},
	})
}

func (s *GatewaySource) secretsOf(_ *model.Feed, known func()) func(context.Context) {
	base := &store[model.SecretKey, string]{synced: known, problems: s.problems, kind: "Secret"}
	run := watch(&reflection[model.SecretKey, string]{
		client: s.client.metadata, resource: "secrets", object: &metav1.PartialObjectMetadata{},
		store: base, into: &secretNotices{base, s.secrets},
	})
	return func(ctx context.Context) { s.secrets.run(ctx, run) }
}
