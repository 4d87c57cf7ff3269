package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// counts are what there is of each resource at one place, by the resource's name.
type counts map[string]int64

// place is a node, or the controller.
type place = string

// tolerance is by how much a resource may grow.
type tolerance struct {
	part float64 // of what there was at the beginning
	more int64   // and this many besides
	free bool    // it may grow: it is told, not judged
}

// tolerances of resources that are not exact. All others may not grow by one.
var tolerances = map[string]tolerance{
	"memory, bytes":     {part: 0.25, more: 16 << 20},
	"heap, bytes":       {part: 0.25, more: 4 << 20},
	"goroutines":        {more: 5},
	"files":             {more: 5},
	"age, s":            {free: true},
	processorUse:        {free: true},
	choiceChains:        {free: true},
	"connections":       {free: true},
	"addresses cooling": {free: true},
}

// leak is a resource of which there is more at the end than at the beginning.
type leak struct {
	where    place
	resource string
	start    int64
	peak     int64
	end      int64
	leaked   bool
}

// compare tells of each resource how it began, what the most was, and how it
// ended, by place and name.
func compare(start, peak, end map[place]counts) (all []leak) {
	for where, resources := range end {
		for resource, now := range resources {
			before, ok := start[where][resource]
			t := tolerances[resource]
			allowed := before + t.more + int64(t.part*float64(before))
			all = append(all, leak{
				where: where, resource: resource, start: before, end: now, peak: max(before, now, peak[where][resource]),
				leaked: ok && !t.free && now > allowed || !ok && !t.free && now > t.more,
			})
		}
	}
	slices.SortFunc(all, func(a, b leak) int {
		return cmp.Or(cmp.Compare(a.resource, b.resource), cmp.Compare(a.where, b.where))
	})
	return all
}

// leaks are those of them.
func leaks(all []leak) []leak {
	return slices.DeleteFunc(slices.Clone(all), func(l leak) bool { return !l.leaked })
}

// raise makes the most of each resource.
func raise(peak, now map[place]counts) {
	for where, resources := range now {
		if peak[where] == nil {
			peak[where] = counts{}
		}
		for resource, value := range resources {
			peak[where][resource] = max(peak[where][resource], value)
		}
	}
}

// names are of the things that were counted, by resource: what tells which of
// them is left.
type names map[string][]string

// added says which names there are that there were not; at most a few.
func added(before, after []string) string {
	left := map[string]int{}
	for _, name := range after {
		left[name]++
	}
	for _, name := range before {
		left[name]--
	}
	var more []string
	for _, name := range slices.Sorted(maps.Keys(left)) {
		if left[name] > 0 {
			more = append(more, name)
		}
	}
	const most = 8
	if len(more) > most {
		more = append(more[:most], fmt.Sprintf("and %d more", len(more)-most))
	}
	return strings.Join(more, "; ")
}
