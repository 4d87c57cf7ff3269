package kube

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net/http"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/apitesting/fuzzer"
	metafuzzer "k8s.io/apimachinery/pkg/apis/meta/fuzzer"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/fairlead-net/fairlead/model"
)

// TestSparse: whatever is in an object, of protobuf the same comes of it as if all
// of it had been decoded, and of JSON too.
func TestSparse(t *testing.T) {
	t.Run("Node", func(t *testing.T) { bothWays(t, sparseNodes, seasonNode) })
	t.Run("Pod", func(t *testing.T) { bothWays(t, sparsePods, seasonPod) })
	t.Run("Service", func(t *testing.T) { bothWays(t, sparseServices, seasonService) })
	t.Run("EndpointSlice", func(t *testing.T) { bothWays(t, sparseSlices, seasonSlice) })
	t.Run("Hosts", func(t *testing.T) { bothWays(t, sparseHosts, seasonSlice) })
	t.Run("NetworkPolicy", func(t *testing.T) { bothWays(t, sparsePolicies, seasonPolicy) })
	t.Run("Ingress", func(t *testing.T) { bothWays(t, sparseIngresses, seasonIngress) })
	t.Run("Entry", func(t *testing.T) { bothWays(t, sparseEntries, seasonIngress) })
}

// bothWays makes random objects and puts into each some of what conversions look
// for.
func bothWays[T message, K, V comparable](t *testing.T, of func() (*sparse[T, K, V], error), season func(T, pick)) {
	s, err := of()
	if err != nil {
		t.Fatal(err)
	}
	decoder := s.DecoderToVersion(scheme.Codecs.UniversalDeserializer(), nil)
	random := rand.New(rand.NewSource(1))
	fill := fuzzer.FuzzerFor(metafuzzer.Funcs, random, scheme.Codecs)
	read := 0
	var all, wanted []converted[K, V]
	for i := range 400 {
		object := s.empty.DeepCopyObject().(T)
		if i > 0 { // nothing first
			fill.Fill(object)
			season(object, pick{random})
		}
		object.GetObjectKind().SetGroupVersionKind(s.kind)
		for _, contentType := range []string{runtime.ContentTypeProtobuf, runtime.ContentTypeJSON} {
			content := encoded(t, contentType, object)
			whole, _, err := scheme.Codecs.UniversalDeserializer().Decode(content, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			want := s.convert(whole.(T))
			decoded, kind, err := decoder.Decode(content, nil, nil)
			if err != nil || *kind != s.kind {
				t.Fatalf("%s: %v, %v", contentType, kind, err)
			}
			got := decoded.(*arrival[K, V])
			if !reflect.DeepEqual(got.converted, want) {
				t.Fatalf("of %s comes\n%+v\n%+v, not\n%+v\n%+v", contentType, got.converted, got.value, want, want.value)
			}
			all, wanted = append(all, got.converted), append(wanted, want)
			if m := got.metadata; m.Name != object.GetName() || m.Namespace != object.GetNamespace() || m.ResourceVersion != object.GetResourceVersion() {
				t.Fatalf("%s: names %+v", contentType, got.metadata)
			}
			if len(got.problems) == 0 && !got.absent {
				read++
			}
		}
	}
	if !reflect.DeepEqual(all, wanted) {
		t.Error("what comes later changes what came before")
	}
	if read < 100 {
		t.Errorf("only %d objects were of use: this tests little", read)
	}
}

func encoded(t testing.TB, contentType string, object runtime.Object) []byte {
	t.Helper()
	info, _ := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), contentType)
	content, err := runtime.Encode(info.Serializer, object)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestSelectFields(t *testing.T) {
	for _, path := range []string{"spec.nodeNames", "spec.nodeName.x", "x", "metadata.labels.x"} {
		if _, err := selectFields(reflect.TypeFor[corev1.Pod](), path); err == nil {
			t.Errorf("%s is said to be a field of a pod", path)
		}
	}
	selected, err := selectFields(reflect.TypeFor[corev1.Pod](), "spec.hostNetwork", "metadata.labels[a]")
	if err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Labels: map[string]string{"a": "1", "b": "2"}},
		Spec:       corev1.PodSpec{HostNetwork: true, HostPID: true, NodeName: "n"},
	}
	content, err := pod.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	cut, err := selected.cut(nil, content)
	if err != nil {
		t.Fatal(err)
	}
	got, want := &corev1.Pod{}, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "1"}}, Spec: corev1.PodSpec{HostNetwork: true},
	}
	if err := got.Unmarshal(cut); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n got %+v\nwant %+v", err, got, want)
	}
}

// TestSourceReadsProtobuf: what is true of JSON in the other tests, for watches
// and, with API servers that send no initial events, for lists.
func TestSourceReadsProtobuf(t *testing.T) {
	for _, noStreams := range []bool{false, true} {
		t.Run(map[bool]string{false: "watch list", true: "list and watch"}[noStreams], func(t *testing.T) {
			s := newStub(t)
			s.noStreams, s.protobuf = noStreams, true
			s.put(nodesPath, stubNode("a", `"spec": {"podCIDRs": ["10.244.0.0/24"]}`))
			for i := range 50 {
				s.put(podsPath, stubPod(fmt.Sprint("web-", i), `"spec": {"nodeName": "a", "containers": [{"name": "`+strings.Repeat("long", 9000)+`"}]},
					"status": {"podIPs": [{"ip": "10.244.0.2"}]}`))
			}
			s.put(servicesPath, stubService+`{"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}}`)
			s.put(slicesPath, `{"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
				"metadata": {"namespace": "ns", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
				"ports": [{"port": 8080}], "endpoints": [{"addresses": ["10.244.0.2"]}, {"addresses": ["oops"]}]}`)
			source := s.client(Options{}).Source()
			feed := start(t, source)
			first := until(t, feed, "all of it", func(s *model.Snapshot) bool { return s.PoliciesKnown })
			if first.Nodes.Len() != 1 || first.Pods.Len() != 50 || first.Services.Len() != 1 || first.Slices.Len() != 1 {
				t.Errorf("there are %d nodes, %d pods, %d Services, %d slices", first.Nodes.Len(), first.Pods.Len(), first.Services.Len(), first.Slices.Len())
			}
			if problems := source.Problems(); len(problems) != 1 || problems[0].Name != "web-1" {
				t.Errorf("problems %v", problems)
			}
			key := model.PodKey{Namespace: "default", Name: "web-7"}
			s.put(podsPath, stubPod("web-7", `"status": {"phase": "Failed"}`))
			until(t, feed, "a pod that failed", func(s *model.Snapshot) bool {
				pod, _ := s.Pods.Get(key)
				return pod != nil && pod.Finished
			})
			s.remove(podsPath + "/web-7")
			until(t, feed, "a pod that is gone", func(s *model.Snapshot) bool { return s.Pods.Len() == 49 })

			// What was not understood would end the watch, and begin another.
			if asked, want := s.count("GET "+podsPath), map[bool]int{false: 1, true: 3}[noStreams]; asked != want {
				t.Errorf("pods were asked for %d times, not %d", asked, want)
			}
			s.forget(podsPath + "/web-8") // the watch ends in an error, and all is listed again
			until(t, feed, "a pod that nobody told of", func(s *model.Snapshot) bool { return s.Pods.Len() == 48 })
		})
	}
}

// protobufWriter writes what the stub says in JSON as protobuf.
type protobufWriter struct {
	http.ResponseWriter
	t testing.TB
}

func (w protobufWriter) Flush() { w.ResponseWriter.(http.Flusher).Flush() }

// Write takes one document at a time, as json.Encoder writes them.
func (w protobufWriter) Write(document []byte) (int, error) {
	var event struct {
		Type   string
		Object json.RawMessage
	}
	if err := json.Unmarshal(document, &event); err != nil {
		return 0, err
	}
	content := document
	if event.Type != "" {
		content = event.Object
	}
	object, _, err := scheme.Codecs.UniversalDeserializer().Decode(content, nil, nil)
	if err != nil {
		w.t.Errorf("the stub said %s: %v", document, err)
		return 0, err
	}
	content = encoded(w.t, runtime.ContentTypeProtobuf, object)
	if event.Type != "" {
		frame, err := (&metav1.WatchEvent{Type: event.Type, Object: runtime.RawExtension{Raw: content}}).Marshal()
		if err != nil {
			return 0, err
		}
		content = append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)
	}
	_, err = w.ResponseWriter.Write(content)
	return len(document), err
}

// TestSparseDamaged: an object that ends too early is an error, wherever it ends.
func TestSparseDamaged(t *testing.T) {
	s, err := sparsePods()
	if err != nil {
		t.Fatal(err)
	}
	decoder := s.DecoderToVersion(scheme.Codecs.UniversalDeserializer(), nil)
	pod := benchPod(1)
	pod.SetGroupVersionKind(s.kind)
	content := encoded(t, runtime.ContentTypeProtobuf, pod)
	raw, err := pod.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for size := range len(raw) {
		// An end between two fields cannot be told from one.
		whole := (&corev1.Pod{}).Unmarshal(raw[:size]) == nil
		if _, err := s.fields.cut(nil, raw[:size]); (err == nil) != whole {
			t.Errorf("%d of %d bytes: %v", size, len(raw), err)
		}
	}
	for size := range len(content) {
		_, _, want := scheme.Codecs.UniversalDeserializer().Decode(content[:size], nil, nil)
		if _, _, err := decoder.Decode(content[:size], nil, nil); (err == nil) != (want == nil) {
			t.Errorf("%d of %d bytes: %v, and of all: %v", size, len(content), err, want)
		}
	}
}

// TestSparseList: a list read as it comes holds what it holds otherwise. One that
// ends too early is an error wherever it ends, and never a shorter list.
func TestSparseList(t *testing.T) {
	s, err := sparsePods()
	if err != nil {
		t.Fatal(err)
	}
	whole := &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "7", Continue: "more"}}
	whole.SetGroupVersionKind(s.kind.GroupVersion().WithKind("PodList"))
	for i := range 3 {
		whole.Items = append(whole.Items, *benchPod(i))
	}
	content := encoded(t, runtime.ContentTypeProtobuf, whole)
	list, err := s.list(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	got := list.(*arrivals[model.PodKey, *model.Pod])
	if got.ResourceVersion != "7" || got.Continue != "more" || len(got.Items) != 3 {
		t.Errorf("the list has %d items and says %+v", len(got.Items), got.ListMeta)
	}
	for i, item := range got.Items {
		if want := convertPod(&whole.Items[i]); !reflect.DeepEqual(item.converted, want) {
			t.Errorf("pod %d is %+v, not %+v", i, item.value, want.value)
		}
	}
	for size := range len(content) {
		list, err := s.list(bytes.NewReader(content[:size]))
		if err == nil && len(list.(*arrivals[model.PodKey, *model.Pod]).Items) != 3 {
			t.Errorf("%d of %d bytes are a list of fewer", size, len(content))
		}
	}
	if _, err := s.list(bytes.NewReader(content[:len(content)/2])); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half a list: %v", err)
	}

	list, err = s.list(bytes.NewReader(encoded(t, runtime.ContentTypeJSON, whole)))
	if list, ok := list.(*corev1.PodList); err != nil || !ok || len(list.Items) != 3 {
		t.Errorf("of JSON: %+v, %v", list, err)
	}
	for _, other := range []runtime.Object{
		&corev1.Pod{TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}},
		&corev1.NodeList{TypeMeta: metav1.TypeMeta{Kind: "NodeList", APIVersion: "v1"}},
	} {
		if _, err := s.list(bytes.NewReader(encoded(t, runtime.ContentTypeProtobuf, other))); err == nil {
			t.Errorf("a %T is a list of pods", other)
		}
	}
}

// FuzzSparse: no input makes it panic, and what both ways understand means the
// same.
func FuzzSparse(f *testing.F) {
	nodes, err := sparseNodes()
	if err != nil {
		f.Fatal(err)
	}
	pods, err := sparsePods()
	if err != nil {
		f.Fatal(err)
	}
	services, err := sparseServices()
	if err != nil {
		f.Fatal(err)
	}
	endpointSlices, err := sparseSlices()
	if err != nil {
		f.Fatal(err)
	}
	policies, err := sparsePolicies()
	if err != nil {
		f.Fatal(err)
	}
	random := rand.New(rand.NewSource(1))
	fill := fuzzer.FuzzerFor(metafuzzer.Funcs, random, scheme.Codecs)
	node, pod, service, slice, policy := &corev1.Node{}, benchPod(1), &corev1.Service{}, &discoveryv1.EndpointSlice{}, &networkingv1.NetworkPolicy{}
	for _, object := range []runtime.Object{node, service, slice, policy} {
		fill.Fill(object)
	}
	seasonPolicy(policy, pick{random})
	policy.SetGroupVersionKind(policies.kind)
	seasonNode(node, pick{random})
	seasonService(service, pick{random})
	seasonSlice(slice, pick{random})
	node.SetGroupVersionKind(nodes.kind)
	pod.SetGroupVersionKind(pods.kind)
	service.SetGroupVersionKind(services.kind)
	slice.SetGroupVersionKind(endpointSlices.kind)
	for _, object := range []runtime.Object{node, pod, service, slice, policy} {
		f.Add(encoded(f, runtime.ContentTypeProtobuf, object))
	}
	list := &corev1.PodList{Items: []corev1.Pod{*pod, *benchPod(2)}}
	list.SetGroupVersionKind(pods.kind.GroupVersion().WithKind("PodList"))
	f.Add(encoded(f, runtime.ContentTypeProtobuf, list))
	f.Fuzz(func(t *testing.T, content []byte) {
		if !bytes.HasPrefix(content, []byte(magic)) {
			return // JSON, which others decode
		}
		sameListOrError(t, pods, content)
		sameOrError(t, nodes, content)
		sameOrError(t, pods, content)
		sameOrError(t, services, content)
		sameOrError(t, endpointSlices, content)
		sameOrError(t, policies, content)
		_, _, _ = frames{}.Decode(content, nil, &metav1.WatchEvent{})
	})
}

func sameListOrError(t *testing.T, s *sparse[*corev1.Pod, model.PodKey, *model.Pod], content []byte) {
	got, err := s.list(bytes.NewReader(content))
	want, _, wrong := scheme.Codecs.UniversalDeserializer().Decode(content, nil, nil)
	if err != nil || wrong != nil {
		return
	}
	whole, ok := want.(*corev1.PodList)
	read, sparse := got.(*arrivals[model.PodKey, *model.Pod])
	if !sparse || !ok {
		return
	}
	if len(read.Items) != len(whole.Items) {
		t.Fatalf("%d pods, not %d", len(read.Items), len(whole.Items))
	}
	for i, item := range read.Items {
		if want := s.convert(&whole.Items[i]); !reflect.DeepEqual(item.converted, want) {
			t.Errorf("%+v, not %+v", item.converted, want)
		}
	}
}

func sameOrError[T message, K, V comparable](t *testing.T, s *sparse[T, K, V], content []byte) {
	got, _, err := s.DecoderToVersion(scheme.Codecs.UniversalDeserializer(), nil).Decode(content, nil, nil)
	if err != nil {
		return
	}
	want, _, err := scheme.Codecs.UniversalDeserializer().Decode(content, nil, nil)
	if err != nil {
		return
	}
	if whole, ok := want.(T); ok {
		if got := got.(*arrival[K, V]).converted; !reflect.DeepEqual(got, s.convert(whole)) {
			t.Errorf("%+v, not %+v", got, s.convert(whole))
		}
	}
}
