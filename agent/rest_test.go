package agent

import (
	"runtime/debug"
	counts "runtime/metrics"
	"testing"
	"time"
)

// At the start, garbage is a part of what lives only if that is much.
func TestGarbageOf(t *testing.T) {
	for live, want := range map[uint64]int{0: 400, 1 << 20: 400, 6 << 20: 200, 12 << 20: 100, 24 << 20: 50, 60 << 20: 20, 1 << 30: 20} {
		if got := garbageOf(live); got != want {
			t.Errorf("of %d bytes: %d %%, not %d", live, got, want)
		}
	}
}

// TestGarbageOfTheStart: how much may pile up is set until the start is over, and
// then as it is to stay, unless somebody has set it.
func TestGarbageOfTheStart(t *testing.T) {
	before := debug.SetGCPercent(77)
	defer debug.SetGCPercent(before)
	for _, may := range []bool{false, true} {
		began := make(chan struct{})
		r := &rest{began: began}
		ended := make(chan bool)
		go func() { ended <- r.start(t.Context(), may) }()
		now := func() int { // reads it without setting it
			sample := []counts.Sample{{Name: "/gc/gogc:percent"}}
			counts.Read(sample)
			return int(sample[0].Value.Uint64())
		}
		for may && now() == 77 {
			time.Sleep(time.Millisecond)
		}
		close(began)
		if !<-ended {
			t.Error("the start was not over")
		}
		if want := map[bool]int{false: 77, true: atAnyTime}[may]; now() != want {
			t.Errorf("after the start: %d %%, not %d", now(), want)
		}
	}
}
