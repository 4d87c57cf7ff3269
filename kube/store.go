package kube

import (
	"fmt"
	"slices"
	"sync"

	"k8s.io/client-go/tools/cache"

	"github.com/fairlead-net/fairlead/model"
)

// store is what a reflector of client-go writes to. It keeps nothing but the
// problems of objects: each object is converted as it is decoded, and edits a
// persistent map that is elsewhere.
type store[K, V comparable] struct {
	convert func(object any) (converted[K, V], error)
	equal   func(a, b V) bool
	edit    func(func(model.Map[K, V]) model.Map[K, V]) // makes one revision at most
	synced  func()                                      // called after each Replace

	problems *problems
	kind     string
}

var _ cache.TransformingStore = (*store[string, *model.Node])(nil)

// convertFrom makes a conversion of one type a conversion of any.
func convertFrom[T any, K, V comparable](convert func(T) converted[K, V]) func(any) (converted[K, V], error) {
	return func(object any) (converted[K, V], error) {
		typed, ok := object.(T)
		if !ok {
			return converted[K, V]{}, fmt.Errorf("converting an object: got a %T", object)
		}
		return convert(typed), nil
	}
}

// Transformer makes the reflector convert the objects of its first list one by
// one as they arrive, so that they are never all in memory.
func (s *store[K, V]) Transformer() cache.TransformFunc {
	return func(object any) (any, error) { return s.from(object) }
}

func (s *store[K, V]) from(object any) (converted[K, V], error) {
	switch object := object.(type) {
	case converted[K, V]:
		return object, nil
	case cache.DeletedFinalStateUnknown:
		return s.from(object.Obj)
	default:
		return s.convert(object)
	}
}

func (s *store[K, V]) Add(object any) error { return s.Update(object) }

func (s *store[K, V]) Update(object any) error {
	to, err := s.from(object)
	if err != nil {
		return err
	}
	s.problems.set(s.kind, fmt.Sprint(to.key), to.problems)
	s.edit(func(m model.Map[K, V]) model.Map[K, V] { return s.with(m, to) })
	return nil
}

func (s *store[K, V]) Delete(object any) error {
	to, err := s.from(object)
	if err != nil {
		return err
	}
	s.problems.set(s.kind, fmt.Sprint(to.key), nil)
	s.edit(func(m model.Map[K, V]) model.Map[K, V] { return m.Without(to.key) })
	return nil
}

// Replace is one edit, and shares all that did not change with what was there:
// a relist of a cluster that stood still makes no revision.
func (s *store[K, V]) Replace(objects []any, _ string) error {
	present := make(map[K]struct{}, len(objects))
	all := make([]converted[K, V], 0, len(objects))
	wrong := map[string][]model.Problem{}
	for _, object := range objects {
		to, err := s.from(object)
		if err != nil {
			return err
		}
		present[to.key] = struct{}{}
		all = append(all, to)
		if len(to.problems) > 0 {
			wrong[fmt.Sprint(to.key)] = to.problems
		}
	}
	s.problems.replace(s.kind, wrong)
	s.edit(func(m model.Map[K, V]) model.Map[K, V] {
		for key := range m.All() {
			if _, ok := present[key]; !ok {
				m = m.Without(key)
			}
		}
		for _, to := range all {
			m = s.with(m, to)
		}
		return m
	})
	s.synced()
	return nil
}

// Resync is never asked for.
func (s *store[K, V]) Resync() error { return nil }

// with keeps the old value if the new one says the same.
func (s *store[K, V]) with(m model.Map[K, V], to converted[K, V]) model.Map[K, V] {
	if old, ok := m.Get(to.key); ok && s.equal(old, to.value) {
		return m
	}
	return m.With(to.key, to.value)
}

// problems are what could not be understood, by kind and object.
type problems struct {
	mu      sync.Mutex
	objects map[string]map[string][]model.Problem
	changed chan struct{} // closed and replaced at each change
}

func newProblems() *problems {
	return &problems{objects: map[string]map[string][]model.Problem{}, changed: make(chan struct{})}
}

func (p *problems) set(kind, object string, found []model.Problem) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if slices.Equal(p.objects[kind][object], found) {
		return
	}
	if p.objects[kind] == nil {
		p.objects[kind] = map[string][]model.Problem{}
	}
	if len(found) == 0 {
		delete(p.objects[kind], object)
	} else {
		p.objects[kind][object] = found
	}
	p.signal()
}

func (p *problems) replace(kind string, found map[string][]model.Problem) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.objects[kind]) == 0 && len(found) == 0 {
		return
	}
	p.objects[kind] = found
	p.signal()
}

func (p *problems) signal() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *problems) all() ([]model.Problem, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []model.Problem
	for _, objects := range p.objects {
		for _, found := range objects {
			all = append(all, found...)
		}
	}
	slices.SortFunc(all, model.Problem.Compare)
	return all, p.changed
}
