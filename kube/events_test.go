package kube

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

const eventsPath = "/api/v1/namespaces/default/events"

// An Event names its object, for kubectl describe, and the same trouble is the
// same Event.
func TestWriteEvent(t *testing.T) {
	s := newStub(t)
	client := s.client(Options{})
	event := Event{
		Problem: model.Problem{Kind: "Node", Name: "Node.a", Reason: "NoAddressLeft", Message: "none is left", Remedy: "make room"},
		UID:     "uid-of-a",
	}
	if err := client.WriteEvent(t.Context(), event); err != nil {
		t.Fatal(err)
	}
	other := event
	other.Reason = "Other"
	if err := client.WriteEvent(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	event.Message = "none is left still"
	if err := client.WriteEvent(t.Context(), event); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	if written := s.list(eventsPath); len(written) != 2 {
		t.Errorf("there are %v", written)
	}
	for path, object := range s.objects {
		text := fmt.Sprint(object)
		for _, want := range []string{"kind:Node", "name:Node.a", "uid:uid-of-a", "type:Warning", "; make room"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s lacks %s: %s", path, want, text)
			}
		}
		if name := path[len(eventsPath)+1:]; !strings.HasPrefix(name, "node.a.") {
			t.Errorf("the name is %s", name)
		}
	}
	s.missing[eventsPath] = true
	s.mu.Unlock()
	if err := client.WriteEvent(t.Context(), event); err == nil || !strings.Contains(err.Error(), "writing an Event of Node/Node.a") {
		t.Errorf("got %v", err)
	}
}

// TestWriteEventAboutObject: kubectl describe finds the Events of an object by its UID.
func TestWriteEventAboutObject(t *testing.T) {
	s := newStub(t)
	client := s.client(Options{})
	about := func(kind, namespace, name string) error {
		return client.WriteEvent(t.Context(), Event{Problem: model.Problem{Kind: kind, Namespace: namespace, Name: name, Reason: "Wrong", Message: "x"}})
	}
	s.put("/api/v1/namespaces/shop/services", `{"metadata": {"namespace": "shop", "name": "web", "uid": "uid-of-web"}}`)
	s.put(networksPath, `{"metadata": {"name": "default", "uid": "uid-of-default"}}`)
	s.put(clusterPoliciesPath, `{"metadata": {"name": "p", "uid": "uid-of-p"}}`)
	for _, err := range []error{about("Service", "shop", "web"), about("Network", "", "default"), about("ClusterNetworkPolicy", "", "p")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := about("Pod", "shop", "gone"); !IsNotFound(err) || !strings.Contains(err.Error(), "Pod/shop/gone") {
		t.Errorf("of a pod that is gone: %v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	text := fmt.Sprint(s.list("/api/v1/namespaces/shop/events"), s.list(eventsPath))
	for _, want := range []string{
		"involvedObject:map[apiVersion:v1 kind:Service name:web namespace:shop uid:uid-of-web]",
		"involvedObject:map[apiVersion:fairlead.io/v1alpha1 kind:Network name:default uid:uid-of-default]",
		"involvedObject:map[apiVersion:policy.networking.k8s.io/v1alpha2 kind:ClusterNetworkPolicy name:p uid:uid-of-p]",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
}
