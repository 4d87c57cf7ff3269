package kube

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairlead-net/fairlead/model"
)

// Event is a problem of which kubectl describe should tell, and kubectl events.
type Event struct {
	model.Problem
	UID        string // of the object
	APIVersion string // of the object; v1 if empty
	Normal     bool   // it tells of something good, and is no warning
	Again      string // tells it from one of before that is otherwise the same; may be empty
}

// WriteEvent makes an Event, which is a warning unless it is normal. One like it that the API server still
// has, an hour by default, is enough.
func (c *Client) WriteEvent(ctx context.Context, e Event) error {
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
