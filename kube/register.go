package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairlead-net/fairlead/model"
)

// GatewayName is the name of what the gateways have in their namespace: the Service
// that selects their pods, and the Lease of the one that writes.
const GatewayName = "fairlead-gateway"

// registrar is who owns what we write in the status of an Ingress, in its
// managedFields.
const registrar = "fairlead-gateway"

// lookForLead is how often a gateway looks whether it is to write: there may be one
// on each node, and nobody waits for a status.
const lookForLead = 10 * time.Second

// GatewayRegister is what the one gateway that writes status and Events has to know
// beside what all of them do: nodes, load balancers, and what the status of
// Ingresses says. Its Lead may be called again when it returns.
type GatewayRegister struct {
	client    *Client
	namespace string
	identity  string
	failed    func(error)
}

// GatewayRegister returns that of the gateways of a namespace. identity is that of
// this one, such as its pod's name; failed is told what keeps it from leading.
func (c *Client) GatewayRegister(namespace, identity string, failed func(error)) *GatewayRegister {
	return &GatewayRegister{client: c, namespace: namespace, identity: identity, failed: failed}
}

// Service is that which selects the gateways.
func (r *GatewayRegister) Service() model.ServiceKey {
	return model.ServiceKey{Namespace: r.namespace, Name: GatewayName}
}

// Lead calls lead once this gateway is the one that writes, until it is not any
// more; see Client.Lead.
func (r *GatewayRegister) Lead(ctx context.Context, lead func(context.Context) error) error {
	return r.client.Lead(ctx, Lock{
		Namespace: r.namespace, Name: GatewayName, Identity: r.identity, Failed: r.failed, Every: lookForLead,
	}, lead)
}

// WriteEvent is that of Client.
func (r *GatewayRegister) WriteEvent(ctx context.Context, event Event) error {
	return r.client.WriteEvent(ctx, event)
}

// Entry is what the API server has of an Ingress for those who write of it.
type Entry struct {
	UID       string
	Addresses []string // of its status: of each the address, or else the name of the host
	// Ours says that it was we who wrote them, and nobody since; else Writer is who
	// did, if that can be told.
	Ours   bool
	Writer string
}

// Equal tells whether nothing differs.
func (e *Entry) Equal(other *Entry) bool {
	return e.UID == other.UID && e.Ours == other.Ours && e.Writer == other.Writer && slices.Equal(e.Addresses, other.Addresses)
}

// LoadBalancer is one that leads to a Service.
type LoadBalancer struct {
	Addresses []string // as it has told them: addresses, and names of hosts
}

// Entries are all that a register has. They are immutable.
type Entries struct {
	Ingresses     model.Map[model.IngressKey, *Entry]
	LoadBalancers model.Map[model.ServiceKey, *LoadBalancer] // of the namespace of the gateways
	Nodes         model.Map[string, *model.Node]
}

// Follow keeps entries current until ctx ends, and then returns nil. synced is called
// once all are known; edit is called from several goroutines.
func (r *GatewayRegister) Follow(ctx context.Context, edit func(func(*Entries)), synced func()) error {
	source := &Source{client: r.client, few: true, problems: newProblems(), shared: newEntrance()}
	feed := &model.Feed{}
	known := after(3, synced)
	runs := []func(context.Context){
		r.entries(source.problems, edit, sync.OnceFunc(known)),
		r.loadBalancers(source.problems, edit, sync.OnceFunc(known)),
		source.nodes(feed, sync.OnceFunc(known)),
	}
	var group errgroup.Group
	for _, run := range runs {
		group.Go(func() error { run(ctx); return nil })
	}
	for ctx.Err() == nil {
		snapshot, changed := feed.Latest()
		edit(func(e *Entries) { e.Nodes = snapshot.Nodes })
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
	return group.Wait()
}

func (r *GatewayRegister) entries(problems *problems, edit func(func(*Entries)), known func()) func(context.Context) {
	return watch(&reflection[model.IngressKey, *Entry]{
		client: r.client.entries, list: r.client.entries.list, resource: "ingresses", object: &arrival[model.IngressKey, *Entry]{},
		store: &store[model.IngressKey, *Entry]{
			convert: convertFrom(convertEntry),
			equal:   (*Entry).Equal,
			edit: func(change func(model.Map[model.IngressKey, *Entry]) model.Map[model.IngressKey, *Entry]) {
				edit(func(e *Entries) { e.Ingresses = change(e.Ingresses) })
			},
			synced: known, problems: problems, kind: "Ingress",
		},
	})
}

// See sparseNodes.
func sparseEntries() (*sparse[*networkingv1.Ingress, model.IngressKey, *Entry], error) {
	return newSparse(networkingv1.SchemeGroupVersion, &networkingv1.Ingress{}, convertEntry,
		"metadata.uid", "metadata.managedFields.manager", "metadata.managedFields.subresource", "metadata.managedFields.time", "status.loadBalancer")
}

func convertEntry(object *networkingv1.Ingress) converted[model.IngressKey, *Entry] {
	entry := &Entry{UID: string(object.UID)}
	for i := range object.Status.LoadBalancer.Ingress {
		at := &object.Status.LoadBalancer.Ingress[i]
		entry.Addresses = append(entry.Addresses, cmp.Or(at.IP, at.Hostname))
	}
	var last metav1.Time
	for i := range object.ManagedFields {
		field := &object.ManagedFields[i]
		if field.Subresource != "status" {
			continue
		}
		if entry.Ours = entry.Ours || field.Manager == registrar; field.Time != nil && !field.Time.Before(&last) {
			entry.Writer, last = intern(field.Manager), *field.Time
		}
	}
	if entry.Ours || len(entry.Addresses) == 0 {
		entry.Writer = ""
	}
	key := model.IngressKey{Namespace: intern(object.Namespace), Name: object.Name}
	return converted[model.IngressKey, *Entry]{key: key, value: entry}
}

func (r *GatewayRegister) loadBalancers(problems *problems, edit func(func(*Entries)), known func()) func(context.Context) {
	return watch(&reflection[model.ServiceKey, *LoadBalancer]{
		client: r.client.core.RESTClient(), resource: "services", namespace: r.namespace, object: &corev1.Service{},
		store: &store[model.ServiceKey, *LoadBalancer]{
			convert: convertFrom(convertLoadBalancer),
			equal:   func(a, b *LoadBalancer) bool { return slices.Equal(a.Addresses, b.Addresses) },
			edit: func(change func(model.Map[model.ServiceKey, *LoadBalancer]) model.Map[model.ServiceKey, *LoadBalancer]) {
				edit(func(e *Entries) { e.LoadBalancers = change(e.LoadBalancers) })
			},
			synced: known, problems: problems, kind: "Service",
		},
	})
}

func convertLoadBalancer(object *corev1.Service) converted[model.ServiceKey, *LoadBalancer] {
	to := converted[model.ServiceKey, *LoadBalancer]{key: model.ServiceKey{Namespace: intern(object.Namespace), Name: object.Name}}
	balancer := &LoadBalancer{}
	for i := range object.Status.LoadBalancer.Ingress {
		at := &object.Status.LoadBalancer.Ingress[i]
		if text := cmp.Or(at.IP, at.Hostname); text != "" {
			balancer.Addresses = append(balancer.Addresses, text)
		}
	}
	to.absent = object.Spec.Type != corev1.ServiceTypeLoadBalancer || len(balancer.Addresses) == 0
	if !to.absent {
		to.value = balancer
	}
	return to
}

// Publish makes the status of an Ingress tell addresses. None takes away what we
// have written, and leaves what others have: it is applied on the server's side,
// which knows whose each field is. One that is gone is none of our business; for another
// of its name, or one that changes in this moment, the error is one of the object.
func (r *GatewayRegister) Publish(ctx context.Context, key model.IngressKey, uid string, addresses []string) error {
	return r.client.publishIngress(ctx, key, uid, addresses)
}

func (c *Client) publishIngress(ctx context.Context, key model.IngressKey, uid string, addresses []string) error {
	applied := object{
		"apiVersion": networkingv1.SchemeGroupVersion.String(), "kind": "Ingress",
		"metadata": object{"namespace": key.Namespace, "name": key.Name, "uid": uid},
	}
	if len(addresses) > 0 { // without any, there is to be no status, or its managedFields would stay

		var all []object
		for _, text := range addresses {
			field := "hostname"
			if _, err := parseAddr(text); err == nil {
				field = "ip"
			}
			all = append(all, object{field: text})
		}
		applied["status"] = object{"loadBalancer": object{"ingress": all}}
	}
	patch, err := json.Marshal(applied)
	if err == nil {
		force := true
		_, err = c.networking.Ingresses(key.Namespace).Patch(ctx, key.Name, types.ApplyPatchType, patch,
			metav1.PatchOptions{FieldManager: registrar, Force: &force}, "status")
	}
	if IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("writing the status of Ingress %s: %w", key, err)
	}
	return nil
}

// WithdrawIngresses takes from the status of all Ingresses what gateways have written.
func (c *Client) WithdrawIngresses(ctx context.Context) error {
	list, err := c.networking.Ingresses(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("listing Ingresses: %w", err)
	}
	var failed []error
	for i := range list.Items {
		if entry := convertEntry(&list.Items[i]); entry.value.Ours {
			failed = append(failed, c.publishIngress(ctx, entry.key, entry.value.UID, nil))
		}
	}
	return errors.Join(failed...)
}
