package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/model"
)

// Event is a problem of which kubectl describe should tell, and kubectl events.
type Event struct {
	model.Problem
	UID        string // of the object; may be empty if its kind is Referable
	APIVersion string // of the object; v1 if empty
	Normal     bool   // it tells of something good, and is no warning
	Again      string // tells it from one of before that is otherwise the same; may be empty
}

// references are the kinds whose UIDs are read when an Event needs them. kubectl
// describe finds the Events of an object by its UID alone.
var references = map[string]struct{ apiVersion, resource string }{
	"ClusterNetworkPolicy": {"policy.networking.k8s.io/v1alpha2", "clusternetworkpolicies"},
	"EndpointSlice":        {"discovery.k8s.io/v1", "endpointslices"},
	"Network":              {v1alpha1.GroupVersion().String(), "networks"},
	"NetworkPolicy":        {"networking.k8s.io/v1", "networkpolicies"},
	"Pod":                  {"v1", "pods"},
	"Service":              {"v1", "services"},
}

// Referable tells whether there are objects of a kind that an Event can be about, given
// by their names.
func Referable(kind string) bool {
	_, ok := references[kind]
	return ok
}

// refer fills in which object an Event is about.
func (c *Client) refer(ctx context.Context, e *Event) error {
	reference, ok := references[e.Kind]
	if !ok || e.UID != "" {
		return nil
	}
	path := []string{"/apis", reference.apiVersion}
	if !strings.Contains(reference.apiVersion, "/") {
		path[0] = "/api"
	}
	if e.Namespace != "" {
		path = append(path, "namespaces", e.Namespace)
	}
	text, err := c.core.RESTClient().Get().AbsPath(append(path, reference.resource, e.Name)...).
		SetHeader("Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json").Do(ctx).Raw()
	if err != nil {
		return fmt.Errorf("reading %s: %w", e.Object(), err)
	}
	object := metav1.PartialObjectMetadata{}
	if err := json.Unmarshal(text, &object); err != nil {
		return fmt.Errorf("reading %s: %w", e.Object(), err)
	}
	e.APIVersion, e.UID = reference.apiVersion, string(object.UID)
	return nil
}

// WriteEvent makes an Event, which is a warning unless it is normal. One like it that the
// API server still has, an hour by default, is enough. Its error may be, by IsNotFound,
// that the object is gone.
func (c *Client) WriteEvent(ctx context.Context, e Event) error {
	if err := c.refer(ctx, &e); err != nil {
		return err
	}
	namespace := e.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	same := fnv.New64a()
	fmt.Fprint(same, e.Object(), e.UID, e.Reason)
	if e.Field+e.Again != "" {
		fmt.Fprint(same, " ", e.Field, " ", e.Again)
	}
	now := metav1.NewTime(time.Now())
	message := e.Message
	if e.Remedy != "" {
		message += "; " + e.Remedy
	}
	kind := corev1.EventTypeWarning
	if e.Normal {
		kind = corev1.EventTypeNormal
	}
	_, err := c.core.Events(namespace).Create(ctx, &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: fmt.Sprintf("%s.%x", strings.ToLower(e.Name), same.Sum64()),
		},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: cmp.Or(e.APIVersion, "v1"), Kind: e.Kind, Namespace: e.Namespace, Name: e.Name, UID: types.UID(e.UID),
		},
		Type: kind, Reason: e.Reason, Message: message,
		Source:         corev1.EventSource{Component: "fairlead"},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("writing an Event of %s: %w", e.Object(), err)
	}
	return nil
}
