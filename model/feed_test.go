package model

import (
	"testing"
	"testing/synctest"
	"time"
)

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

// TestFeedMade: a feed knows when its latest revisions were made, and of older
// ones only that they are not younger.
func TestFeedMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var feed Feed
		if made, known := feed.Made(0); known || !made.IsZero() {
			t.Errorf("before the first: %v, %v", made, known)
		}
		began := time.Now()
		const last = 3*remembered + 7
		for n := range uint64(last) {
			time.Sleep(time.Second)
			feed.Edit(func(s *Snapshot) { s.Nodes = s.Nodes.With("a", &Node{Name: "a"}) })
			if made, known := feed.Made(n + 1); !known || time.Since(made) != 0 {
				t.Fatalf("revision %d: %v, %v", n+1, made, known)
			}
		}
		for _, test := range []struct {
			revision, made uint64
			known          bool
		}{
			{last, last, true}, {last - 1, last - 1, true}, {last - remembered + 1, last - remembered + 1, true},
			{last - remembered, last - remembered + 1, false}, {1, last - remembered + 1, false},
		} {
			made, known := feed.Made(test.revision)
			if want := began.Add(time.Duration(test.made) * time.Second); known != test.known || !made.Equal(want) {
				t.Errorf("revision %d: %v, %v; want %v, %v", test.revision, made, known, want, test.known)
			}
		}
		if made, known := feed.Made(last + 1); known || !made.IsZero() {
			t.Errorf("a revision to come: %v, %v", made, known)
		}
	})
}
