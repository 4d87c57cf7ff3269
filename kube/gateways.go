package kube

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// gatewayLabel selects the pods of gateways.
const gatewayLabel = "app.kubernetes.io/name=fairlead-gateway"

// GatewayPod is the pod of a gateway.
type GatewayPod struct {
	Name, Node string
	Phase      string
}

// Gateways lists the pods of gateways, by node.
func (c *Client) Gateways(ctx context.Context) ([]GatewayPod, error) {
	pods, err := c.core.Pods(SystemNamespace).List(ctx, metav1.ListOptions{LabelSelector: gatewayLabel})
	if err != nil {
		return nil, fmt.Errorf("list the pods of gateways: %w", err)
	}
	var all []GatewayPod
	for i := range pods.Items {
		pod := &pods.Items[i]
		all = append(all, GatewayPod{Name: pod.Name, Node: pod.Spec.NodeName, Phase: string(pod.Status.Phase)})
	}
	slices.SortFunc(all, func(a, b GatewayPod) int { return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Name, b.Name)) })
	return all, nil
}
