package cli

import (
	"slices"
	"testing"
)

func TestLeadingName(t *testing.T) {
	for _, test := range []struct {
		args []string
		name string
		rest []string
	}{
		{[]string{"get", "pods"}, "lab", []string{"get", "pods"}},
		{[]string{"--name", "two", "get", "pods"}, "two", []string{"get", "pods"}},
		{[]string{"--name=two", "get"}, "two", []string{"get"}},
		{[]string{"run", "--name=two"}, "lab", []string{"run", "--name=two"}},
		{nil, "lab", nil},
	} {
		if name, rest := leadingName(test.args, "lab"); name != test.name || !slices.Equal(rest, test.rest) {
			t.Errorf("%q: name %s, rest %q; want %s, %q", test.args, name, rest, test.name, test.rest)
		}
	}
}

func TestParseRate(t *testing.T) {
	for text, want := range map[string]uint64{"0": 0, "800": 800, "800kbit": 800_000, "10Mbit": 10_000_000, "2gbit": 2_000_000_000} {
		if got, err := parseRate(text); err != nil || got != want {
			t.Errorf("%s is %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "fast", "-1", "10mb", "1.5gbit"} {
		if got, err := parseRate(text); err == nil {
			t.Errorf("%q is %d, want an error", text, got)
		}
	}
}
