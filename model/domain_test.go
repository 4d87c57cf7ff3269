package model

import (
	"slices"
	"testing"
)

// TestDomains: a name is itself; *. means one label or more below a name, and
// whole ones.
func TestDomains(t *testing.T) {
	d := NewDomains([]string{"kubernetes.io", "*.kubernetes.io", "*.blog.kubernetes.io", "wiki.example.org"})
	for name, want := range map[string][]string{
		"kubernetes.io":             {"kubernetes.io"},
		"www.kubernetes.io":         {"*.kubernetes.io"},
		"latest.blog.kubernetes.io": {"*.blog.kubernetes.io", "*.kubernetes.io"},
		"blog.kubernetes.io":        {"*.kubernetes.io"},
		"my-kubernetes.io":          nil,
		"io":                        nil,
		"":                          nil,
		"wiki.example.org":          {"wiki.example.org"},
		"a.wiki.example.org":        nil,
		"example.org":               nil,
	} {
		if got := slices.Sorted(d.Matches(name)); !slices.Equal(got, want) {
			t.Errorf("%q fits %q, want %q", name, got, want)
		}
		for _, pattern := range d.All() {
			if FitsDomain(pattern, name) != slices.Contains(want, pattern) {
				t.Errorf("%q fits %q: %v", name, pattern, FitsDomain(pattern, name))
			}
		}
	}
	for range (*Domains)(nil).Matches("a.b") {
		t.Error("something fits no pattern")
	}
}
