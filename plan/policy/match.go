package policy

import (
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// matcher finds the peers that choose a pod without asking each of them. It is
// immutable, and the next one is made from it: of a thousand peers, few change.
type matcher struct {
	namespaces, pods *index
	peers            model.Map[[2]int, *choosers] // by the numbers of the selectors of both
	anyone           []*peers                     // whom ports alone choose
}

// choosers are peers of the same selectors.
type choosers struct{ all []*peers }

func newMatcher() *matcher { return &matcher{namespaces: &index{}, pods: &index{}} }

// with is the matcher that has some peers more, and others not any more.
func (m *matcher) with(come, gone []*peers) *matcher {
	namespaces, pods, all := m.namespaces.draft(), m.pods.draft(), draftOf(m.peers)
	next := &matcher{anyone: slices.DeleteFunc(slices.Clone(m.anyone), func(p *peers) bool { return slices.Contains(gone, p) })}
	for _, p := range come {
		if p.anyone {
			next.anyone = append(next.anyone, p)
		}
		if p.pods != nil {
			key := [2]int{namespaces.add(p.pods.namespaces), pods.add(p.pods.pods)}
			of := &choosers{all: []*peers{p}}
			if known, ok := all.get(key); ok {
				of.all = append(of.all, known.all...)
			}
			all.put(key, of)
		}
	}
	for _, p := range gone {
		if p.pods == nil {
			continue
		}
		key := [2]int{namespaces.remove(p.pods.namespaces), pods.remove(p.pods.pods)}
		known, _ := all.get(key)
		left := slices.DeleteFunc(slices.Clone(known.all), func(other *peers) bool { return other == p })
		if len(left) == 0 {
			all.remove(key)
		} else {
			all.put(key, &choosers{all: left})
		}
	}
	next.namespaces, next.pods, next.peers = namespaces.done(), pods.done(), all.done()
	return next
}

// search is what a matcher finds for many pods, whose labels are mostly the
// same: it remembers.
type search struct {
	*matcher
	labelsOf   func(namespace string) model.Labels
	namespaces map[string][]int
	pods       map[model.Labels][]int
}

func (m *matcher) search(labelsOf func(string) model.Labels) *search {
	return &search{m, labelsOf, map[string][]int{}, map[model.Labels][]int{}}
}

// within are the selectors that choose a namespace.
func (s *search) within(namespace string) []int {
	numbers, ok := s.namespaces[namespace]
	if !ok {
		numbers = s.matcher.namespaces.match(s.labelsOf(namespace))
		s.namespaces[namespace] = numbers
	}
	return numbers
}

// nobody tells whether no pod of a namespace is chosen.
func (s *search) nobody(namespace string) bool {
	return len(s.anyone) == 0 && len(s.within(namespace)) == 0
}

// choosing are the peers that choose a pod, by its labels, in no order and with
// repetitions, appended to all.
func (s *search) choosing(pod *model.Pod, all []*peers) []*peers {
	for _, p := range s.anyone {
		if p.member(pod).ports != nil {
			all = append(all, p)
		}
	}
	within := s.within(pod.Namespace)
	if len(within) == 0 {
		return all
	}
	chosen, ok := s.pods[pod.Labels]
	if !ok {
		chosen = s.matcher.pods.match(pod.Labels)
		s.pods[pod.Labels] = chosen
	}
	for _, namespace := range within {
		for _, number := range chosen {
			if of, ok := s.peers.Get([2]int{namespace, number}); ok {
				all = append(all, of.all...)
			}
		}
	}
	return all
}
