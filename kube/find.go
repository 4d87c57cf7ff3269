package kube

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/fairlead-net/fairlead/model"
)

// Namespace is the one that a user means who names none: that of the
// kubeconfig's context, or default.
func (o Options) Namespace() string {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.Kubeconfig
	namespace, _, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).Namespace()
	if err != nil || namespace == "" {
		return metav1.NamespaceDefault
	}
	return namespace
}

// PodNames are the names of the pods of a namespace, sorted.
func (c *Client) PodNames(ctx context.Context, namespace string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	pods, err := c.core.Pods(namespace).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, fmt.Errorf("listing the pods of %s: %w", namespace, err)
	}
	var names []string
	for i := range pods.Items {
		names = append(names, pods.Items[i].Name)
	}
	slices.Sort(names)
	return names, nil
}

// ServiceAt finds the Service that has an address, of the cluster or of a load
// balancer. It is empty if there is none, else NAMESPACE/NAME.
func (c *Client) ServiceAt(ctx context.Context, addr netip.Addr) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	services, err := c.core.Services(metav1.NamespaceAll).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return "", fmt.Errorf("listing the Services: %w", err)
	}
	for i := range services.Items {
		service := &services.Items[i]
		own := slices.Concat(service.Spec.ClusterIPs, service.Spec.ExternalIPs)
		for _, ingress := range service.Status.LoadBalancer.Ingress {
			own = append(own, ingress.IP)
		}
		for _, text := range own {
			if found, err := netip.ParseAddr(text); err == nil && found == addr {
				return service.Namespace + "/" + service.Name, nil
			}
		}
	}
	return "", nil
}

// PodAt finds the pod of a node that has an address and a link of its own. It
// is zero if there is none.
func (c *Client) PodAt(ctx context.Context, node string, addr netip.Addr) (model.PodKey, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	pods, err := c.core.Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{
		FieldSelector: "spec.nodeName=" + node + ",status.phase!=Succeeded,status.phase!=Failed",
	})
	if err != nil {
		return model.PodKey{}, fmt.Errorf("listing the pods of node %s: %w", node, err)
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		for _, ip := range pod.Status.PodIPs {
			if found, err := netip.ParseAddr(ip.IP); err == nil && found == addr && !pod.Spec.HostNetwork {
				return model.PodKey{Namespace: pod.Namespace, Name: pod.Name}, nil
			}
		}
	}
	return model.PodKey{}, nil
}
