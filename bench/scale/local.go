package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-net/fairlead/bench/apiserver"
	"github.com/fairlead-net/fairlead/cni"
	"github.com/fairlead-net/fairlead/dataplane/nftables"
)

// Pods of the node that is measured, in clusters with policies: five each of the
// first 40 namespaces.
const (
	localPods      = 200
	busyNamespaces = 40
	adds           = 25 // pods that come and go, with policies and without: an address is not given again for 30 s
)

// localObject is pod n of the node, with the addresses that it was given.
func (c *cluster) localObject(n int) *corev1.Pod {
	pod := c.podObject(c.Pods + n)
	pod.Namespace, pod.Name = namespaceName(n%busyNamespaces), fmt.Sprintf("local-%d", n)
	pod.Labels[appLabel] = appName(n / busyNamespaces)
	pod.Spec.NodeName, pod.Spec.HostNetwork = nodeName(0), false
	pod.Status.PodIP, pod.Status.PodIPs = "", c.addresses[pod.Name]
	if len(pod.Status.PodIPs) > 0 {
		pod.Status.PodIP = pod.Status.PodIPs[0].IP
	}
	return pod
}

// connect connects pods to the node, as a container runtime does, and then starts
// the agent once more, in a kernel that knows the pods and no policy.
func (c *cluster) connect(ctx context.Context) error {
	if c.Policies == 0 {
		return nil
	}
	for n := range localPods {
		if err := c.server.Put(apiserver.Pods, c.localObject(n)); err != nil {
			return err
		}
	}
	time.Sleep(alone)
	for n := range localPods {
		pod := c.localObject(n)
		if _, err := c.add(pod); err != nil {
			return err
		}
		// As the kubelet does.
		if err := c.server.Put(apiserver.Pods, c.localObject(n)); err != nil {
			return err
		}
	}
	c.agent.stop()
	if err := nftables.New().Remove(); err != nil {
		return err
	}
	return c.again(ctx, &c.result.Connected)
}

// comeAndGo measures ADD of pods that policies restrict, and of such as no policy
// chooses.
func (c *cluster) comeAndGo(context.Context) error {
	if c.Policies == 0 {
		return nil
	}
	for n := range adds {
		for kind, app := range []string{appName(n), "free"} {
			pod := c.localObject(localPods + 2*n + kind)
			pod.Labels[appLabel] = app
			if err := c.server.Put(apiserver.Pods, pod); err != nil {
				return err
			}
			time.Sleep(alone)
			took, err := c.add(pod)
			if err != nil {
				return err
			}
			c.result.Adds[kind] = append(c.result.Adds[kind], took)
			if _, err := c.ask("DEL", pod, nil); err != nil {
				return err
			}
			if err := c.server.Remove(apiserver.Pods, pod); err != nil {
				return err
			}
			time.Sleep(alone)
		}
	}
	return nil
}

// add connects a pod in a namespace of its own, and returns how long the agent
// took.
func (c *cluster) add(pod *corev1.Pod) (took time.Duration, err error) {
	netns, err := newNetns()
	if err != nil {
		return 0, err
	}
	c.namespaces = append(c.namespaces, netns) // they are there as long as they are open
	began := time.Now()
	reply, err := c.ask("ADD", pod, netns)
	took = time.Since(began)
	if err != nil {
		return 0, err
	}
	for _, ip := range reply.Result.IPs {
		c.addresses[pod.Name] = append(c.addresses[pod.Name], corev1.PodIP{IP: ip.Address.IP.String()})
	}
	return took, nil
}

// ask is what the plugin does.
func (c *cluster) ask(command string, pod *corev1.Pod, netns *os.File) (*cni.Reply, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: filepath.Join(c.dir, "run", "cni.sock"), Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	err = cni.WriteRequest(conn, &cni.Request{
		Version: cni.Version, Command: command, ContainerID: pod.Name, Interface: "eth0", Netns: "/run/netns/" + pod.Name, Timeout: time.Minute,
		Args:   "IgnoreUnknown=1;K8S_POD_NAMESPACE=" + pod.Namespace + ";K8S_POD_NAME=" + pod.Name + ";K8S_POD_UID=" + string(pod.UID),
		Config: json.RawMessage(`{"cniVersion": "1.1.0", "name": "fairlead", "type": "fairlead-cni"}`),
	}, netns)
	if err != nil {
		return nil, err
	}
	reply, err := cni.ReadReply(conn)
	if err == nil && reply.Error != nil {
		err = reply.Error
	}
	if err != nil {
		return nil, fmt.Errorf("%s of %s: %w", command, pod.Name, err)
	}
	return reply, nil
}

// newNetns makes a network namespace.
func newNetns() (netns *os.File, err error) {
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			netns, err = os.Open("/proc/thread-self/ns/net")
		}
		made <- err
	}()
	if err := <-made; err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	return netns, nil
}
