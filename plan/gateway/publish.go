package gateway

import (
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// Whereabouts are where the gateways of a cluster are found.
type Whereabouts struct {
	// Service selects their pods.
	Service model.ServiceKey
	// LoadBalancers returns what leads to a Service from outside, of the same
	// namespace: addresses, and names of hosts. None: nothing does.
	LoadBalancers func(model.ServiceKey) []string
	Nodes         model.Map[string, *model.Node]
}

// Addresses are what the status of Ingresses is to tell: those that the Network says;
// or of load balancers of Services that have a gateway among their endpoints; or of
// the nodes on which a gateway is ready, their ExternalIPs or else their InternalIPs,
// sorted. None: nobody knows.
func Addresses(snapshot *model.Snapshot, at *Whereabouts) []string {
	if n := snapshot.Network; n != nil && len(n.Ingress.PublishAddresses) > 0 {
		return n.Ingress.PublishAddresses
	}
	pods := map[netip.Addr]struct{}{}
	nodes := map[string]struct{}{}
	for _, slice := range snapshot.Slices.All() {
		if slice.Namespace != at.Service.Namespace || slice.Service != at.Service.Name {
			continue
		}
		for i := range slice.Endpoints {
			if endpoint := &slice.Endpoints[i]; endpoint.Ready {
				pods[endpoint.Address] = struct{}{}
				nodes[endpoint.Node] = struct{}{}
			}
		}
	}
	if balanced := at.balanced(snapshot, pods); len(balanced) > 0 {
		return balanced
	}
	var all []netip.Addr
	for name := range nodes {
		if node, ok := at.Nodes.Get(name); ok {
			if of := node.External; len(of) > 0 {
				all = append(all, of...)
			} else {
				all = append(all, node.Addresses...)
			}
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	var texts []string
	for _, addr := range slices.Compact(all) {
		texts = append(texts, addr.String())
	}
	return texts
}

// balanced are what load balancers have told that lead to one of the pods.
func (at *Whereabouts) balanced(snapshot *model.Snapshot, pods map[netip.Addr]struct{}) (all []string) {
	asked := map[model.ServiceKey]struct{}{}
	for _, slice := range snapshot.Slices.All() {
		key := model.ServiceKey{Namespace: slice.Namespace, Name: slice.Service}
		if _, done := asked[key]; done || slice.Namespace != at.Service.Namespace {
			continue
		}
		if slices.ContainsFunc(slice.Endpoints, func(e model.Endpoint) bool { _, is := pods[e.Address]; return is }) {
			asked[key] = struct{}{}
			all = append(all, at.LoadBalancers(key)...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Use is where an Ingress names a Secret.
type Use struct {
	Ingress model.IngressKey
	Field   string
}

// Uses are where Ingresses that are served name Secrets, sorted by Ingress.
func (t *Table) Uses() map[SecretKey][]Use {
	uses := map[SecretKey][]Use{}
	for _, d := range t.drafts.All() {
		for field, secret := range d.secrets() {
			uses[secret] = append(uses[secret], Use{d.ingress.IngressKey, field})
		}
	}
	for _, all := range uses {
		slices.SortFunc(all, func(a, b Use) int {
			return cmp.Or(cmp.Compare(a.Ingress.Namespace, b.Ingress.Namespace), cmp.Compare(a.Ingress.Name, b.Ingress.Name), cmp.Compare(a.Field, b.Field))
		})
	}
	return uses
}

// Secrets are those that Ingresses which are served name, each with how often.
func (t *Table) Secrets() model.Map[SecretKey, int] { return t.secrets }

// secrets yields the Secrets that an Ingress names, with the field.
func (d *draft) secrets() iter.Seq2[string, SecretKey] {
	return func(yield func(string, SecretKey) bool) {
		for i, tls := range d.ingress.TLS {
			if tls.Secret != "" && !yield(fmt.Sprintf("spec.tls[%d].secretName", i), SecretKey{Namespace: d.ingress.Namespace, Name: tls.Secret}) {
				return
			}
		}
		annotated := func(key string, secret SecretKey) bool {
			return secret.Name == "" || yield("metadata.annotations["+prefix+key+"]", secret)
		}
		if auth := d.policy.BasicAuth; auth != nil && !annotated("auth-secret", auth.Secret) {
			return
		}
		if client := d.policy.ClientCert; client != nil && !annotated("auth-tls-secret", client.CA) {
			return
		}
		if backend := d.policy.BackendTLS; backend != nil {
			annotated("proxy-ssl-secret", backend.Secret)
		}
	}
}
