package kube

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/fairlead-net/fairlead/model"
)

// BenchmarkPods shows what 50,000 pods cost in the snapshot: time for the
// first list, and bytes that stay.
func BenchmarkPods(b *testing.B) {
	const pods = 50_000
	for b.Loop() {
		feed := &model.Feed{}
		s := podStore(feed)
		transform := s.Transformer()
		before := heap()
		objects := make([]any, pods)
		for i := range objects {
			var err error
			if objects[i], err = transform(benchPod(i)); err != nil {
				b.Fatal(err)
			}
		}
		if err := s.Replace(objects, "1"); err != nil {
			b.Fatal(err)
		}
		clear(objects)
		b.ReportMetric(float64(heap()-before)/pods, "bytes/pod")
		runtime.KeepAlive(feed)
	}
}

// BenchmarkPodUpdate is one event among 50,000 pods.
func BenchmarkPodUpdate(b *testing.B) {
	feed := &model.Feed{}
	s := podStore(feed)
	var objects []any
	for i := range 50_000 {
		objects = append(objects, benchPod(i))
	}
	if err := s.Replace(objects, "1"); err != nil {
		b.Fatal(err)
	}
	pod := benchPod(7)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		pod.Status.PodIPs[0].IP = fmt.Sprintf("10.9.%d.%d", i>>8&255, i&255)
		if err := s.Update(pod); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReadPod is one pod from the wire to what is kept of it, and as client-go
// would decode it.
func BenchmarkReadPod(b *testing.B) {
	sparse, err := sparsePods()
	if err != nil {
		b.Fatal(err)
	}
	everything := scheme.Codecs.UniversalDeserializer()
	pod := benchPod(1)
	pod.SetGroupVersionKind(sparse.kind)
	pod.Annotations = map[string]string{"all": strings.Repeat("that is not kept ", 100)}
	content := encoded(b, apiruntime.ContentTypeProtobuf, pod)
	for name, decoder := range map[string]apiruntime.Decoder{"sparse": sparse.DecoderToVersion(everything, nil), "whole": everything} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				object, err := apiruntime.Decode(decoder, content)
				if err != nil {
					b.Fatal(err)
				}
				if whole, ok := object.(*corev1.Pod); ok {
					convertPod(whole)
				}
			}
		})
	}
}

func podStore(feed *model.Feed) *store[model.PodKey, *model.Pod] {
	return &store[model.PodKey, *model.Pod]{
		convert: convertFrom(convertPod), equal: (*model.Pod).Equal, problems: newProblems(), kind: "Pod", synced: func() {},
		edit: func(edit func(model.Map[model.PodKey, *model.Pod]) model.Map[model.PodKey, *model.Pod]) {
			feed.Edit(func(snapshot *model.Snapshot) { snapshot.Pods = edit(snapshot.Pods) })
		},
	}
}

func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// benchPod has strings of its own, as a decoder would make them.
func benchPod(i int) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: fmt.Sprintf("namespace-%d", i%500),
			Name:      fmt.Sprintf("deployment-%d-5d8f6c7b9-%05d", i/10, i),
			UID:       types.UID(fmt.Sprintf("0b9a3c1e-7f64-4c8e-9d0c-%012d", i)),
			Labels:    map[string]string{"app": fmt.Sprintf("deployment-%d", i/10), "pod-template-hash": "5d8f6c7b9"},
		},
		Spec: corev1.PodSpec{NodeName: fmt.Sprintf("node-%d", i%1000), Containers: []corev1.Container{
			{Name: "web", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}, {Name: "metrics", ContainerPort: 9090}}}, {Name: "proxy"},
		}},
		Status: corev1.PodStatus{
			Phase:  corev1.PodRunning,
			PodIPs: []corev1.PodIP{{IP: fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255)}, {IP: fmt.Sprintf("fd00::%x", i)}},
		},
	}
}
