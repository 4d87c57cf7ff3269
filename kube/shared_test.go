package kube

import (
	"fmt"
	"slices"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// TestSharedLists: pods with the same named ports hold one list of them, and what
// no pod has any more is bounded.
func TestSharedLists(t *testing.T) {
	ports := newSharedLists[model.ContainerPort]()
	list := func(name string) []model.ContainerPort {
		return []model.ContainerPort{{Name: name, Protocol: model.TCP, Port: 80}, {Name: "metrics", Protocol: model.TCP, Port: 9090}}
	}
	first, second, other := ports.of(list("http")), ports.of(list("http")), ports.of(list("web"))
	if &first[0] != &second[0] || &first[0] == &other[0] {
		t.Error("equal lists are two, or different ones are one")
	}
	for i := range 3 * mostShared {
		if name := fmt.Sprint("port-", i); !slices.Equal(ports.of(list(name)), list(name)) {
			t.Fatalf("%s became another's", name)
		}
	}
	if len(ports.known) > mostShared {
		t.Errorf("%d lists are kept", len(ports.known))
	}
	if ports.of(nil) != nil {
		t.Error("no ports became some")
	}
}
