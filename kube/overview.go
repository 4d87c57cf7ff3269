package kube

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/model"
)

// Overview is what the API server knows of the network at one moment.
type Overview struct {
	Time      time.Time         // of that moment, by the API server
	Installed bool              // the kinds of Fairlead exist
	Network   *v1alpha1.Network // nil if there is none
	Config    *model.Network    // as it is understood; the defaults without one
	Nodes     []NodeOverview    // sorted by name
	Leader    *Leader           // of the controllers; nil if that cannot be told
}

// NodeOverview is one node.
type NodeOverview struct {
	Node   *model.Node
	Ready  bool                  // says its kubelet
	Silent bool                  // its kubelet has said nothing for a while: it is off, or cut off
	Report *v1alpha1.NodeNetwork // of its agent; nil if there is none
	Agent  *AgentPod             // nil if there is none
}

// AgentPod is the state of an agent's pod.
type AgentPod struct {
	Name  string
	Ready bool
	State string // why it is not ready, in Kubernetes' words; may be empty
}

// Where the manifest puts the agents.
const (
	SystemNamespace = metav1.NamespaceSystem
	agentLabel      = "app.kubernetes.io/name=fairlead-agent"
)

// Overview reads the state of the network. It works on any version of the
// cluster, with Fairlead installed or not.
func (c *Client) Overview(ctx context.Context) (*Overview, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	nodes, err := c.core.Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing nodes: %w", err)
	}
	agents, err := c.core.Pods(SystemNamespace).List(ctx, metav1.ListOptions{LabelSelector: agentLabel})
	if err != nil {
		return nil, fmt.Errorf("listing the agents' pods: %w", err)
	}
	overview := &Overview{Installed: true, Time: c.Now()}
	var networks v1alpha1.NetworkList
	var reports v1alpha1.NodeNetworkList
	err = c.fairlead.Get().Resource("networks").Do(ctx).Into(&networks)
	if err == nil {
		err = c.fairlead.Get().Resource("nodenetworks").Do(ctx).Into(&reports)
	}
	switch {
	case IsNotFound(err):
		overview.Installed = false
	case err != nil:
		return nil, fmt.Errorf("listing Fairlead's status: %w", err)
	}
	overview.Config = model.DefaultNetwork()
	if len(networks.Items) > 0 {
		overview.Network = &networks.Items[0]
		overview.Config = convertNetwork(overview.Network).value
	}
	overview.Leader = c.anyLeader(ctx)
	byNode := map[string]*NodeOverview{}
	for i := range nodes.Items {
		node := &nodes.Items[i]
		byNode[node.Name] = &NodeOverview{Node: convertNode(node).value, Ready: nodeReady(node), Silent: nodeSilent(node)}
	}
	for i := range reports.Items {
		if node := byNode[reports.Items[i].Name]; node != nil {
			node.Report = &reports.Items[i]
		}
	}
	for i := range agents.Items {
		pod := &agents.Items[i]
		// While one is replaced, the newer one counts: the older is on its way out.
		if node := byNode[pod.Spec.NodeName]; node != nil && pod.DeletionTimestamp == nil {
			node.Agent = agentPod(pod)
		}
	}
	for _, node := range byNode {
		overview.Nodes = append(overview.Nodes, *node)
	}
	slices.SortFunc(overview.Nodes, func(a, b NodeOverview) int { return cmp.Compare(a.Node.Name, b.Node.Name) })
	return overview, nil
}

func nodeReady(node *corev1.Node) bool {
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// nodeSilent tells whether the control plane has given up waiting for the kubelet of
// a node. One that says that it is not ready is there, and runs pods that need no
// pod network.
func nodeSilent(node *corev1.Node) bool {
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionUnknown
		}
	}
	return true
}

func agentPod(pod *corev1.Pod) *AgentPod {
	agent := &AgentPod{Name: pod.Name, State: cmp.Or(pod.Status.Reason, string(pod.Status.Phase))}
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			agent.Ready = condition.Status == corev1.ConditionTrue
		}
	}
	for _, container := range pod.Status.ContainerStatuses {
		if waiting := container.State.Waiting; waiting != nil {
			agent.State = waiting.Reason
			if waiting.Message != "" {
				agent.State += ": " + waiting.Message
			}
		}
	}
	return agent
}
