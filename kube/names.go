package kube

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/fairlead-net/fairlead/model"
)

// named is a Service, as one that is served or as a mere name. Both come from one
// watch, so that one that becomes the other is never neither.
type named struct {
	service *model.Service
	name    *model.Name
}

func (n named) key() model.ServiceKey {
	if n.service != nil {
		return n.service.ServiceKey
	}
	return n.name.ServiceKey
}

func (n named) equal(other named) bool {
	switch {
	case n.service != nil && other.service != nil:
		return n.service.Equal(other.service)
	case n.name != nil && other.name != nil:
		return n.name.Equal(other.name)
	}
	return false
}

// convertNamed is convertService, and convertName of what that leaves out.
func convertNamed(object *corev1.Service) converted[model.ServiceKey, named] {
	service := convertService(object)
	to := converted[model.ServiceKey, named]{key: service.key, absent: service.absent, problems: service.problems}
	if to.value.service = service.value; service.absent {
		name := convertName(object)
		to.value, to.absent, to.problems = named{name: name.value}, name.absent, name.problems
	}
	return to
}

// convertName is for Services of which there is nothing to know but their names.
// What cannot be understood is left out, with a Problem.
func convertName(object *corev1.Service) converted[model.ServiceKey, *model.Name] {
	key := model.ServiceKey{Namespace: intern(object.Namespace), Name: object.Name}
	to := converted[model.ServiceKey, *model.Name]{key: key}
	spec := &object.Spec
	name := &model.Name{ServiceKey: key}
	switch {
	case spec.Type == corev1.ServiceTypeExternalName:
		// Without one it would be taken for a headless one. The API server lets none
		// through.
		if name.External = strings.ToLower(strings.TrimSuffix(spec.ExternalName, ".")); name.External == "" {
			to.absent = true
			return to
		}
		if err := leads(name.External); err != nil {
			to.problems = append(to.problems, notUnderstood("Service", &object.ObjectMeta, "spec.externalName", err))
			to.absent = true
		}
	case spec.ClusterIP == corev1.ClusterIPNone:
	case labelled(object.Labels) && spec.ClusterIP != "":
		name.ClusterIPs, name.Ports, to.problems = addressed(object)
		to.absent = len(name.ClusterIPs) == 0
	default: // it is served, or has no address yet
		to.absent = true
	}
	if !to.absent {
		to.value = name
		if len(name.ClusterIPs) == 0 {
			name.Ports = servicePorts(spec, func(string, error) {}) // what is wrong with them keeps nobody from its name
		}
	}
	return to
}

// leads tells whether an external name is one that leads somewhere. The API server
// takes addresses for names.
func leads(external string) error {
	if _, err := netip.ParseAddr(external); err == nil {
		return fmt.Errorf("%s is an address, and names cannot stand for addresses: make a headless Service and an EndpointSlice of it", external)
	}
	for label := range strings.SplitSeq(external, ".") {
		if label == "" || len(label) > 63 || len(external) > 253 {
			return fmt.Errorf("%q is not the name of a host", external)
		}
	}
	return nil
}

// addressed reads the addresses and ports of a Service that another program serves.
func addressed(object *corev1.Service) (addrs []netip.Addr, ports []model.ServicePort, problems []model.Problem) {
	wrong := func(field string, err error) {
		problems = append(problems, notUnderstood("Service", &object.ObjectMeta, field, err))
	}
	for _, text := range clusterIPs(&object.Spec) {
		addr, err := parseAddr(text)
		if err != nil {
			wrong("spec.clusterIPs", err)
			continue
		}
		addrs = append(addrs, addr)
	}
	return addrs, servicePorts(&object.Spec, wrong), problems
}

// hostsOfOthers is a selector of EndpointSlices that the controller of
// EndpointSlices does not make: those of Services without a selector, which do not
// say whether the Service is headless.
const hostsOfOthers = discoveryv1.LabelManagedBy + "!=" + controllerOfSlices + ",!" + corev1.IsHeadlessService

// controllerOfSlices is what the controller of EndpointSlices calls itself.
const controllerOfSlices = "endpointslice-controller.k8s.io"

// See sparseNodes.
func sparseHosts() (*sparse[*discoveryv1.EndpointSlice, model.SliceKey, *model.Hosts], error) {
	return newSparse(discoveryv1.SchemeGroupVersion, &discoveryv1.EndpointSlice{}, convertHosts,
		"metadata.labels", "addressType", "ports", "endpoints.addresses", "endpoints.conditions.ready", "endpoints.hostname")
}

// convertHosts keeps of a slice that may be one of a headless Service what names
// are made of. Problems of one that is not known to be are told with convertSlice.
func convertHosts(object *discoveryv1.EndpointSlice) converted[model.SliceKey, *model.Hosts] {
	key := model.SliceKey{Namespace: intern(object.Namespace), Name: object.Name}
	to := converted[model.SliceKey, *model.Hosts]{key: key}
	_, headless := object.Labels[corev1.IsHeadlessService]
	hosts := &model.Hosts{SliceKey: key, Service: serviceOf(object)}
	to.absent = hosts.Service == "" || !headless && object.Labels[discoveryv1.LabelManagedBy] == controllerOfSlices ||
		object.AddressType != discoveryv1.AddressTypeIPv4 && object.AddressType != discoveryv1.AddressTypeIPv6
	if to.absent {
		return to
	}
	wrong := func(field string, err error) {
		if headless {
			to.problems = append(to.problems, notUnderstood("EndpointSlice", &object.ObjectMeta, field, err))
		}
	}
	for i := range object.Ports {
		if object.Ports[i].Port == nil && headless {
			continue // all ports: such a Service needs none
		}
		port, err := convertPort(&object.Ports[i])
		if err != nil {
			wrong(fmt.Sprintf("ports[%d]", i), err)
			continue
		}
		hosts.Ports = append(hosts.Ports, port)
	}
	of := &model.EndpointSlice{Family: model.IPv4}
	if object.AddressType == discoveryv1.AddressTypeIPv6 {
		of.Family = model.IPv6
	}
	hosts.Hosts = make([]model.Host, 0, readyOnes(object))
	for i := range object.Endpoints {
		if !ready(&object.Endpoints[i]) {
			continue
		}
		endpoint, err := convertEndpoint(&object.Endpoints[i], of)
		if err != nil {
			wrong(fmt.Sprintf("endpoints[%d].addresses", i), err)
			continue
		}
		host := model.Host{Address: endpoint.Address}
		if hostname := object.Endpoints[i].Hostname; hostname != nil {
			host.Hostname = intern(*hostname) // of both families
		}
		hosts.Hosts = append(hosts.Hosts, host)
	}
	to.value = hosts
	return to
}

func ready(endpoint *discoveryv1.Endpoint) bool {
	return endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready
}

func readyOnes(object *discoveryv1.EndpointSlice) (count int) {
	for i := range object.Endpoints {
		if ready(&object.Endpoints[i]) {
			count++
		}
	}
	return count
}

// FollowNames makes the source follow the endpoints of headless Services, which
// nothing but names is made of: until then they are not watched, and a snapshot's
// NamesKnown stays false. It may be called at any time and again, from any
// goroutine.
func (s *Source) FollowNames() { s.askNames.Do(func() { close(s.namesAsked) }) }

// names waits until somebody wants them, and watches what is watched for them
// alone.
func (s *Source) names(ctx context.Context, feed *model.Feed, known func()) {
	select {
	case <-ctx.Done():
		return
	case <-s.namesAsked:
	}
	headless := s.hosts(feed, "EndpointSlice of headless Services", corev1.IsHeadlessService, sync.OnceFunc(known))
	others := s.hosts(feed, "EndpointSlice not of the controller", hostsOfOthers, sync.OnceFunc(known))
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { headless(ctx) })
	running.Go(func() { others(ctx) })
}

// hosts watches some of the EndpointSlices that may be of headless Services.
func (s *Source) hosts(feed *model.Feed, kind, label string, known func()) func(context.Context) {
	var all model.Map[model.SliceKey, *model.Hosts] // of this watch
	return watch(&reflection[model.SliceKey, *model.Hosts]{
		client: s.client.hosts, list: s.client.hosts.list, resource: "endpointslices", object: &arrival[model.SliceKey, *model.Hosts]{}, label: label,
		store: &store[model.SliceKey, *model.Hosts]{
			convert: convertFrom(convertHosts),
			key:     func(hosts *model.Hosts) model.SliceKey { return hosts.SliceKey },
			equal:   (*model.Hosts).Equal,
			edit: func(edit func(model.Map[model.SliceKey, *model.Hosts]) model.Map[model.SliceKey, *model.Hosts]) {
				next := edit(all)
				feed.Edit(func(snapshot *model.Snapshot) { snapshot.Hosts = merged(snapshot.Hosts, all, next) })
				all = next
			},
			synced: known, problems: s.problems, kind: kind,
		},
		turns: s.turns(feed),
	})
}

// merged makes a map that has the entries of several have those of one of them as
// they have become.
func merged[K, V comparable](into, old, new model.Map[K, V]) model.Map[K, V] {
	if into.Len() == 0 {
		return new
	}
	for change := range model.Diff(old, new) {
		if change.Has {
			into = into.With(change.Key, change.New)
		} else if current, _ := into.Get(change.Key); current == change.Old {
			into = into.Without(change.Key)
		}
	}
	return into
}

// services watches all Services, served or not.
func (s *Source) services(feed *model.Feed, known func()) func(context.Context) {
	var all model.Map[model.ServiceKey, named]
	return watch(&reflection[model.ServiceKey, named]{
		client: s.client.services, list: s.client.services.list, resource: "services", object: &arrival[model.ServiceKey, named]{},
		store: &store[model.ServiceKey, named]{
			convert: convertFrom(convertNamed), key: named.key, equal: named.equal,
			edit: func(edit func(model.Map[model.ServiceKey, named]) model.Map[model.ServiceKey, named]) {
				next := edit(all)
				feed.Edit(func(snapshot *model.Snapshot) { apart(snapshot, all, next) })
				all = next
			},
			synced: known, problems: s.problems, kind: "Service",
		},
		turns: s.turns(feed),
	})
}

// apart tells Services that are served and mere names apart.
func apart(snapshot *model.Snapshot, old, new model.Map[model.ServiceKey, named]) {
	if old.Len() == 0 {
		snapshot.Services = model.Collect(func(yield func(model.ServiceKey, *model.Service) bool) {
			for key, value := range new.All() {
				if value.service != nil && !yield(key, value.service) {
					return
				}
			}
		})
		snapshot.Names = model.Collect(func(yield func(model.ServiceKey, *model.Name) bool) {
			for key, value := range new.All() {
				if value.name != nil && !yield(key, value.name) {
					return
				}
			}
		})
		return
	}
	for change := range model.Diff(old, new) {
		if service := change.New.service; service != nil {
			snapshot.Services = snapshot.Services.With(change.Key, service)
		} else if change.Old.service != nil {
			snapshot.Services = snapshot.Services.Without(change.Key)
		}
		if name := change.New.name; name != nil {
			snapshot.Names = snapshot.Names.With(change.Key, name)
		} else if change.Old.name != nil {
			snapshot.Names = snapshot.Names.Without(change.Key)
		}
	}
}
