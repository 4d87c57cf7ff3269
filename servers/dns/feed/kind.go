package feed

import (
	"encoding/json"
	"fmt"

	"github.com/fairlead-net/fairlead/model"
)

// line is what is said at once.
type line struct {
	Kind string          `json:"kind"`
	Put  json.RawMessage `json:"put,omitempty"`
	Gone json.RawMessage `json:"gone,omitempty"`
}

// kind is one sort of objects: how a difference is said, and understood.
type kind interface {
	// diff calls emit with what differs between two snapshots.
	diff(old, new *model.Snapshot, emit func(line) error) error
	// begin returns what takes lines of this kind, for one revision. All: what no
	// line is about is gone.
	begin(all bool) intake
}

// intake collects the lines of a kind, up to a revision.
type intake interface {
	take(l line) error
	// end changes the snapshot. What is equal to what was there stays the same
	// object, so that model.Diff finds nothing there.
	end(snapshot *model.Snapshot)
}

// objects are a kind of objects of the model, W being how they are written.
type objects[K comparable, V any, W any] struct {
	name string
	at   func(*model.Snapshot) *model.Map[K, *V]
	to   func(*V) *W // what of an object is said
	from func(*W) (K, *V)
	key  func(K) *W // with nothing but the name
	// hidden tells whether names do not depend on this kind; nil: they do.
	hidden func(*model.Snapshot) bool
}

// seen are the objects that are said.
func (o objects[K, V, W]) seen(s *model.Snapshot) model.Map[K, *V] {
	if o.hidden != nil && o.hidden(s) {
		return model.Map[K, *V]{}
	}
	return *o.at(s)
}

func (o objects[K, V, W]) line(w *W, gone bool) (l line, text string, err error) {
	raw, err := json.Marshal(w)
	if err != nil {
		return l, "", fmt.Errorf("write a %s: %w", o.name, err)
	}
	if gone {
		return line{Kind: o.name, Gone: raw}, "", nil
	}
	return line{Kind: o.name, Put: raw}, string(raw), nil
}

func (o objects[K, V, W]) diff(old, new *model.Snapshot, emit func(line) error) error {
	for change := range model.Diff(o.seen(old), o.seen(new)) {
		var l line
		var err error
		if !change.Has {
			l, _, err = o.line(o.key(change.Key), true)
		} else {
			var text, before string
			l, text, err = o.line(o.to(change.New), false)
			if change.Had && err == nil { // much of an object is of no concern to names
				_, before, err = o.line(o.to(change.Old), false)
				if before == text {
					continue
				}
			}
		}
		if err == nil {
			err = emit(l)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (o objects[K, V, W]) begin(all bool) intake {
	return &collected[K, V, W]{objects: o, all: all, put: map[K]*V{}}
}

// collected are objects that were put or are gone, nil, since the last revision.
type collected[K comparable, V any, W any] struct {
	objects[K, V, W]
	all bool
	put map[K]*V
}

func (c *collected[K, V, W]) take(l line) error {
	var w W
	raw, gone := l.Put, false
	if raw == nil {
		raw, gone = l.Gone, true
	}
	if err := json.Unmarshal(raw, &w); err != nil {
		return fmt.Errorf("read a %s: %w", c.name, err)
	}
	key, value := c.from(&w)
	if gone {
		value = nil
	}
	c.put[key] = value
	return nil
}

func (c *collected[K, V, W]) end(snapshot *model.Snapshot) {
	at := c.at(snapshot)
	if at.Len() == 0 {
		*at = model.Collect(func(yield func(K, *V) bool) {
			for key, value := range c.put {
				if value != nil && !yield(key, value) {
					return
				}
			}
		})
		return
	}
	for key, value := range c.put {
		old, had := at.Get(key)
		switch {
		case value == nil:
			*at = at.Without(key)
		case !had || !c.same(old, value):
			*at = at.With(key, value)
		}
	}
	if !c.all {
		return
	}
	for key := range at.All() { // of the map as it is now
		if c.put[key] == nil {
			*at = at.Without(key)
		}
	}
}

func (c *collected[K, V, W]) same(a, b *V) bool {
	_, left, err1 := c.line(c.to(a), false)
	_, right, err2 := c.line(c.to(b), false)
	return err1 == nil && err2 == nil && left == right
}
