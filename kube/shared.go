package kube

import (
	"hash/maphash"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-net/fairlead/model"
)

// mostShared bounds what is kept of lists that nobody has any more.
const mostShared = 4096

// shared makes equal lists use the same memory. A cluster has few lists of named
// ports, and many pods with each. The zero value is ready, and safe for concurrent
// use.
type shared[T comparable] struct {
	seed  maphash.Seed
	mu    sync.Mutex
	lists map[uint64][]T
}

func newShared[T comparable]() *shared[T] {
	return &shared[T]{seed: maphash.MakeSeed(), lists: map[uint64][]T{}}
}

// of returns a list that is equal, perhaps another's. Neither may be changed.
func (s *shared[T]) of(list []T) []T {
	if len(list) == 0 {
		return nil
	}
	var hash maphash.Hash
	hash.SetSeed(s.seed)
	for i := range list {
		maphash.WriteComparable(&hash, list[i])
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.lists[hash.Sum64()]; slices.Equal(known, list) {
		return known
	}
	if len(s.lists) >= mostShared {
		clear(s.lists)
	}
	list = slices.Clip(list)
	s.lists[hash.Sum64()] = list
	return list
}

// sharingPorts converts pods so that those with the same ports share them.
func sharingPorts() func(*corev1.Pod) converted[model.PodKey, *model.Pod] {
	ports := newShared[model.ContainerPort]()
	return func(object *corev1.Pod) converted[model.PodKey, *model.Pod] {
		to := convertPod(object)
		to.value.Ports = ports.of(to.value.Ports)
		return to
	}
}
