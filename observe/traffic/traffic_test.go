package traffic

import (
	"math"
	"reflect"
	"testing"
)

func place(host string) Place { return Place{Host: host, Path: "/"} }

// TestSince: what is new counts, and of a route that began anew all of it.
func TestSince(t *testing.T) {
	before := []Route{
		{Place: place("a"), Requests: 10, Errors: 2, Sent: 100, Took: []uint64{10, 0}}, {Place: place("b"), Requests: 5},
		{Place: place("again"), Requests: 50, Took: []uint64{50, 0}},
	}
	after := []Route{
		{Place: place("a"), Requests: 13, Errors: 3, Refused: 1, Sent: 150, Took: []uint64{12, 1}}, {Place: place("b"), Requests: 5},
		{Place: place("again"), Requests: 4, Took: []uint64{0, 4}},
	}
	want := []Route{
		{Place: place("again"), Requests: 4, Took: []uint64{0, 4}, Total: 4},
		{Place: place("a"), Requests: 3, Errors: 1, Refused: 1, Sent: 50, Took: []uint64{2, 1}, Total: 13},
	}
	if got := Since(before, after); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if after[0].Took[0] != 12 {
		t.Error("it has changed what it was given")
	}
}

// TestMerge: the requests of all gateways are added up, and so is how long they
// took.
func TestMerge(t *testing.T) {
	bounds := []float64{1, 2}
	got := Merge(
		&Report{Seconds: 2, Bounds: bounds, Routes: []Route{{Place: place("a"), Requests: 2, Took: []uint64{2, 0, 0}, Total: 7}}},
		&Report{Seconds: 3, Bounds: bounds, Routes: []Route{{Place: place("a"), Requests: 2, Took: []uint64{0, 2, 0}, Total: 1}, {Place: place("b"), Requests: 9, Took: []uint64{0, 0, 9}}}},
		&Report{Seconds: 1, Bounds: []float64{1}, Routes: []Route{{Place: place("a"), Requests: 1, Took: []uint64{1, 0}}}},
	)
	want := &Report{Seconds: 3, Bounds: bounds, Routes: []Route{
		{Place: place("b"), Requests: 9, Took: []uint64{0, 0, 9}, P50: 2, P99: 2},
		{Place: place("a"), Requests: 5, Took: []uint64{2, 2, 0}, Total: 8, P50: 1, P99: 1.98},
	}}
	got.Routes[1].P99 = math.Round(got.Routes[1].P99*100) / 100
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		counts []uint64
		share  float64
		want   float64
	}{
		{[]uint64{0, 0, 0}, 0.5, 0}, {[]uint64{10, 0, 0}, 0.5, 0.5}, {[]uint64{0, 10, 0}, 0.5, 1.5},
		{[]uint64{0, 0, 3}, 0.5, 2}, {[]uint64{5, 5, 0}, 0.75, 1.5}, {nil, 0.5, 0},
	} {
		if got := Quantile([]float64{1, 2}, c.counts, c.share); got != c.want {
			t.Errorf("%v of %v: %v, want %v", c.share, c.counts, got, c.want)
		}
	}
}
