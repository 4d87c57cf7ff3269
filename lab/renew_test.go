package lab

import (
	"os"
	"testing"
)

// mostRenewals bounds what a version costs with which nothing works.
const mostRenewals = 3

// labs makes the lab for the first story, and anew after one that failed: nodes that
// it added, labels, rules and pods that it left would fail others, and hide what is
// wrong with the one. FAIRLEAD_LAB_KEEP keeps all of it.
func (s *stories) labs(first, again func() *Lab) (start func()) {
	begun, renewals := false, mostRenewals
	if os.Getenv(keepVariable) != "" {
		renewals = 0
	}
	return func() {
		spoilt := s.spoilt
		s.spoilt = false
		switch {
		case !begun:
			begun = true
			s.lab = first()
		case s.lab != nil && spoilt && renewals > 0: // what could not be made is not tried again
			renewals--
			s.lab = nil
			s.lab = again()
		}
	}
}

// renew shows what may tell why a story failed, and makes another lab in the place of
// this one. Who began it removes it.
func renew(t *testing.T, config Config) *Lab {
	explain(t.Context(), t, config.Name)
	if err := Down(t.Context(), config.Name); err != nil {
		t.Fatalf("removing the lab of a story that failed: %v", err)
	}
	lab, err := Up(t.Context(), config, t.Output())
	if err != nil {
		t.Fatalf("making a lab after a story that failed: %v", err)
	}
	return lab
}

// TestLabsAfterFailures: a story that failed spoils the lab of no other, and one that
// did not has the next use the same.
func TestLabsAfterFailures(t *testing.T) {
	t.Setenv(keepVariable, "")
	made := 0
	another := func() *Lab { made++; return &Lab{} }
	s := &stories{}
	start := s.labs(another, another)
	for i, story := range []struct {
		failed bool
		labs   int // that were made when it began
	}{{false, 1}, {true, 1}, {false, 2}, {true, 2}, {true, 3}, {true, 4}, {true, 4}} {
		if start(); made != story.labs {
			t.Errorf("story %d has lab %d, want %d", i+1, made, story.labs)
		}
		s.spoilt = story.failed
	}
	begun := 0
	failing := &stories{}
	start = failing.labs(func() *Lab { begun++; return nil }, another)
	start()
	failing.spoilt = true
	if start(); begun != 1 || failing.lab != nil {
		t.Errorf("a lab that could not be made was tried %d times", begun)
	}
}
