package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/quic-go/quic-go/http3"
)

// compareHTTP3 measures small requests by HTTP/3 beside the same by HTTP/2, of one
// proxy: few of the others speak HTTP/3, and the same client asks both.
func compareHTTP3(s settings, of proxy, to io.Writer) error {
	loads := []load{
		{"small-h2 by Go", "requests", func(_, secure string, s settings) (float64, time.Duration, time.Duration, error) {
			return multiplexed(secure, s, func(c *tls.Config) http.RoundTripper {
				return &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true, DisableCompression: true}
			})
		}},
		{"small-h3 by Go", "requests", func(_, secure string, s settings) (float64, time.Duration, time.Duration, error) {
			return multiplexed(secure, s, func(c *tls.Config) http.RoundTripper {
				return &http3.Transport{TLSClientConfig: c, DisableCompression: true}
			})
		}},
	}
	got := make([][]figures, len(loads))
	for range s.runs {
		for i, load := range loads {
			f, err := measure(of, load, s)
			if err != nil {
				return fmt.Errorf("%s of %s: %w", load.name, of.name, err)
			}
			got[i] = append(got[i], f)
		}
	}
	base := median(got[0])
	for i, load := range loads {
		f := median(got[i])
		fmt.Fprintf(to, "%s\t%s\t%.0f %s\t%.1f µs\t%.2f of its HTTP/2\t%s\t%s\n", load.name, of.name, f.rate, load.unit, f.each*1e6, f.each/base.each, f.p50, f.p99)
	}
	return nil
}

// multiplexed asks on a few connections, with some requests under way on each.
func multiplexed(secure string, s settings, transport func(*tls.Config) http.RoundTripper) (n float64, p50, p99 time.Duration, err error) {
	const connections = 4
	ctx, cancel := context.WithTimeout(context.Background(), s.during+10*time.Second)
	defer cancel()
	each := max(s.clients/connections, 1)
	took := make([][]time.Duration, connections*each)
	failed := make([]error, connections*each)
	end := time.Now().Add(s.during)
	var asking sync.WaitGroup
	for i := range connections {
		by := transport(&tls.Config{ServerName: "bench", InsecureSkipVerify: true})
		if closes, ok := by.(io.Closer); ok {
			defer closes.Close()
		} else {
			defer by.(*http.Transport).CloseIdleConnections()
		}
		if err := askOne(ctx, by, secure); err != nil { // which makes the connection
			return 0, 0, 0, err
		}
		for k := i * each; k < (i+1)*each; k++ {
			asking.Go(func() {
				for began := time.Now(); began.Before(end) && failed[k] == nil; began = time.Now() {
					failed[k] = askOne(ctx, by, secure)
					took[k] = append(took[k], time.Since(began))
				}
			})
		}
	}
	asking.Wait()
	for _, err := range failed {
		if err != nil {
			return 0, 0, 0, err
		}
	}
	all := slices.Sorted(slices.Values(slices.Concat(took...)))
	return float64(len(all)), all[len(all)*50/100], all[len(all)*99/100], nil
}

func askOne(ctx context.Context, by http.RoundTripper, at string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+at+"/small", http.NoBody)
	if err != nil {
		return err
	}
	response, err := by.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("answer %s", response.Status)
	}
	return nil
}
