package asker

import (
	"reflect"
	"testing"
)

// TestSince: what is new counts, and of a server or a pod that began anew all of
// it.
func TestSince(t *testing.T) {
	before := []Asker{{Namespace: "a", Pod: "one", Queries: 10, Outside: 5, Nxdomain: 1, Bytes: 100}, {Namespace: "a", Pod: "two", Queries: 10}, {Namespace: "a", Pod: "again", Queries: 50, Bytes: 999}}
	after := []Asker{
		{Namespace: "a", Pod: "one", Queries: 12, Outside: 7, Nxdomain: 2, Bytes: 130}, {Namespace: "a", Pod: "two", Queries: 10},
		{Namespace: "a", Pod: "again", Queries: 4, Bytes: 40}, {Namespace: "b", Pod: "one", Queries: 3},
	}
	want := []Asker{
		{Namespace: "a", Pod: "again", Queries: 4, Bytes: 40, Total: 4}, {Namespace: "b", Pod: "one", Queries: 3, Total: 3},
		{Namespace: "a", Pod: "one", Queries: 2, Outside: 2, Nxdomain: 1, Bytes: 30, Total: 12},
	}
	if got := Since(before, after); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestMerge: who asks is told by node, and names are added up.
func TestMerge(t *testing.T) {
	got := Merge(map[string]*Report{
		"node1": {Seconds: 2, Askers: []Asker{{Pod: "x", Queries: 1}}, Names: []Name{{"a.", "A", 3}, {"b.", "A", 4}}},
		"node2": {Seconds: 2.5, Askers: []Asker{{Pod: "y", Queries: 9}}, Names: []Name{{"a.", "A", 2}, {"a.", "AAAA", 1}}},
	})
	want := &Report{
		Seconds: 2.5, Askers: []Asker{{Node: "node2", Pod: "y", Queries: 9}, {Node: "node1", Pod: "x", Queries: 1}},
		Names: []Name{{"a.", "A", 5}, {"b.", "A", 4}, {"a.", "AAAA", 1}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}
