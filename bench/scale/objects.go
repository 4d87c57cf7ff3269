package main

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// perSegment is how many nodes share a link: those of the first are reached
// directly by node 0, which is the one that is measured, the others by tunnel.
const perSegment = 200

func nodeName(i int) string { return fmt.Sprintf("node-%05d.example.internal", i) }

func nodeAddresses(i int) []netip.Prefix {
	segment, host := i/perSegment, 1+i%perSegment
	return []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 128, byte(segment), byte(host)}), 24),
		netip.MustParsePrefix(fmt.Sprintf("fd80:0:0:%x::%x/64", segment, host)),
	}
}

func podRanges(i int) []netip.Prefix {
	return []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(16 + i>>8), byte(i), 0}), 24),
		netip.MustParsePrefix(fmt.Sprintf("fd01:0:0:%x::/64", i)),
	}
}

// nodeObject is as large as those of real clusters: labels of a cloud, the
// images that the kubelet reports, conditions, and who manages which field.
func nodeObject(i int) *corev1.Node {
	node := &corev1.Node{
		TypeMeta: metav1.TypeMeta{Kind: "Node", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{
			Name: nodeName(i), UID: types.UID(fmt.Sprintf("5d1c9a3e-7f64-4c8e-9d0c-%012d", i)),
			CreationTimestamp: metav1.NewTime(time.Unix(1_750_000_000, 0)),
			Labels: map[string]string{
				"kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux", "kubernetes.io/hostname": nodeName(i),
				"node.kubernetes.io/instance-type": "m6i.2xlarge", corev1.LabelTopologyRegion: "eu-central-1",
				corev1.LabelTopologyZone: fmt.Sprintf("eu-central-1%c", 'a'+i%3), "node.example.com/pool": "general",
			},
			Annotations: map[string]string{
				"node.alpha.kubernetes.io/ttl":                           "30",
				"volumes.kubernetes.io/controller-managed-attach-detach": "true",
				"csi.volume.kubernetes.io/nodeid":                        fmt.Sprintf(`{"ebs.csi.example.com":"i-%017d"}`, i),
			},
			ManagedFields: managed("kubelet", "kube-controller-manager"),
		},
		Status: corev1.NodeStatus{
			Capacity: capacity(), Allocatable: capacity(),
			NodeInfo: corev1.NodeSystemInfo{
				MachineID: fmt.Sprintf("%032x", i), SystemUUID: fmt.Sprintf("%032x", i), BootID: fmt.Sprintf("%032x", i),
				KernelVersion: "6.12.0-generic", OSImage: "Debian GNU/Linux 13 (trixie)", ContainerRuntimeVersion: "containerd://2.1.4",
				KubeletVersion: "v1.36.0", OperatingSystem: "linux", Architecture: "amd64",
			},
		},
	}
	for _, prefix := range podRanges(i) {
		node.Spec.PodCIDRs = append(node.Spec.PodCIDRs, prefix.String())
	}
	node.Spec.PodCIDR = node.Spec.PodCIDRs[0]
	for _, prefix := range nodeAddresses(i) {
		node.Status.Addresses = append(node.Status.Addresses,
			corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: prefix.Addr().String()})
	}
	node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: nodeName(i)})
	for _, kind := range []corev1.NodeConditionType{corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure, corev1.NodeReady} {
		node.Status.Conditions = append(node.Status.Conditions, corev1.NodeCondition{
			Type: kind, Status: corev1.ConditionFalse, Reason: "KubeletHasSufficient", Message: "kubelet has sufficient of what it needs",
			LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.NewTime(time.Unix(1_750_000_000, 0)),
		})
	}
	for image := range 40 {
		node.Status.Images = append(node.Status.Images, corev1.ContainerImage{SizeBytes: 123_456_789, Names: []string{
			fmt.Sprintf("registry.example.com/team/service-%d@sha256:%064x", image, image),
			fmt.Sprintf("registry.example.com/team/service-%d:v1.%d.0", image, image),
		}})
	}
	return node
}

func capacity() corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("8"), corev1.ResourceMemory: resource.MustParse("32Gi"),
		corev1.ResourcePods: resource.MustParse("110"), corev1.ResourceEphemeralStorage: resource.MustParse("100Gi"),
	}
}

// podObject is pod i of a cluster of so many nodes, with what deployments and
// the API server put into it. Node 0, which has no real pods, has only those
// that share its network.
func podObject(i, nodes int) *corev1.Pod {
	node := i % nodes
	app := fmt.Sprintf("deployment-%d", i/10)
	pod := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespaceName(i / 10 % namespaces), Name: fmt.Sprintf("%s-5d8f6c7b9-%05d", app, i),
			GenerateName: app + "-5d8f6c7b9-", UID: types.UID(fmt.Sprintf("0b9a3c1e-7f64-4c8e-9d0c-%012d", i)),
			CreationTimestamp: metav1.NewTime(time.Unix(1_750_000_000, 0)),
			Labels: map[string]string{
				"app.kubernetes.io/name": app, "app.kubernetes.io/instance": "production", "app.kubernetes.io/version": "v1.2.3",
				"pod-template-hash": "5d8f6c7b9",
			},
			Annotations:   map[string]string{"prometheus.io/scrape": "true", "checksum/config": strings.Repeat("ab", 32)},
			ManagedFields: managed("kube-controller-manager", "kubelet"),
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "apps/v1", Kind: "ReplicaSet", Name: app + "-5d8f6c7b9", UID: types.UID(fmt.Sprintf("9c9a3c1e-7f64-4c8e-9d0c-%012d", i/10)),
			}},
		},
		Spec: corev1.PodSpec{
			NodeName: nodeName(node), HostNetwork: node == 0, ServiceAccountName: app,
			Containers: []corev1.Container{container(app), container("sidecar")},
			Volumes:    []corev1.Volume{{Name: "kube-api-access-x7k2p"}, {Name: "config"}},
			Tolerations: []corev1.Toleration{
				{Key: "node.kubernetes.io/not-ready", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute},
				{Key: "node.kubernetes.io/unreachable", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute},
			},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
	for _, prefix := range podRanges(node) {
		addr := prefix.Addr()
		if node == 0 {
			addr = nodeAddresses(0)[0].Addr()
		} else {
			for range 2 + i/nodes%250 {
				addr = addr.Next()
			}
		}
		pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: addr.String()})
	}
	pod.Status.PodIP = pod.Status.PodIPs[0].IP
	for _, kind := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		pod.Status.Conditions = append(pod.Status.Conditions,
			corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(time.Unix(1_750_000_000, 0))})
	}
	for _, c := range pod.Spec.Containers {
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: c.Name, Ready: true, Image: c.Image, ImageID: fmt.Sprintf("%s@sha256:%064x", c.Image, i),
			ContainerID: fmt.Sprintf("containerd://%064x", i),
		})
	}
	return pod
}

func container(name string) corev1.Container {
	c := corev1.Container{
		Name: name, Image: "registry.example.com/team/" + name + ":v1.2.3",
		Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi"),
		}},
		VolumeMounts: []corev1.VolumeMount{{Name: "kube-api-access-x7k2p", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true}},
	}
	for _, variable := range []string{"DATABASE_URL", "LOG_LEVEL", "REGION", "CACHE_ADDRESS", "FEATURES"} {
		c.Env = append(c.Env, corev1.EnvVar{Name: variable, Value: "value-of-" + strings.ToLower(variable)})
	}
	return c
}

// managed is the part of an object that says who manages which field. It is a
// third of many objects.
func managed(who ...string) (entries []metav1.ManagedFieldsEntry) {
	now := metav1.Now()
	for _, name := range who {
		entries = append(entries, metav1.ManagedFieldsEntry{
			Manager: name, Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", Time: &now, FieldsType: "FieldsV1",
			FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{` + strings.Repeat(`"f:labels":{"f:app.kubernetes.io/name":{}},`, 20) + `"f:x":{}}}`),
		})
	}
	return entries
}

// serverSlice says where the API server is.
func serverSlice(at netip.AddrPort) *discoveryv1.EndpointSlice {
	name, port := "https", int32(at.Port())
	return &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{Kind: "EndpointSlice", APIVersion: "discovery.k8s.io/v1"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: metav1.NamespaceDefault, Name: "kubernetes", Labels: map[string]string{discoveryv1.LabelServiceName: "kubernetes"},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{at.Addr().String()}}},
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
	}
}

func objectMeta(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name} }

// namespaces are those that the pods are in.
const namespaces = 500

func namespaceName(i int) string { return fmt.Sprintf("namespace-%d", i) }

func namespaceObject(i int) *corev1.Namespace {
	name := namespaceName(i)
	return &corev1.Namespace{
		TypeMeta:   metav1.TypeMeta{Kind: "Namespace", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelMetadataName: name, "team": fmt.Sprintf("team-%d", i%50)}},
	}
}
