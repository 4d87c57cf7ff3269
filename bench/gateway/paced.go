package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// paced asks at a rate that both proxies have time for, from some connections, and
// tells how long answers took from when they were to be asked for: one that has to
// wait for another one's answer has waited.
func paced(plain, _ string, s settings) (n float64, p50, p99 string, err error) {
	const connections = 16
	each := time.Second * connections / time.Duration(s.rate)
	var asking sync.WaitGroup
	took := make([][]time.Duration, connections)
	failed := make([]error, connections)
	began := time.Now()
	for i := range connections {
		asking.Go(func() {
			took[i], failed[i] = pace(plain, began.Add(each*time.Duration(i)/connections), each, s.during)
		})
	}
	asking.Wait()
	var all []time.Duration
	for i := range connections {
		if failed[i] != nil {
			return 0, "", "", failed[i]
		}
		all = append(all, took[i]...)
	}
	slices.Sort(all)
	at := func(percent int) string { return all[len(all)*percent/100].Round(time.Microsecond).String() }
	return float64(len(all)), at(50), at(99), nil
}

// pace asks on one connection.
func pace(at string, next time.Time, each, during time.Duration) (took []time.Duration, err error) {
	conn, err := net.Dial("tcp", at)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	for end := next.Add(during); next.Before(end); next = next.Add(each) {
		time.Sleep(time.Until(next))
		if _, err := io.WriteString(conn, "GET /small HTTP/1.1\r\nHost: bench\r\n\r\n"); err != nil {
			return nil, err
		}
		response, err := http.ReadResponse(in, nil)
		if err != nil {
			return nil, err
		}
		if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("answer %d: %w", response.StatusCode, err)
		}
		took = append(took, time.Since(next))
	}
	return took, nil
}
