package kube

import (
	"fmt"
	"iter"
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
	key     func(V) K // of a value that names itself; nil: it does not
	equal   func(a, b V) bool
	edit    func(func(model.Map[K, V]) model.Map[K, V]) // makes one revision at most
	synced  func()                                      // called after each Replace

	problems *problems
	kind     string

	held model.Map[K, V] // what the last edit left
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

// Transformer makes the reflector convert the objects of a list one by one as
// they arrive, so that they are never all in memory; nor is a value that is held
// already, twice. The reflector calls it from the goroutine that edits.
func (s *store[K, V]) Transformer() cache.TransformFunc {
	return func(object any) (any, error) {
		to, err := s.from(object)
		if err != nil {
			return nil, err
		}
		if old, ok := s.held.Get(to.key); ok && !to.absent && s.equal(old, to.value) {
			to.value = old
		}
		if s.key != nil && !to.absent && len(to.problems) == 0 {
			return to.value, nil // no more than a pointer for each
		}
		return to, nil
	}
}

func (s *store[K, V]) from(object any) (converted[K, V], error) {
	switch object := object.(type) {
	case converted[K, V]:
		return object, nil
	case V:
		if s.key == nil { // what comes from the API server is of the same type
			return s.convert(object)
		}
		return converted[K, V]{key: s.key(object), value: object}, nil
	case *arrival[K, V]:
		return object.converted, nil
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
	s.change(func(m model.Map[K, V]) model.Map[K, V] { return s.with(m, to) })
	return nil
}

func (s *store[K, V]) Delete(object any) error {
	to, err := s.from(object)
	if err != nil {
		return err
	}
	s.problems.set(s.kind, fmt.Sprint(to.key), nil)
	s.change(func(m model.Map[K, V]) model.Map[K, V] { return m.Without(to.key) })
	return nil
}

// Replace is one edit, and shares all that did not change with what was there:
// a relist of a cluster that stood still makes no revision.
func (s *store[K, V]) Replace(objects []any, _ string) error {
	wrong := map[string][]model.Problem{}
	for i, object := range objects {
		to, err := s.from(object)
		if err != nil {
			return err
		}
		if len(to.problems) > 0 {
			wrong[fmt.Sprint(to.key)] = to.problems
		}
		switch object.(type) {
		case V, *arrival[K, V]:
		default:
			objects[i] = to // not converted twice: a plain list is not transformed
		}
	}
	s.problems.replace(s.kind, wrong)
	all := func(yield func(K, V) bool) {
		for _, object := range objects {
			to, _ := s.from(object) // is converted
			if !to.absent && !yield(to.key, to.value) {
				return
			}
		}
	}
	s.change(func(m model.Map[K, V]) model.Map[K, V] { return s.replaced(m, all) })
	s.UpdateResourceVersion("")
	s.synced()
	return nil
}

// Resync is never asked for.
func (s *store[K, V]) Resync() error { return nil }

// change edits, and remembers what came of it.
func (s *store[K, V]) change(edit func(model.Map[K, V]) model.Map[K, V]) {
	s.edit(func(m model.Map[K, V]) model.Map[K, V] {
		s.held = edit(m)
		return s.held
	})
}

// replaced makes a map hold all and nothing else.
func (s *store[K, V]) replaced(m model.Map[K, V], all iter.Seq2[K, V]) model.Map[K, V] {
	if m.Len() == 0 {
		return model.Collect(all)
	}
	count := 0
	for key, value := range all {
		m = s.with(m, converted[K, V]{key: key, value: value})
		count++
	}
	if m.Len() == count {
		return m // nothing is gone, as a rule
	}
	present := make(map[K]struct{}, count)
	for key := range all {
		present[key] = struct{}{}
	}
	for key := range m.All() {
		if _, ok := present[key]; !ok {
			m = m.Without(key)
		}
	}
	return m
}

// with keeps the old value if the new one says the same.
func (s *store[K, V]) with(m model.Map[K, V], to converted[K, V]) model.Map[K, V] {
	if to.absent {
		return m.Without(to.key)
	}
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
	watches watchStates
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
