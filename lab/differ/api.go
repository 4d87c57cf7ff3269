package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// api is an API server as far as kube-proxy asks: it lists and watches, by labels
// and names, and tells events in order. It validates nothing.
type api struct {
	http *http.Server

	mu       sync.Mutex
	revision int
	kinds    map[string]*kind // by path
	changed  chan struct{}    // closed and replaced at each event
}

// kind is all objects of a resource.
type kind struct {
	resource
	objects map[string]metav1.Object
	events  []event // by revision
}

// event is that an object changed. It is gone if new is nil, and came if old is.
type event struct {
	revision int
	old, new metav1.Object
}

const (
	nodesPath    = "/api/v1/nodes"
	servicesPath = "/api/v1/services"
	slicesPath   = "/apis/discovery.k8s.io/v1/endpointslices"
	cidrsPath    = "/apis/networking.k8s.io/v1/servicecidrs"
)

// newAPI serves on the loopback interface of a namespace.
func newAPI(in *space) (a *api, url string, err error) {
	a = &api{changed: make(chan struct{}), kinds: map[string]*kind{}}
	for _, r := range resources() {
		a.kinds[r.path] = &kind{resource: r, objects: map[string]metav1.Object{}}
	}
	var listener net.Listener
	err = in.do(func() error {
		listener, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	})
	if err != nil {
		return nil, "", fmt.Errorf("serve the API: %w", err)
	}
	a.http = &http.Server{Handler: http.HandlerFunc(a.serve)}
	go func() { _ = a.http.Serve(listener) }()
	return a, "http://" + listener.Addr().String(), nil
}

func (a *api) close() { _ = a.http.Close() }

// resource is where objects of a kind are, and what they are called.
type resource struct{ path, kind, version string }

func resources() []resource {
	return []resource{
		{nodesPath, "Node", "v1"}, {servicesPath, "Service", "v1"},
		{slicesPath, "EndpointSlice", "discovery.k8s.io/v1"}, {cidrsPath, "ServiceCIDR", "networking.k8s.io/v1"},
	}
}

func resourceOf(object metav1.Object) resource {
	switch object.(type) {
	case *corev1.Node:
		return resources()[0]
	case *corev1.Service:
		return resources()[1]
	case *discoveryv1.EndpointSlice:
		return resources()[2]
	case *networkingv1.ServiceCIDR:
		return resources()[3]
	}
	return resource{}
}

func pathOf(object metav1.Object) string { return resourceOf(object).path }

// put creates or replaces an object, which nobody changes from now on, and tells
// the watches.
func (a *api) put(object metav1.Object) {
	a.mu.Lock()
	defer a.mu.Unlock()
	k, key := a.kinds[pathOf(object)], keyOf(object)
	a.revision++
	object.SetResourceVersion(strconv.Itoa(a.revision))
	a.tell(k, event{a.revision, k.objects[key], object})
	k.objects[key] = object
}

// remove deletes an object and tells the watches.
func (a *api) remove(object metav1.Object) {
	a.mu.Lock()
	defer a.mu.Unlock()
	k, key := a.kinds[pathOf(object)], keyOf(object)
	a.revision++
	a.tell(k, event{a.revision, k.objects[key], nil})
	delete(k.objects, key)
}

func (a *api) tell(k *kind, e event) {
	k.events = append(k.events, e)
	close(a.changed)
	a.changed = make(chan struct{})
}

func keyOf(object metav1.Object) string { return object.GetNamespace() + "/" + object.GetName() }

// selection is what a client wants of a resource.
type selection struct {
	labels labels.Selector
	name   string // empty: all
}

func (s selection) has(object metav1.Object) bool {
	return object != nil && s.labels.Matches(labels.Set(object.GetLabels())) && (s.name == "" || s.name == object.GetName())
}

func (a *api) serve(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	path, name := r.URL.Path, ""
	if rest, ok := strings.CutPrefix(path, nodesPath+"/"); ok {
		path, name = nodesPath, rest
	}
	k := a.kinds[path]
	selector, err := labels.Parse(query.Get("labelSelector"))
	if k == nil || r.Method != http.MethodGet || err != nil {
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound)
		return
	}
	chosen := selection{labels: selector}
	if field, ok := strings.CutPrefix(query.Get("fieldSelector"), "metadata.name="); ok {
		chosen.name = field
	}
	w.Header().Set("Content-Type", "application/json")
	switch {
	case name != "":
		a.get(w, k, name)
	case query.Get("watch") != "":
		a.watch(w, r, k, chosen)
	default:
		a.list(w, k, chosen)
	}
}

func (a *api) get(w http.ResponseWriter, k *kind, name string) {
	a.mu.Lock()
	found := k.objects["/"+name]
	a.mu.Unlock()
	if found == nil {
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound)
		return
	}
	_ = json.NewEncoder(w).Encode(typed(found))
}

// typed is an object with its kind, without which it cannot be told.
func typed(object metav1.Object) map[string]any {
	content, err := json.Marshal(object)
	fields := map[string]any{}
	if err == nil {
		err = json.Unmarshal(content, &fields)
	}
	if err != nil {
		panic(err) // Kubernetes' own types can be written
	}
	of := resourceOf(object)
	fields["kind"], fields["apiVersion"] = of.kind, of.version
	return fields
}

func (a *api) list(w http.ResponseWriter, k *kind, chosen selection) {
	a.mu.Lock()
	items := []any{}
	for _, object := range k.objects {
		if chosen.has(object) {
			items = append(items, typed(object))
		}
	}
	revision := strconv.Itoa(a.revision)
	a.mu.Unlock()
	_ = json.NewEncoder(w).Encode(map[string]any{
		"kind": k.kind + "List", "apiVersion": k.version, "items": items, "metadata": map[string]any{"resourceVersion": revision},
	})
}

// watch sends what comes, and what is there before it if that is asked for.
func (a *api) watch(w http.ResponseWriter, r *http.Request, k *kind, chosen selection) {
	query, encoder := r.URL.Query(), json.NewEncoder(w)
	send := func(kind string, object any) { _ = encoder.Encode(map[string]any{"type": kind, "object": object}) }
	from, _ := strconv.Atoi(query.Get("resourceVersion"))
	if query.Get("sendInitialEvents") == "true" {
		a.mu.Lock()
		var initial []any
		for _, object := range k.objects {
			if chosen.has(object) {
				initial = append(initial, typed(object))
			}
		}
		from = a.revision
		a.mu.Unlock()
		for _, object := range initial {
			send("ADDED", object)
		}
		send("BOOKMARK", map[string]any{"kind": k.kind, "apiVersion": k.version, "metadata": map[string]any{
			"resourceVersion": strconv.Itoa(from), "annotations": map[string]any{metav1.InitialEventsAnnotationKey: "true"},
		}})
	}
	flush := http.NewResponseController(w).Flush
	for {
		a.mu.Lock()
		changed := a.changed
		first := sort.Search(len(k.events), func(i int) bool { return k.events[i].revision > from })
		events := k.events[first:]
		a.mu.Unlock()
		for _, e := range events {
			from = e.revision
			switch had, has := e.old != nil && chosen.has(e.old), e.new != nil && chosen.has(e.new); {
			case has && had:
				send("MODIFIED", typed(e.new))
			case has:
				send("ADDED", typed(e.new))
			case had:
				send("DELETED", typed(e.old))
			}
		}
		if flush() != nil {
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

func refuse(w http.ResponseWriter, code int, reason metav1.StatusReason) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Code: int32(code), Reason: reason, Message: string(reason),
	})
}
