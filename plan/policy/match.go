package policy

import (
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// matcher finds the peers that choose a pod without asking each of them. It is
// immutable.
type matcher struct {
	namespaces, pods *index
	peers            map[[2]int][]*peers // by the numbers of the selectors of both
	anyone           []*peers            // whom ports alone choose
}

// index finds selectors that choose labels.
type index struct {
	numbers map[string]int // by text
	all     []*model.Selector
	byLabel map[string][]int // those that want one of these labels, as key=value
	others  []int            // those that want no label of known value
}

func newIndex() *index { return &index{numbers: map[string]int{}, byLabel: map[string][]int{}} }

func (x *index) add(s selector) (number int) {
	number, ok := x.numbers[s.text]
	if ok {
		return number
	}
	number = len(x.all)
	x.numbers[s.text] = number
	x.all = append(x.all, s.Selector)
	at := slices.IndexFunc(s.Requirements, func(r model.Requirement) bool { return r.Operator == model.In })
	if at < 0 {
		x.others = append(x.others, number)
		return number
	}
	for _, value := range s.Requirements[at].Values {
		label := s.Requirements[at].Key + "=" + value
		if n := x.byLabel[label]; len(n) == 0 || n[len(n)-1] != number {
			x.byLabel[label] = append(n, number)
		}
	}
	return number
}

// match are the numbers of the selectors that choose labels.
func (x *index) match(labels model.Labels) (numbers []int) {
	for _, number := range x.others {
		if x.all[number].Matches(labels) {
			numbers = append(numbers, number)
		}
	}
	for rest := labels.String(); rest != ""; {
		var label string
		label, rest, _ = strings.Cut(rest, ",")
		for _, number := range x.byLabel[label] {
			if s := x.all[number]; len(s.Requirements) == 1 || s.Matches(labels) {
				numbers = append(numbers, number)
			}
		}
	}
	return numbers
}

func newMatcher() *matcher {
	return &matcher{namespaces: newIndex(), pods: newIndex(), peers: map[[2]int][]*peers{}}
}

func (m *matcher) add(p *peers) {
	if p.anyone {
		m.anyone = append(m.anyone, p)
	}
	if p.pods != nil {
		key := [2]int{m.namespaces.add(p.pods.namespaces), m.pods.add(p.pods.pods)}
		m.peers[key] = append(m.peers[key], p)
	}
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
			all = append(all, s.peers[[2]int{namespace, number}]...)
		}
	}
	return all
}
