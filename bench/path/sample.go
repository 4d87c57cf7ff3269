package main

import (
	"fmt"
	"math"
	"slices"
)

// sample is a list of measurements.
type sample []float64

func (s sample) median() float64 {
	sorted := slices.Sorted(slices.Values(s))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}

// interval is that of the median, with a confidence of at least 95 %, from the
// order of the measurements alone (the sign test).
func (s sample) interval() (low, high float64) {
	sorted := slices.Sorted(slices.Values(s))
	n := len(sorted)
	below, rank := 0.0, 0 // probability that fewer than rank of n lie below the median
	for ; rank < n/2; rank++ {
		p := math.Exp(logChoose(n, rank) - float64(n)*math.Ln2)
		if below+p > 0.025 {
			break
		}
		below += p
	}
	rank = max(rank-1, 0)
	return sorted[rank], sorted[n-1-rank]
}

func logChoose(n, k int) float64 {
	a, _ := math.Lgamma(float64(n + 1))
	b, _ := math.Lgamma(float64(k + 1))
	c, _ := math.Lgamma(float64(n - k + 1))
	return a - b - c
}

func (s sample) String() string {
	low, high := s.interval()
	return fmt.Sprintf("%.3f (%.3f–%.3f)", s.median(), low, high)
}
