package main

import (
	"os"
	"reflect"
	"testing"
	"time"
)

// TestProcessors: a process that uses too much for too long is told of once, and again
// when it had ended or been still; not while it starts, nor for what it does in windows.
func TestProcessors(t *testing.T) {
	type span struct{ from, until int }
	always := []span{{0, 1000}}
	for name, test := range map[string]struct {
		spins   []span // 90 % of a core; else 10 %
		windows []span
		starts  []int // of another process, besides that at 0
		told    []int
	}{
		"never":                  {},
		"from its start":         {spins: always, told: []int{60}},
		"while it starts":        {spins: []span{{0, 40}}},
		"later":                  {spins: []span{{50, 1000}}, told: []int{70}}, // then half of 30 s
		"in bursts":              {spins: []span{{50, 60}, {80, 90}, {110, 120}}},
		"in a window":            {spins: []span{{50, 90}}, windows: []span{{52, 80}}},
		"on after a window":      {spins: []span{{50, 1000}}, windows: []span{{52, 55}}, told: []int{90}},
		"windows follow":         {spins: always, windows: []span{{35, 36}, {55, 56}, {75, 76}, {95, 96}, {115, 116}, {135, 136}, {155, 156}, {175, 176}, {195, 196}}},
		"another one":            {spins: always, starts: []int{45}, told: []int{110}},
		"told, and another one":  {spins: always, starts: []int{75}, told: []int{60, 140}},
		"still, and then again":  {spins: []span{{0, 60}, {100, 1000}}, told: []int{60, 120}},
		"a window when it is so": {spins: always, windows: []span{{85, 95}}, told: []int{60}},
	} {
		var p processors
		var told []int
		began, used := 0, time.Duration(0)
		within := func(spans []span, second int) bool {
			for _, s := range spans {
				if second >= s.from && second < s.until {
					return true
				}
			}
			return false
		}
		at := func(second int) time.Time { return time.Unix(int64(second), 0) }
		for second := range 200 {
			for _, start := range test.starts {
				if second == start {
					began, used = start, 0
				}
			}
			if second%10 == 0 {
				_, broken := p.read("node1", reading{100 + began, time.Duration(second-began) * time.Second, at(second), used}, func(from, until time.Time) bool {
					for s := int(from.Unix()); s <= int(until.Unix()); s++ {
						if within(test.windows, s) {
							return true
						}
					}
					return false
				})
				if broken != "" {
					told = append(told, second)
				}
			}
			if within(test.spins, second) {
				used += 900 * time.Millisecond
			} else {
				used += 100 * time.Millisecond
			}
		}
		if !reflect.DeepEqual(told, test.told) {
			t.Errorf("%s: told at %v, want %v", name, told, test.told)
		}
	}
}

// TestProcessorUse: it is that since the reading before, of the first one that since the
// process started, and of one at the same time that of before.
func TestProcessorUse(t *testing.T) {
	var p processors
	at := time.Unix(1000, 0)
	for i, test := range []struct {
		where place
		pid   int
		after time.Duration
		used  time.Duration
		want  int64
	}{
		{"node1", 7, 0, 10 * time.Second, 10},
		{"node1", 7, 10 * time.Second, 12 * time.Second, 20},
		{"node2", 8, 10 * time.Second, time.Second, 1},
		{"node1", 7, 10*time.Second + 500*time.Millisecond, 13 * time.Second, 20},
		{"node1", 7, 20 * time.Second, 13 * time.Second, 10},
		{"node1", 9, 30 * time.Second, 2 * time.Second, 2},
	} {
		now := reading{test.pid, 100 * time.Second, at.Add(test.after), test.used}
		if use, broken := p.read(test.where, now, func(time.Time, time.Time) bool { return false }); use != test.want || broken != "" {
			t.Errorf("reading %d: %d %% of a core, want %d; broken %q", i, use, test.want, broken)
		}
	}
}

// TestUsedBy: it is what this process uses.
func TestUsedBy(t *testing.T) {
	before, ok := usedBy(os.Getpid())
	if !ok {
		t.Fatal("this process is not found")
	}
	limit := time.Now().Add(time.Minute)
	for after := before; after < before+100*time.Millisecond; after, _ = usedBy(os.Getpid()) {
		if time.Now().After(limit) {
			t.Fatalf("%s after a minute, %s before", after, before)
		}
	}
	if age, ok := ageOf(os.Getpid()); !ok || age < 0 || age > time.Hour {
		t.Errorf("its age is %s, %t", age, ok)
	}
	if _, ok := usedBy(1 << 30); ok {
		t.Error("there is a process that there is not")
	}
}
