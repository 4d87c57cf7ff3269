package agent

import "sync"

// watched is a value that others wait for a change of. The zero value holds
// the zero T.
type watched[T any] struct {
	mu      sync.Mutex
	value   T
	changed chan struct{} // closed and replaced at each change
}

func (w *watched[T]) set(value T) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.value = value
	if w.changed != nil {
		close(w.changed)
	}
	w.changed = make(chan struct{})
}

// get returns the value and a channel that is closed when there is another.
func (w *watched[T]) get() (T, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changed == nil {
		w.changed = make(chan struct{})
	}
	return w.value, w.changed
}
