package model

import "testing"

func TestFeed(t *testing.T) {
	var feed Feed
	first, changed := feed.Latest()
	if first.Revision != 0 {
		t.Fatalf("first revision is %d, want 0", first.Revision)
	}
	addNode := func(s *Snapshot) { s.Nodes = s.Nodes.With("a", &Node{Name: "a"}) }
	if revision := feed.Edit(addNode); revision != 1 {
		t.Errorf("revision after an edit is %d, want 1", revision)
	}
	select {
	case <-changed:
	default:
		t.Error("readers were not told of the edit")
	}
	if first.Nodes.Len() != 0 {
		t.Error("an edit changed a snapshot that was published")
	}
	_, changed = feed.Latest()
	if revision := feed.Edit(func(*Snapshot) {}); revision != 1 {
		t.Errorf("revision after an edit that changed nothing is %d, want 1", revision)
	}
	select {
	case <-changed:
		t.Error("readers were told of an edit that changed nothing")
	default:
	}
}
