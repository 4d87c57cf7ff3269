package policy

import (
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// index finds selectors that choose labels. It is immutable.
type index struct {
	numbers model.Map[string, int] // by text
	all     model.Map[int, *numbered]
	byLabel model.Map[string, *numbers] // those that want one of these labels, as key=value
	others  []int                       // those that want no label of known value
	last    int                         // that was given
}

// numbered is a selector, and how many peers have it.
type numbered struct {
	*model.Selector
	uses int
}

type numbers struct{ all []int }

// match are the numbers of the selectors that choose labels.
func (x *index) match(labels model.Labels) (numbers []int) {
	for _, number := range x.others {
		if s, _ := x.all.Get(number); s.Matches(labels) {
			numbers = append(numbers, number)
		}
	}
	for rest := labels.String(); rest != ""; {
		var label string
		label, rest, _ = strings.Cut(rest, ",")
		wanting, ok := x.byLabel.Get(label)
		if !ok {
			continue
		}
		for _, number := range wanting.all {
			if s, _ := x.all.Get(number); len(s.Requirements) == 1 || s.Matches(labels) {
				numbers = append(numbers, number)
			}
		}
	}
	return numbers
}

// indexDraft is an index in the making.
type indexDraft struct {
	numbers *draft[string, int]
	all     *draft[int, *numbered]
	byLabel *draft[string, *numbers]
	others  []int
	last    int
}

func (x *index) draft() *indexDraft {
	return &indexDraft{draftOf(x.numbers), draftOf(x.all), draftOf(x.byLabel), slices.Clone(x.others), x.last}
}

func (x *indexDraft) done() *index {
	return &index{x.numbers.done(), x.all.done(), x.byLabel.done(), x.others, x.last}
}

// add returns the number of a selector.
func (x *indexDraft) add(s selector) (number int) {
	if number, ok := x.numbers.get(s.text); ok {
		known, _ := x.all.get(number)
		x.all.put(number, &numbered{known.Selector, known.uses + 1})
		return number
	}
	x.last++
	number = x.last
	x.numbers.put(s.text, number)
	x.all.put(number, &numbered{s.Selector, 1})
	labels := wanted(s.Selector)
	if labels == nil {
		x.others = append(x.others, number)
	}
	for _, label := range labels {
		of, mine := x.byLabel.set[label]
		if !mine {
			of = &numbers{}
			if known, ok := x.byLabel.get(label); ok {
				of.all = slices.Clone(known.all)
			}
			x.byLabel.put(label, of)
		}
		of.all = append(of.all, number)
	}
	return number
}

// remove returns the number that a selector had.
func (x *indexDraft) remove(s selector) (number int) {
	number, _ = x.numbers.get(s.text)
	if known, _ := x.all.get(number); known.uses > 1 {
		x.all.put(number, &numbered{known.Selector, known.uses - 1})
		return number
	}
	x.numbers.remove(s.text)
	x.all.remove(number)
	is := func(other int) bool { return other == number }
	labels := wanted(s.Selector)
	if labels == nil {
		x.others = slices.DeleteFunc(x.others, is)
	}
	for _, label := range labels {
		known, _ := x.byLabel.get(label)
		if left := slices.DeleteFunc(slices.Clone(known.all), is); len(left) > 0 {
			x.byLabel.put(label, &numbers{left})
		} else {
			x.byLabel.remove(label)
		}
	}
	return number
}

// wanted are labels of which a selector wants one; nil if it does not say of which
// value.
func wanted(s *model.Selector) (labels []string) {
	at := slices.IndexFunc(s.Requirements, func(r model.Requirement) bool { return r.Operator == model.In })
	if at < 0 {
		return nil
	}
	for _, value := range s.Requirements[at].Values {
		labels = append(labels, s.Requirements[at].Key+"="+value)
	}
	slices.Sort(labels)
	return slices.Compact(labels)
}
