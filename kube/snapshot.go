package kube

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/model"
)

// head is what tells documents apart.
type head struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	} `json:"metadata"`
	Items []map[string]any `json:"items"`
}

func (h *head) String() string {
	name := h.Metadata.Name
	if h.Metadata.Namespace != "" {
		name = h.Metadata.Namespace + "/" + name
	}
	return h.Kind + " " + name
}

// judge decides whether a file can be used in which a document of this kind is not
// understood as a whole.
type judge func(kind string, found []model.Problem) (fatal *model.Problem)

// strict is for files that people write. Remarks say that all is understood.
func strict(_ string, found []model.Problem) *model.Problem {
	for i := range found {
		if found[i].Reason != manyBlocksReason {
			return &found[i]
		}
	}
	return nil
}

// lenient takes each object as it is taken from the API server, where what one lacks
// costs no other. A Network that is not understood is never followed.
func lenient(kind string, found []model.Problem) *model.Problem {
	if kind == "Network" {
		return strict(kind, found)
	}
	return nil
}

// RecallSnapshot reads what WriteSnapshot has written, as ReadSnapshot does, but for
// that what is not understood of one object does not cost the others.
func RecallSnapshot(r io.Reader) (*model.Snapshot, error) { return readSnapshot(r, lenient) }

// ReadSnapshot reads documents of YAML or JSON: Nodes, Namespaces, Pods, Services,
// EndpointSlices, ServiceCIDRs, NetworkPolicies, ClusterNetworkPolicies and the
// Network as kubectl get -o yaml prints them, lists included, and NodeState
// documents for the part of one node. Without a Network there are the defaults;
// policies and names that are not there do not exist. Other kinds are errors, as are values
// that cannot be understood; they name the document, counted from 1, the object
// and the field.
func ReadSnapshot(r io.Reader) (*model.Snapshot, error) { return readSnapshot(r, strict) }

func readSnapshot(r io.Reader, judge judge) (*model.Snapshot, error) {
	snapshot := &model.Snapshot{Revision: 1, Network: model.DefaultNetwork(), PoliciesKnown: true, NamesKnown: true}
	documents := utilyaml.NewYAMLReader(bufio.NewReader(r))
	for number := 1; ; number++ {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return snapshot, nil
		}
		if err == nil {
			err = addDocument(snapshot, document, judge)
		}
		if err != nil {
			return nil, fmt.Errorf("reading the snapshot: document %d: %w", number, err)
		}
	}
}

func addDocument(to *model.Snapshot, document []byte, judge judge) error {
	var h head
	if err := decodeDocument(document, &h); err != nil {
		return err
	}
	var found []model.Problem
	var err error
	switch {
	case h.Kind == "" && h.APIVersion == "" && len(h.Items) == 0:
		if content := map[string]any{}; yaml.Unmarshal(document, &content) != nil || len(content) > 0 {
			return errors.New("kind and apiVersion are missing")
		}
		return nil // only comments, or nothing
	case h.Items != nil:
		return addItems(to, h.Items, judge)
	case h.Kind == "Node" && h.APIVersion == "v1":
		err = add(document, &to.Nodes, convertNode, &found)
	case h.Kind == "Pod" && h.APIVersion == "v1":
		err = add(document, &to.Pods, convertPod, &found)
	case h.Kind == "Namespace" && h.APIVersion == "v1":
		err = add(document, &to.Namespaces, convertNamespace, &found)
	case h.Kind == "NetworkPolicy" && h.APIVersion == networkingv1.SchemeGroupVersion.String():
		err = add(document, &to.Policies, asUnderstood(convertPolicy), &found)
	case h.Kind == "ClusterNetworkPolicy" && h.APIVersion == clusterPolicyVersion:
		err = add(document, &to.ClusterPolicies, asUnderstood(convertClusterPolicy), &found)
	case h.Kind == "Service" && h.APIVersion == "v1":
		err = addService(to, document, &found)
	case h.Kind == "EndpointSlice" && h.APIVersion == discoveryv1.SchemeGroupVersion.String():
		err = addSlice(to, document, &found)
	case h.Kind == "ServiceCIDR" && h.APIVersion == networkingv1.SchemeGroupVersion.String():
		err = add(document, &to.ServiceCIDRs, convertServiceCIDR, &found)
	case h.Kind == "Network" && h.APIVersion == v1alpha1.GroupVersion().String():
		var networks model.Map[string, *model.Network]
		err = add(document, &networks, convertNetwork, &found)
		if network, ok := networks.Get(v1alpha1.NetworkName); ok {
			to.Network = network
		}
	case h.Kind == nodeStateKind && h.APIVersion == v1alpha1.GroupVersion().String():
		return addNodeState(to, document)
	default:
		return fmt.Errorf("%s of %s is not a part of snapshots; Nodes, Namespaces, Pods, Services, EndpointSlices, ServiceCIDRs, NetworkPolicies, ClusterNetworkPolicies, the Network and NodeState are",
			h.String(), h.APIVersion)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", h.String(), err)
	}
	if fatal := judge(h.Kind, found); fatal != nil {
		return fmt.Errorf("%s: %s: %s", h.String(), fatal.Field, fatal.Message)
	}
	return nil
}

func addItems(to *model.Snapshot, items []map[string]any, judge judge) error {
	for i, item := range items {
		document, err := yaml.Marshal(item)
		if err == nil {
			err = addDocument(to, document, judge)
		}
		if err != nil {
			return fmt.Errorf("item %d: %w", i+1, err)
		}
	}
	return nil
}

func add[T any, K, V comparable](document []byte, to *model.Map[K, V], convert func(*T) converted[K, V], found *[]model.Problem) error {
	object := new(T)
	if err := decodeDocument(document, object); err != nil {
		return err
	}
	made := convert(object)
	*found = made.problems
	if !made.absent {
		*to = to.With(made.key, made.value)
	}
	return nil
}

// decodeDocument reads YAML. What is JSON, which is YAML too, takes a tenth of the time.
func decodeDocument(document []byte, into any) error {
	if bytes.HasPrefix(document, []byte("{")) && json.Valid(document) {
		return json.Unmarshal(document, into)
	}
	return yaml.Unmarshal(document, into)
}

// object is a document to be written, without the empty fields that the Go
// types of Kubernetes would add.
type object map[string]any

// WriteSnapshot writes what ReadSnapshot reads, sorted, so that equal
// snapshots give equal files.
func WriteSnapshot(w io.Writer, snapshot *model.Snapshot) error {
	return (&documents{to: w, encode: func(document any) ([]byte, error) {
		switch of := document.(type) {
		case *model.Pod:
			document = podObjectOf(of)
		case *model.Policy:
			document = policyObjectOf(of)
		}
		return yaml.Marshal(document)
	}}).writeSnapshot(snapshot)
}

// WriteSnapshotJSON writes the same with each object as one line of JSON, which
// programs write and read many times faster.
func WriteSnapshotJSON(w io.Writer, snapshot *model.Snapshot) error {
	pods, policies := &podLines{}, &policyLines{}
	return (&documents{to: w, encode: func(document any) ([]byte, error) {
		switch of := document.(type) {
		case *model.Pod:
			return pods.write(of), nil
		case *model.Policy:
			return policies.write(of)
		}
		text, err := json.Marshal(document)
		return append(text, '\n'), err
	}}).writeSnapshot(snapshot)
}

func (d *documents) writeSnapshot(snapshot *model.Snapshot) error {
	if snapshot.Network != nil {
		d.write(networkObjectOf(snapshot.Network))
	}
	for _, name := range slices.Sorted(keys(snapshot.Nodes)) {
		node, _ := snapshot.Nodes.Get(name)
		d.write(nodeObjectOf(node))
	}
	for _, key := range slices.SortedFunc(keys(snapshot.Pods), func(a, b model.PodKey) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	}) {
		pod, _ := snapshot.Pods.Get(key)
		d.write(pod)
	}
	d.writeServices(snapshot)
	d.writeNames(snapshot)
	d.writePolicies(snapshot)
	d.write(nodeStateOf(snapshot))
	return d.err
}

// documents writes one after the other: a large cluster takes many times the memory
// as documents that it takes as a snapshot.
type documents struct {
	to     io.Writer
	encode func(any) ([]byte, error)
	err    error // the first; nothing is written after it
}

func (d *documents) write(document any) {
	if d.err != nil {
		return
	}
	text, err := d.encode(document)
	if err == nil {
		_, err = io.WriteString(d.to, "---\n")
	}
	if err == nil {
		_, err = d.to.Write(text)
	}
	if err != nil {
		d.err = fmt.Errorf("writing the snapshot: %w", err)
	}
}

func keys[K, V comparable](m model.Map[K, V]) iter.Seq[K] {
	return func(yield func(K) bool) {
		for key := range m.All() {
			if !yield(key) {
				return
			}
		}
	}
}

func nodeObjectOf(n *model.Node) object {
	metadata := object{"name": n.Name, "uid": n.UID}
	if labels := maps.Collect(n.Labels.All()); len(labels) > 0 {
		metadata["labels"] = labels
	}
	if n.Flannel != "" {
		metadata["annotations"] = object{flannelManages: "true", flannelBackend: n.Flannel}
	}
	var addresses []object
	for _, addr := range n.Addresses {
		addresses = append(addresses, object{"type": corev1.NodeInternalIP, "address": addr})
	}
	for _, addr := range n.External {
		addresses = append(addresses, object{"type": corev1.NodeExternalIP, "address": addr})
	}
	spec := object{"podCIDRs": n.PodCIDRs}
	if n.Leaving {
		spec["taints"] = []object{{"key": toBeDeleted, "effect": corev1.TaintEffectNoSchedule}}
	}
	return object{
		"apiVersion": "v1", "kind": "Node", "metadata": metadata,
		"spec":   spec,
		"status": object{"addresses": addresses},
	}
}

func podObjectOf(p *model.Pod) object {
	spec := object{}
	if p.Node != "" {
		spec["nodeName"] = p.Node
	}
	if p.HostNetwork {
		spec["hostNetwork"] = true
	}
	var ips []object
	for _, addr := range p.Addresses {
		ips = append(ips, object{"ip": addr})
	}
	status := object{"podIPs": ips}
	if p.Finished {
		status["phase"] = corev1.PodSucceeded
	}
	if len(p.Ports) > 0 {
		var ports []object
		for _, port := range p.Ports {
			ports = append(ports, object{"name": port.Name, "protocol": port.Protocol, "containerPort": port.Port})
		}
		spec["containers"] = []object{{"ports": ports}}
	}
	metadata := object{"namespace": p.Namespace, "name": p.Name, "uid": p.UID.String()}
	if p.Labels != (model.Labels{}) {
		metadata["labels"] = maps.Collect(p.Labels.All())
	}
	return object{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}
}
