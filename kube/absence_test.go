package kube

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestAbsence: of what an API server does not have it is asked some times an hour, and of
// what it may have soon as often as client-go likes.
func TestAbsence(t *testing.T) {
	for patient, want := range map[bool]int{true: impatient + 5, false: 120} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			a, asked := absence{patient: patient}, 0
			for a.wait(ctx) == nil && ctx.Err() == nil {
				asked++
				a.noted(true)
				time.Sleep(30 * time.Second)
			}
			if asked < want-2 || asked > want+2 {
				t.Errorf("patient %t: asked %d times in an hour, want %d", patient, asked, want)
			}
			a.noted(false)
			if a.pause() != 0 {
				t.Error("it waits although it is there")
			}
		})
	}
}
