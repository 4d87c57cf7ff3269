package route

import (
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// claims are who says that something is theirs: names of nodes, sorted. The
// first has it; plan.Cluster names the others. The zero value is empty; it is
// immutable.
type claims[K comparable] struct{ names model.Map[K, *[]string] }

func (c claims[K]) with(key K, node string) claims[K] {
	var names []string
	if held, ok := c.names.Get(key); ok {
		names = slices.Clone(*held)
	}
	if at, ok := slices.BinarySearch(names, node); !ok {
		names = slices.Insert(names, at, node)
	}
	return claims[K]{c.names.With(key, &names)}
}

func (c claims[K]) without(key K, node string) claims[K] {
	held, ok := c.names.Get(key)
	if !ok {
		return c
	}
	left := slices.DeleteFunc(slices.Clone(*held), func(name string) bool { return name == node })
	if len(left) == 0 {
		return claims[K]{c.names.Without(key)}
	}
	return claims[K]{c.names.With(key, &left)}
}

// first is who has it; empty if nobody does.
func (c claims[K]) first(key K) string {
	if held, ok := c.names.Get(key); ok {
		return (*held)[0]
	}
	return ""
}
