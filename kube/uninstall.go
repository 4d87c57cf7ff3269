package kube

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"
)

// DeleteManifest deletes the objects of a manifest, the last first, and with its
// kinds all objects of them. say is told each. What is gone already is not missed.
// keep tells which stay; it may be nil.
func (c *Client) DeleteManifest(ctx context.Context, manifest []byte, keep func(kind, name string) bool, say func(string)) error {
	objects, err := readManifest(manifest)
	if err != nil {
		return err
	}
	client, err := dynamic.NewForConfig(c.config)
	if err != nil {
		return err
	}
	slices.Reverse(objects)
	// In the foreground: who waits for the objects waits for their pods.
	policy := metav1.DeletePropagationForeground
	var failed []error
	for _, object := range objects {
		if keep != nil && keep(object.GetKind(), object.GetName()) {
			continue
		}
		resource, _ := meta.UnsafeGuessKindToResource(schema.FromAPIVersionAndKind(object.GetAPIVersion(), object.GetKind()))
		err := client.Resource(resource).Namespace(object.GetNamespace()).Delete(ctx, object.GetName(), metav1.DeleteOptions{PropagationPolicy: &policy})
		switch {
		case err == nil:
			say("deleted " + object.GetKind() + " " + object.GetName())
		case !IsNotFound(err):
			failed = append(failed, fmt.Errorf("delete %s %s: %w", object.GetKind(), object.GetName(), err))
		}
	}
	return errors.Join(failed...)
}

func readManifest(manifest []byte) (objects []*unstructured.Unstructured, err error) {
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(manifest)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		object := &unstructured.Unstructured{}
		if err == nil {
			err = yaml.Unmarshal(document, &object.Object)
		}
		if err != nil {
			return nil, fmt.Errorf("read the manifest: %w", err)
		}
		if object.GetKind() != "" {
			objects = append(objects, object)
		}
	}
}
