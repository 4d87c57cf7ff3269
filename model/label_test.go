package model

import "testing"

// TestLabelsGet: a key is one from a comma to an equals sign, and no part of another
// key or of a value.
func TestLabelsGet(t *testing.T) {
	labels := LabelsOf(map[string]string{"app": "web", "app.kubernetes.io/name": "app", "my-app": "app", "tier": "", "zz-app": "last"})
	for key, want := range map[string]string{"app": "web", "app.kubernetes.io/name": "app", "my-app": "app", "tier": "", "zz-app": "last"} {
		if got, ok := labels.Get(key); !ok || got != want {
			t.Errorf("%s is %q, %v, want %q", key, got, ok, want)
		}
	}
	for _, key := range []string{"ap", "pp", "web", "name", "kubernetes.io/name", "last", "x"} {
		if got, ok := labels.Get(key); ok {
			t.Errorf("%s is %q, and no label of that name is there", key, got)
		}
	}
	if _, ok := (Labels{}).Get("app"); ok {
		t.Error("there is a label where there is none")
	}
}
