package model

import "testing"

func TestUID(t *testing.T) {
	const text = "0b9a3c1e-7f64-4c8e-9d0c-00000000abcd"
	if got := UIDOf(text).String(); got != text {
		t.Errorf("%s became %s", text, got)
	}
	if UIDOf("") != (UID{}) || UIDOf("").String() != "" {
		t.Error("no UID became one")
	}
	seen := map[UID]string{}
	for _, text := range []string{
		"a", "b", "uid-of-web", text, "0b9a3c1e-7f64-4c8e-9d0c-0000000000", "0b9a3c1e+7f64-4c8e-9d0c-00000000abcd",
		"zzza3c1e-7f64-4c8e-9d0c-00000000abcd", "---------a3c1e-7f64-4c8e-9d0c-0000000",
	} {
		uid := UIDOf(text)
		if other, ok := seen[uid]; ok {
			t.Errorf("%s and %s are the same", text, other)
		}
		if again := UIDOf(uid.String()); again != uid {
			t.Errorf("%s does not keep its UID in a file", text)
		}
		seen[uid] = text
	}
}
