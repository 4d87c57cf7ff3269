package kube

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestAllComeBackWithTheFirst: an API server that was away is found by one watch,
// and then by all. Each on its own would be back up to half a minute later than
// another: a node that has heard of half of a change.
func TestAllComeBackWithTheFirst(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			const watches, outage = 9, 23 * time.Second
			shared, began := newEntrance(), time.Now()
			back := make(chan time.Duration, watches)
			for range watches {
				one := &turns{shared: shared, agents: func() int { return 3 }}
				one.began(nil)
				go func() {
					err := one.ask(t.Context(), false, func() error {
						if time.Since(began) < outage {
							return errors.New("connection refused")
						}
						return nil
					})
					if err != nil {
						t.Error(err)
					}
					back <- time.Since(began)
				}()
			}
			first := <-back
			for range watches - 1 {
				if last := <-back; last-first > 10*time.Millisecond {
					t.Errorf("one watch is back after %v, another after %v", first, last)
				}
			}
		})
	}
}

// TestRefusedIsNotAway: what the API server says itself goes to the reflector,
// which knows what to do about it.
func TestRefusedIsNotAway(t *testing.T) {
	one := &turns{shared: newEntrance(), agents: func() int { return 1 }}
	gone := &apierrors.StatusError{ErrStatus: metav1.Status{Code: http.StatusGone, Reason: metav1.StatusReasonExpired}}
	asked := 0
	err := one.ask(t.Context(), false, func() error { asked++; return gone })
	if !apierrors.IsResourceExpired(err) || asked != 1 {
		t.Errorf("after %d requests: %v", asked, err)
	}
}

// TestAskEndsWithContext: an agent that stops waits for nobody.
func TestAskEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := &turns{shared: newEntrance(), agents: func() int { return 1 }}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		err := one.ask(ctx, false, func() error { return errors.New("connection refused") })
		if err == nil || time.Since(began) > time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}
