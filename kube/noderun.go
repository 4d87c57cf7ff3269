package kube

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	apps "k8s.io/client-go/kubernetes/typed/apps/v1"
)

// agentName is that of the DaemonSet in the manifest.
const agentName = "fairlead-agent"

// AgentSet is the DaemonSet of the agents: how they are run in this cluster.
type AgentSet struct{ set *appsv1.DaemonSet }

// Agents returns the DaemonSet of the agents. See IsNotFound.
func (c *Client) Agents(ctx context.Context) (*AgentSet, error) {
	client, err := apps.NewForConfig(c.config)
	if err != nil {
		return nil, err
	}
	set, err := client.DaemonSets(SystemNamespace).Get(ctx, agentName, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read DaemonSet %s/%s: %w", SystemNamespace, agentName, err)
	}
	return &AgentSet{set}, nil
}

// awaitPod returns after an event of pods that will do.
func (c *Client) awaitPod(ctx context.Context, options metav1.ListOptions, will func(apiwatch.Event) bool) error {
	for {
		events, err := c.core.Pods(SystemNamespace).Watch(ctx, options)
		if err != nil {
			return err
		}
		for event := range events.ResultChan() {
			if event.Type == apiwatch.Error {
				break // list anew
			}
			if will(event) {
				events.Stop()
				return nil
			}
		}
		events.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		options.ResourceVersion = ""
	}
}

// NodeRun is what became of a program on a node.
type NodeRun struct {
	Code   int
	Output string // of both kinds, without surrounding space
}

// hostRoot is where RunOnNode shows the node's files to the program.
const hostRoot = "/host"

// RunOnNode runs this image's program once on a node, as an agent would run there,
// in a pod that is gone afterwards. It needs no pod network. The directories of
// the agent are given as its flags, below those of the whole node.
func (c *Client) RunOnNode(ctx context.Context, agents *AgentSet, node, purpose string, args ...string) (NodeRun, error) {
	pod := agents.podFor(node, purpose, args)
	pods := c.core.Pods(SystemNamespace)
	pod, err := pods.Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		return NodeRun{}, fmt.Errorf("make a pod on node %s: %w", node, err)
	}
	name, none := pod.Name, int64(0)
	defer func() {
		_ = pods.Delete(context.WithoutCancel(ctx), name, metav1.DeleteOptions{GracePeriodSeconds: &none})
	}()
	last := pod
	err = c.awaitPod(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name}, func(event apiwatch.Event) bool {
		if seen, ok := event.Object.(*corev1.Pod); ok {
			last = seen
		}
		return event.Type == apiwatch.Deleted || last.Status.Phase == corev1.PodSucceeded || last.Status.Phase == corev1.PodFailed
	})
	if err != nil {
		why := string(last.Status.Phase)
		if state := agentPod(last).State; state != "" {
			why = state
		}
		return NodeRun{}, fmt.Errorf("run on node %s: the pod is %s: %w", node, why, err)
	}
	statuses := last.Status.ContainerStatuses
	if len(statuses) == 0 || statuses[0].State.Terminated == nil {
		return NodeRun{}, fmt.Errorf("run on node %s: %w", node, errors.New(strings.TrimSpace(last.Status.Reason+" "+last.Status.Message)))
	}
	output, err := pods.GetLogs(name, &corev1.PodLogOptions{}).DoRaw(ctx)
	if err != nil {
		return NodeRun{}, fmt.Errorf("read what was written on node %s: %w", node, err)
	}
	return NodeRun{Code: int(statuses[0].State.Terminated.ExitCode), Output: strings.TrimSpace(string(output))}, nil
}

// podFor is an agent's pod with another purpose.
func (a *AgentSet) podFor(node, purpose string, args []string) *corev1.Pod {
	from := a.set.Spec.Template.Spec.DeepCopy()
	container := from.Containers[0]
	directories := map[string]string{"run": "run-dir", "state": "state-dir", "cni-bin": "cni-bin-dir", "cni-conf": "cni-conf-dir"}
	for _, volume := range from.Volumes {
		if flag, ok := directories[volume.Name]; ok && volume.HostPath != nil {
			args = append(args, "--"+flag+"="+path.Join(hostRoot, volume.HostPath.Path))
		}
	}
	// No grace for what has its own end.
	no, none := false, int64(0)
	directory := corev1.HostPathDirectory
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: "fairlead-" + purpose + "-", Namespace: SystemNamespace,
			Labels: map[string]string{"app.kubernetes.io/name": "fairlead-" + purpose, "app.kubernetes.io/part-of": "fairlead"},
		},
		Spec: corev1.PodSpec{
			NodeName: node, HostNetwork: true, DNSPolicy: corev1.DNSDefault, RestartPolicy: corev1.RestartPolicyNever,
			ImagePullSecrets: from.ImagePullSecrets, PriorityClassName: from.PriorityClassName,
			Tolerations:                   []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			AutomountServiceAccountToken:  &no,
			TerminationGracePeriodSeconds: &none,
			Containers: []corev1.Container{{
				Name: purpose, Image: container.Image, ImagePullPolicy: container.ImagePullPolicy, Args: args,
				Env:             []corev1.EnvVar{{Name: "NODE_NAME", Value: node}},
				SecurityContext: container.SecurityContext,
				VolumeMounts:    []corev1.VolumeMount{{Name: "host", MountPath: hostRoot}},
			}},
			Volumes: []corev1.Volume{{Name: "host", VolumeSource: corev1.VolumeSource{
				HostPath: &corev1.HostPathVolumeSource{Path: "/", Type: &directory},
			}}},
		},
	}
}

// AgentsOf returns the DaemonSet of the agents that a manifest would make, with
// another image if one is given.
func AgentsOf(manifest []byte, image string) (*AgentSet, error) {
	objects, err := readManifest(manifest)
	if err != nil {
		return nil, err
	}
	for _, object := range objects {
		if object.GetKind() != "DaemonSet" || object.GetName() != agentName {
			continue
		}
		set := &appsv1.DaemonSet{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, set); err != nil {
			return nil, fmt.Errorf("read DaemonSet %s: %w", agentName, err)
		}
		if image != "" {
			set.Spec.Template.Spec.Containers[0].Image = image
		}
		return &AgentSet{set}, nil
	}
	return nil, fmt.Errorf("the manifest has no DaemonSet %s", agentName)
}
