package kube

import (
	"hash/maphash"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-net/fairlead/model"
)

// mostShared bounds what is kept of values that nobody has any more.
const mostShared = 4096

// shared makes equal values use the same memory. A cluster has few lists of named
// ports, and many pods with each. It is safe for concurrent use.
type shared[T any] struct {
	write func(*maphash.Hash, T) // equal values write the same
	equal func(a, b T) bool
	mu    sync.Mutex
	hash  maphash.Hash // of one value after the other: on its own it would be garbage
	known map[uint64]T
}

func newShared[T any](write func(*maphash.Hash, T), equal func(a, b T) bool) *shared[T] {
	return &shared[T]{write: write, equal: equal, known: map[uint64]T{}}
}

// newSharedLists is for lists of what can be compared.
func newSharedLists[T comparable]() *shared[[]T] {
	return newShared(func(hash *maphash.Hash, list []T) {
		for i := range list {
			maphash.WriteComparable(hash, list[i])
		}
	}, slices.Equal)
}

// of returns a value that is equal, perhaps another's. Neither may be changed.
func (s *shared[T]) of(value T) T {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hash.Reset()
	s.write(&s.hash, value)
	sum := s.hash.Sum64()
	if known, ok := s.known[sum]; ok && s.equal(known, value) {
		return known
	}
	if len(s.known) >= mostShared {
		clear(s.known)
	}
	s.known[sum] = value
	return value
}

// sharingPorts converts pods so that those with the same ports share them.
func sharingPorts() func(*corev1.Pod) converted[model.PodKey, *model.Pod] {
	ports := newSharedLists[model.ContainerPort]()
	return func(object *corev1.Pod) converted[model.PodKey, *model.Pod] {
		to := convertPod(object)
		if to.value.Ports != nil {
			to.value.Ports = ports.of(to.value.Ports)
		}
		return to
	}
}
