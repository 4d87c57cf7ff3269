package kube

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/fairlead-net/fairlead/model"
)

// GatewaySource watches what requests from outside are led by: Ingresses and their
// classes, Services with their endpoints, and the Network; and, beside the feed,
// Secrets, which no snapshot has.
type GatewaySource struct {
	*Source

	mu      sync.Mutex
	secrets model.Map[model.SecretKey, *model.Secret]
	changed chan struct{} // closed and replaced with secrets
}

// GatewaySource returns one.
func (c *Client) GatewaySource() *GatewaySource {
	return &GatewaySource{Source: c.NodeSource(), changed: make(chan struct{})}
}

// Secrets returns those that there are, and a channel that is closed when there are
// others.
func (s *GatewaySource) Secrets() (model.Map[model.SecretKey, *model.Secret], <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.secrets, s.changed
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
		client: s.client.networking.RESTClient(), resource: "ingresses", object: &networkingv1.Ingress{},
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

// mostSecret is how much of a Secret is kept, in bytes: more are no certificates
// and no users.
const mostSecret = 1 << 20

func convertSecret(object *corev1.Secret) converted[model.SecretKey, *model.Secret] {
	key := model.SecretKey{Namespace: intern(object.Namespace), Name: object.Name}
	to := converted[model.SecretKey, *model.Secret]{key: key, value: &model.Secret{SecretKey: key, Content: object.Data}}
	size := 0
	for _, content := range object.Data {
		size += len(content)
	}
	switch object.Type {
	case corev1.SecretTypeTLS, corev1.SecretTypeOpaque, corev1.SecretTypeBasicAuth, "":
		to.absent = size > mostSecret
	default: // tokens and such are nobody's business here
		to.absent = true
	}
	return to
}

func (s *GatewaySource) secretsOf(_ *model.Feed, known func()) func(context.Context) {
	return watch(&reflection[model.SecretKey, *model.Secret]{
		client: s.client.core.RESTClient(), resource: "secrets", object: &corev1.Secret{},
		store: &store[model.SecretKey, *model.Secret]{
			convert: convertFrom(convertSecret),
			key:     func(secret *model.Secret) model.SecretKey { return secret.SecretKey },
			equal:   (*model.Secret).Equal,
			edit: func(edit func(model.Map[model.SecretKey, *model.Secret]) model.Map[model.SecretKey, *model.Secret]) {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.secrets = edit(s.secrets)
				close(s.changed)
				s.changed = make(chan struct{})
			},
			synced: known, problems: s.problems, kind: "Secret",
		},
	})
}
