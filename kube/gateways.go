package kube

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apps "k8s.io/client-go/kubernetes/typed/apps/v1"
)

// gatewayLabel selects the pods of gateways.
const gatewayLabel = "app.kubernetes.io/name=fairlead-gateway"

// GatewayPod is the pod of a gateway.
type GatewayPod struct {
	Name, Node string
	Phase      string
	Ready      bool
	State      string // why it is not ready, in Kubernetes' words; may be empty
	Leaving    bool   // it is on its way out
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
		state := agentPod(pod)
		all = append(all, GatewayPod{
			Name: pod.Name, Node: pod.Spec.NodeName, Phase: string(pod.Status.Phase),
			Ready: state.Ready, State: state.State, Leaving: pod.DeletionTimestamp != nil,
		})
	}
	slices.SortFunc(all, func(a, b GatewayPod) int { return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Name, b.Name)) })
	return all, nil
}

// GatewayNodes is on how many nodes the DaemonSet of gateways is to have one; 0: there
// is none.
func (c *Client) GatewayNodes(ctx context.Context) (int, error) {
	client, err := apps.NewForConfig(c.config)
	if err != nil {
		return 0, err
	}
	set, err := client.DaemonSets(SystemNamespace).Get(ctx, GatewayName, metav1.GetOptions{})
	if IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read DaemonSet %s/%s: %w", SystemNamespace, GatewayName, err)
	}
	return int(set.Status.DesiredNumberScheduled), nil
}
