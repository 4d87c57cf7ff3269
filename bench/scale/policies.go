package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairlead-net/fairlead/bench/apiserver"
)

// Policies are 20 of each namespace, two for each of its ten apps. Those of the
// first 40 namespaces restrict pods of the node that is measured.
const (
	policiesPerSpace = 20
	apps             = 10
	appLabel         = "app"
)

func appName(n int) string { return fmt.Sprintf("a%d", n%apps) }

// podObject is pod i of the cluster, as policies choose it.
func (c *cluster) podObject(i int) *corev1.Pod {
	pod := podObject(i, c.Nodes)
	if c.Policies > 0 {
		pod.Labels[appLabel] = appName(i)
	}
	return pod
}

// policyObject is NetworkPolicy i: an app may be called by the next one of its
// namespace, by the same one of a team, and from some addresses; it may ask for
// names and call another one.
func policyObject(i int) *networkingv1.NetworkPolicy {
	n := i % policiesPerSpace
	app := func(n int) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{appLabel: appName(n)}}
	}
	space := func(key, value string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
	}
	port := func(protocol corev1.Protocol, port intstr.IntOrString) networkingv1.NetworkPolicyPort {
		return networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: &port}
	}
	return &networkingv1.NetworkPolicy{
		TypeMeta: metav1.TypeMeta{Kind: "NetworkPolicy", APIVersion: "networking.k8s.io/v1"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespaceName(i / policiesPerSpace), Name: fmt.Sprintf("policy-%d", n),
			CreationTimestamp: metav1.NewTime(time.Unix(1_750_000_000, 0)),
			Labels:            map[string]string{"app.kubernetes.io/instance": "production"},
			ManagedFields:     managed("kubectl-client-side-apply"),
		},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: *app(n),
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{
				Ports: []networkingv1.NetworkPolicyPort{port(corev1.ProtocolTCP, intstr.FromInt32(80)), port(corev1.ProtocolTCP, intstr.FromInt(1000+n))},
				From: []networkingv1.NetworkPolicyPeer{
					{PodSelector: app(n + 1)},
					{NamespaceSelector: space("team", fmt.Sprintf("team-%d", n)), PodSelector: app(n)},
				},
			}, {
				Ports: []networkingv1.NetworkPolicyPort{port(corev1.ProtocolTCP, intstr.FromString("http"))},
				From: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{
					CIDR: fmt.Sprintf("172.%d.0.0/16", n), Except: []string{fmt.Sprintf("172.%d.7.0/24", n)},
				}}},
			}},
			Egress: []networkingv1.NetworkPolicyEgressRule{{
				Ports: []networkingv1.NetworkPolicyPort{port(corev1.ProtocolUDP, intstr.FromInt32(53)), port(corev1.ProtocolTCP, intstr.FromInt32(53))},
				To:    []networkingv1.NetworkPolicyPeer{{NamespaceSelector: space(corev1.LabelMetadataName, namespaceName(1)), PodSelector: app(1)}},
			}, {
				To: []networkingv1.NetworkPolicyPeer{{PodSelector: app(n + 2)}},
			}},
		},
	}
}

// labelChanges are how many pods of the node, and how many others, become another
// app.
const labelChanges = 200

// changeLabels measures pods that become another app: until the kernel tells of
// the last transaction that follows.
func (c *cluster) changeLabels(context.Context) error {
	if c.Policies == 0 {
		return nil
	}
	kernel, err := watchFilter()
	if err != nil {
		return err
	}
	defer kernel.close()
	for n := range labelChanges {
		here := c.localObject(n * 7 % localPods)
		space := n % busyNamespaces
		there := c.podObject(space*10 + 1 + n/busyNamespaces) // no pod of node 0
		for kind, pod := range []*corev1.Pod{here, there} {
			was := pod.Labels[appLabel]
			pod.Labels[appLabel] = map[bool]string{true: appName(3), false: appName(4)}[was != appName(3)]
			began := time.Now()
			if err := c.server.Put(apiserver.Pods, pod); err != nil {
				return err
			}
			at, err := kernel.last()
			if err != nil {
				return fmt.Errorf("wait for the label of %s: %w", pod.Name, err)
			}
			c.result.Labels[kind] = append(c.result.Labels[kind], at.Sub(began))
			if err := kernel.rest(); err != nil {
				return err
			}
		}
	}
	return nil
}
