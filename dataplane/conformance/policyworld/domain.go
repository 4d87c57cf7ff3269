package policyworld

import (
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// The names of the outside, and the patterns that policies have.
var (
	domainNames    = []string{"example.com", "a.example.com", "b.example.com", "x.b.example.com", "example.org", "myexample.com"}
	domainPatterns = []string{"example.com", "b.example.com", "*.example.com", "*.b.example.com", "example.org"}
)

// resolve gives an address some names, or takes them away. One may have led there
// before.
func (w *World) resolve() {
	addr := pick(w, w.Everyone())
	resolved := &model.Resolved{}
	for range w.IntN(3) {
		resolved.Names = append(resolved.Names, pick(w, domainNames))
	}
	slices.Sort(resolved.Names)
	resolved.Names = slices.Compact(resolved.Names)
	if w.sometimes() {
		resolved.Lapsed = []string{pick(w, domainNames)}
	}
	if resolved.Names == nil && resolved.Lapsed == nil {
		w.Resolved = w.Resolved.Without(addr)
		return
	}
	w.Resolved = w.Resolved.With(addr, resolved)
}

// fitsDomain is what the API says of domain names: * stands for one label or more.
// An address of a pod is the pod's.
func (q *question) fitsDomain(pattern string) bool {
	resolved, ok := q.s.Resolved.Get(q.Peer)
	if !ok || q.peer != nil {
		return false
	}
	want := strings.Split(pattern, ".")
	return slices.ContainsFunc(resolved.Names, func(name string) bool {
		labels := strings.Split(name, ".")
		if want[0] == "*" {
			return len(labels) >= len(want) && slices.Equal(labels[len(labels)-len(want)+1:], want[1:])
		}
		return slices.Equal(labels, want)
	})
}
