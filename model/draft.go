package model

// Draft is a Map that is being edited. The first edits of an empty map, which may
// be thousands, are kept in an ordinary one until it is finished: With for each
// would leave many times its size behind. Not safe for concurrent use.
type Draft[K, V comparable] struct {
	from  Map[K, V]
	fresh map[K]V // instead of from, if that was empty at first
}

// DraftOf begins with what is in a map.
func DraftOf[K, V comparable](from Map[K, V]) *Draft[K, V] { return &Draft[K, V]{from: from} }

// Get returns the value of key.
func (d *Draft[K, V]) Get(key K) (V, bool) {
	if d.from.size == 0 {
		value, ok := d.fresh[key]
		return value, ok
	}
	return d.from.Get(key)
}

// Put gives key a value.
func (d *Draft[K, V]) Put(key K, value V) {
	switch {
	case d.from.size > 0:
		d.from = d.from.With(key, value)
	case d.fresh == nil:
		d.fresh = map[K]V{key: value}
	default:
		d.fresh[key] = value
	}
}

// Remove takes out key.
func (d *Draft[K, V]) Remove(key K) {
	if d.from.size == 0 {
		delete(d.fresh, key)
		return
	}
	d.from = d.from.Without(key)
}

// Map returns what has come of it. The draft may be edited further.
func (d *Draft[K, V]) Map() Map[K, V] {
	if d.from.size == 0 {
		d.from, d.fresh = MapOf(d.fresh), nil
	}
	return d.from
}
