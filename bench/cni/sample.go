package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

func quantile(sample []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(sample))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// ratio is the median of the ratios of pairs, and the interval that has it with
// a probability of 95 %: the order statistics of the binomial distribution, in
// its normal approximation.
func ratio(a, b []float64) (low, median, high float64) {
	var ratios []float64
	for i := range a {
		ratios = append(ratios, a[i]/b[i])
	}
	slices.Sort(ratios)
	n := float64(len(ratios))
	off := 1.96 * math.Sqrt(n) / 2
	at := func(i float64) float64 { return ratios[min(max(int(i), 0), len(ratios)-1)] }
	return at(n/2 - off), at(n / 2), at(n/2 + off)
}

// between tells the shares of what a histogram counted between two readings.
func between(before, after []string) string {
	counts := func(lines []string) (bounds []string, values []float64) {
		for _, line := range lines {
			_, rest, _ := strings.Cut(line, `le="`)
			bound, _, _ := strings.Cut(rest, `"`)
			value, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
			if err != nil {
				continue
			}
			bounds, values = append(bounds, bound), append(values, value)
		}
		return bounds, values
	}
	_, old := counts(before)
	bounds, now := counts(after)
	var text strings.Builder
	total := now[len(now)-1] - old[len(old)-1]
	for i, bound := range bounds {
		if share := (now[i] - old[i]) / total; share > 0 {
			fmt.Fprintf(&text, "  within %s s: %5.1f %%\n", bound, 100*share)
			if share == 1 {
				break
			}
		}
	}
	return text.String()
}
