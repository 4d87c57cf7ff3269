package kube

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
)

// controllerLabel is that of the controllers' pods.
const controllerLabel = "app.kubernetes.io/name=fairlead-controller"

// ControllerLogs returns the last lines that each controller logged, by the name
// of its pod; one that runs, or the one before.
func (c *Client) ControllerLogs(ctx context.Context, previous bool, lines int64) (map[string][]byte, error) {
	pods, err := c.core.Pods(SystemNamespace).List(ctx, metav1.ListOptions{LabelSelector: controllerLabel})
	if err != nil {
		return nil, fmt.Errorf("listing the controllers' pods: %w", err)
	}
	all := map[string][]byte{}
	var failed error
	for i := range pods.Items {
		name := pods.Items[i].Name
		logs, err := c.core.Pods(SystemNamespace).GetLogs(name, &corev1.PodLogOptions{
			Container: "controller", Previous: previous, TailLines: &lines,
		}).DoRaw(ctx)
		if err != nil {
			failed = fmt.Errorf("logs of pod %s: %w", name, err)
			continue
		}
		all[name] = logs
	}
	return all, failed
}

// Events returns those that Fairlead has written, a line each, oldest first.
func (c *Client) Events(ctx context.Context) ([]string, error) {
	events, err := c.core.Events(metav1.NamespaceAll).List(ctx, metav1.ListOptions{FieldSelector: "source=fairlead"})
	if err != nil {
		return nil, fmt.Errorf("listing Events: %w", err)
	}
	slices.SortFunc(events.Items, func(a, b corev1.Event) int { return a.LastTimestamp.Compare(b.LastTimestamp.Time) })
	var lines []string
	for _, e := range events.Items {
		object := e.InvolvedObject.Kind + "/" + e.InvolvedObject.Name
		if e.InvolvedObject.Namespace != "" {
			object = e.InvolvedObject.Kind + "/" + e.InvolvedObject.Namespace + "/" + e.InvolvedObject.Name
		}
		lines = append(lines, fmt.Sprintf("%s %s %s %s: %s", e.LastTimestamp.UTC().Format(time.RFC3339), e.Type, object, e.Reason, e.Message))
	}
	return lines, nil
}

// ObjectsYAML writes the Network and the NodeNetworks as kubectl does, without
// the books that the API server keeps.
func (o *Overview) ObjectsYAML() (network, nodes []byte, err error) {
	if o.Network != nil {
		object := o.Network.DeepCopy()
		object.ManagedFields, object.Annotations = nil, nil
		if network, err = yaml.Marshal(object); err != nil {
			return nil, nil, fmt.Errorf("writing the Network: %w", err)
		}
	}
	list := v1alpha1.NodeNetworkList{}
	for _, node := range o.Nodes {
		if node.Report != nil {
			object := node.Report.DeepCopy()
			object.ManagedFields, object.Annotations = nil, nil
			list.Items = append(list.Items, *object)
		}
	}
	if nodes, err = yaml.Marshal(list); err != nil {
		return nil, nil, fmt.Errorf("writing the NodeNetworks: %w", err)
	}
	return network, nodes, nil
}

// ServerVersion is that of the API server, such as v1.36.0.
func (c *Client) ServerVersion(ctx context.Context) (string, error) {
	var version struct {
		GitVersion string `json:"gitVersion"`
	}
	text, err := c.core.RESTClient().Get().AbsPath("/version").SetHeader("Accept", "application/json").DoRaw(ctx)
	if err == nil {
		err = yaml.Unmarshal(text, &version)
	}
	if err != nil {
		return "", fmt.Errorf("asking for the version of the API server: %w", err)
	}
	return version.GitVersion, nil
}
