package main

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// bouncesAtOnce is how many round trips are timed as one, so that looking at the
// clock is little of it.
const bouncesAtOnce = 8

// bounces returns how many bytes go to the other end and come back in a second,
// one after the other: without the slowest in twenty, in which something else had
// the processor.
func (w *world) bounces(duration time.Duration) (float64, error) {
	times, err := w.bouncing(duration)
	if err != nil {
		return 0, err
	}
	slices.Sort(times)
	times = times[:len(times)-len(times)/20]
	sum := 0.0
	for _, seconds := range times {
		sum += seconds
	}
	return float64(len(times)) / sum, nil
}

// bouncesFast returns the inverse of the median round trip, in seconds.
func (w *world) bouncesFast(duration time.Duration) (float64, error) {
	times, err := w.bouncing(duration)
	if err != nil {
		return 0, err
	}
	return 1 / times.median(), nil
}

// bouncing returns the seconds that round trips took over a connection that is
// there: two packets, each through both nodes. One thread is both ends, as in
// connecting, so that next to nothing but these is measured.
func (w *world) bouncing(duration time.Duration) (times sample, err error) {
	client, server, err := w.connection()
	if err != nil {
		return nil, err
	}
	defer unix.Close(client)
	defer unix.Close(server)
	defer w.on(0)()
	b := make([]byte, 1)
	pass := func(from, to int) error {
		if _, err := unix.Write(from, b); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		if n, err := unix.Read(to, b); n != 1 || err != nil {
			return fmt.Errorf("the other end is gone: %w", err)
		}
		return nil
	}
	for began := time.Now(); time.Since(began) < duration; {
		one := time.Now()
		for range bouncesAtOnce {
			if err := pass(client, server); err != nil {
				return nil, err
			}
			if err := pass(server, client); err != nil {
				return nil, err
			}
		}
		times = append(times, time.Since(one).Seconds()/bouncesAtOnce)
	}
	return times, nil
}
