package kube

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	apps "k8s.io/client-go/kubernetes/typed/apps/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-net/fairlead/model"
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

// dnsName is that of the DaemonSet in deploy/dns.yaml, and dnsLabel selects its pods.
const (
	dnsName  = "fairlead-dns"
	dnsLabel = "app.kubernetes.io/name=" + dnsName
)

// HasDNSServers tells whether there is the DaemonSet of DNS servers.
func (c *Client) HasDNSServers(ctx context.Context) (bool, error) {
	client, err := apps.NewForConfig(c.config)
	if err != nil {
		return false, err
	}
	_, err = client.DaemonSets(SystemNamespace).Get(ctx, dnsName, metav1.GetOptions{})
	if IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read DaemonSet %s/%s: %w", SystemNamespace, dnsName, err)
	}
	return true, nil
}

// AwaitDNSEnd returns when the DNS servers' pods are gone, as ParkAgents does.
func (c *Client) AwaitDNSEnd(ctx context.Context) error { return c.awaitEnd(ctx, dnsLabel) }

// AnsweredByOthers tells whether a Service has an endpoint that is ready and no DNS
// server of ours, which are named for a while after they have ended. Pods that were cut
// off are so, too, until their kubelets have noticed: cutOff tells those.
func (c *Client) AnsweredByOthers(ctx context.Context, of model.ServiceKey, cutOff func(address string) bool) (bool, error) {
	all, err := c.discovery.EndpointSlices(of.Namespace).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + of.Name})
	if err != nil {
		return false, fmt.Errorf("list the endpoints of Service %s: %w", of, err)
	}
	for i := range all.Items {
		for _, endpoint := range all.Items[i].Endpoints {
			ready := endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready
			ours := endpoint.TargetRef != nil && endpoint.TargetRef.Kind == "Pod" && strings.HasPrefix(endpoint.TargetRef.Name, dnsName+"-")
			if ready && !ours && !slices.ContainsFunc(endpoint.Addresses, cutOff) {
				return true, nil
			}
		}
	}
	return false, nil
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
