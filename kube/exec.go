package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream"
)

// ExitError says that a command in a pod ran and failed.
type ExitError struct {
	Code   int
	Stderr string // what it wrote there, without surrounding space
}

func (e *ExitError) Error() string {
	if e.Stderr != "" {
		return e.Stderr
	}
	return fmt.Sprintf("exit code %d", e.Code)
}

// ExecAgent runs a command in the container of an agent's pod, as kubectl exec
// does: through the API server and the kubelet, so that it works while the pod
// network does not. Input may be nil. What the command writes is returned also
// if it fails, which is an ExitError.
func (c *Client) ExecAgent(ctx context.Context, pod string, input io.Reader, command ...string) ([]byte, error) {
	var output bytes.Buffer
	err := c.ExecAgentTo(ctx, &output, pod, input, command...)
	return output.Bytes(), err
}

// ExecAgentTo is ExecAgent for a command whose output is needed as it comes. A
// command that writes nothing may go on when the context has ended.
func (c *Client) ExecAgentTo(ctx context.Context, output io.Writer, pod string, input io.Reader, command ...string) error {
	return c.execTo(ctx, output, pod, "agent", input, command...)
}

// ExecGateway is ExecAgent in the pod of a gateway.
func (c *Client) ExecGateway(ctx context.Context, pod string, command ...string) ([]byte, error) {
	var output bytes.Buffer
	err := c.execTo(ctx, &output, pod, "gateway", nil, command...)
	return output.Bytes(), err
}

func (c *Client) execTo(ctx context.Context, output io.Writer, pod, container string, input io.Reader, command ...string) error {
	request := c.core.RESTClient().Post().Resource("pods").Namespace(SystemNamespace).Name(pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{
			Container: container, Command: command,
			Stdin: input != nil, Stdout: true, Stderr: true,
		}, scheme.ParameterCodec)
	var refused *apierrors.StatusError
	executor, err := c.executor(request.URL(), &refused)
	if err != nil {
		return fmt.Errorf("prepare a command in pod %s: %w", pod, err)
	}
	var stderr bytes.Buffer
	ctx = klog.NewContext(ctx, klog.Logger{}) // it would log that who has ended it does not read on
	err = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: input, Stdout: output, Stderr: &stderr})
	var exit exec.CodeExitError
	switch {
	case errors.As(err, &exit):
		return &ExitError{Code: exit.Code, Stderr: strings.TrimSpace(stderr.String())}
	case err != nil:
		return fmt.Errorf("run %s in pod %s: %w", command[0], pod, forbidden(err, refused))
	}
	return nil
}

// forbidden is the error of SPDY, in its words, as what it means if the API server has
// refused WebSocket before: of SPDY, client-go returns the words alone.
func forbidden(err error, refused *apierrors.StatusError) error {
	if refused == nil || !strings.Contains(strings.ToLower(err.Error()), "forbidden") {
		return err
	}
	status := refused.Status()
	status.Message = strings.TrimPrefix(err.Error(), "unable to upgrade connection: ")
	return &apierrors.StatusError{ErrStatus: status}
}

// executor speaks WebSocket, and SPDY to API servers before Kubernetes 1.31. If they
// forbid the former they are asked again, since it took the right to get pods/exec
// (before Kubernetes 1.35) and the latter takes that to create it; what they said is
// stored.
func (c *Client) executor(target *url.URL, refused **apierrors.StatusError) (remotecommand.Executor, error) {
	config := rest.CopyConfig(c.config)
	modern, err := remotecommand.NewWebSocketExecutor(config, "GET", target.String())
	if err != nil {
		return nil, err
	}
	old, err := remotecommand.NewSPDYExecutor(config, "POST", target)
	if err != nil {
		return nil, err
	}
	return remotecommand.NewFallbackExecutor(modern, old, func(err error) bool {
		if failure := (*httpstream.UpgradeFailureError)(nil); errors.As(err, &failure) && IsForbidden(failure.Cause) {
			errors.As(failure.Cause, refused)
		}
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
}

// AgentLogs returns the last lines that an agent's container logged, of the
// process that runs or of the one before.
func (c *Client) AgentLogs(ctx context.Context, pod string, previous bool, lines int64) ([]byte, error) {
	logs, err := c.core.Pods(SystemNamespace).GetLogs(pod, &corev1.PodLogOptions{
		Container: "agent", Previous: previous, TailLines: &lines,
	}).DoRaw(ctx)
	if err != nil {
		return nil, fmt.Errorf("logs of pod %s: %w", pod, err)
	}
	return logs, nil
}

// PodPlace is where a pod runs, and how it is reached.
type PodPlace struct {
	Node        string
	Addresses   []string // may be empty: it has none yet
	HostNetwork bool
	Phase       string
	Resolver    PodResolver
}

// PodResolver is what a pod's specification says of its resolver: dnsPolicy and
// dnsConfig.
type PodResolver struct {
	Policy      string // of a pod of the host's network, as it takes effect
	Nameservers []string
	Search      []string
	NDots       int // -1: not said, or no number
}

func resolverOf(spec *corev1.PodSpec) PodResolver {
	r := PodResolver{Policy: string(spec.DNSPolicy), NDots: -1}
	if spec.HostNetwork && spec.DNSPolicy == corev1.DNSClusterFirst {
		r.Policy = string(corev1.DNSDefault)
	}
	if spec.DNSConfig == nil {
		return r
	}
	r.Nameservers, r.Search = spec.DNSConfig.Nameservers, spec.DNSConfig.Searches
	for _, option := range spec.DNSConfig.Options {
		if option.Name != "ndots" || option.Value == nil {
			continue
		}
		if n, err := strconv.Atoi(*option.Value); err == nil && n >= 0 {
			r.NDots = n
		}
	}
	return r
}

// FindPod says where a pod is.
func (c *Client) FindPod(ctx context.Context, namespace, name string) (PodPlace, error) {
	pod, err := c.core.Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return PodPlace{}, fmt.Errorf("find pod %s/%s: %w", namespace, name, err)
	}
	place := PodPlace{
		Node: pod.Spec.NodeName, HostNetwork: pod.Spec.HostNetwork, Phase: string(pod.Status.Phase),
		Resolver: resolverOf(&pod.Spec),
	}
	for _, ip := range pod.Status.PodIPs {
		place.Addresses = append(place.Addresses, ip.IP)
	}
	return place, nil
}
