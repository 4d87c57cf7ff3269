package main

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// figures are those of one run.
type figures struct {
	rate     float64       // of the clock
	each     float64       // seconds of CPU
	p50, p99 time.Duration // 0: they are not measured
}

// load is something to do.
type load struct {
	name, unit string
	// shoot does it for a while, and returns how often.
	shoot func(plain, secure string, s settings) (n float64, p50, p99 time.Duration, err error)
}

func loads() []load {
	return []load{
		{"small", "requests", func(plain, _ string, s settings) (float64, time.Duration, time.Duration, error) {
			return wrk("http://"+plain+"/small", s, 1)
		}},
		{"paced", "requests", paced},
		{"large", "MB", func(plain, _ string, s settings) (float64, time.Duration, time.Duration, error) {
			return wrk("http://"+plain+"/large", s, 16.777)
		}},
		{"small-tls", "requests", func(_, secure string, s settings) (float64, time.Duration, time.Duration, error) {
			return wrk("https://"+secure+"/small", s, 1)
		}},
		{"large-tls", "MB", func(_, secure string, s settings) (float64, time.Duration, time.Duration, error) {
			return wrk("https://"+secure+"/large", s, 16.777)
		}},
		{"small-h2", "requests", func(_, secure string, s settings) (float64, time.Duration, time.Duration, error) {
			return h2load("https://"+secure+"/small", s)
		}},
		{"handshakes", "handshakes", shakeHands},
	}
}

// measure starts a proxy, and gives it one load.
func measure(of proxy, l load, s settings) (f figures, err error) {
	p, plain, secure, err := of.start()
	if err != nil {
		return f, err
	}
	defer p.stop()
	warm := s
	warm.during = time.Second
	if _, _, _, err := l.shoot(plain, secure, warm); err != nil {
		return f, err
	}
	before, err := p.cpu()
	if err != nil {
		return f, err
	}
	began := time.Now()
	n, p50, p99, err := l.shoot(plain, secure, s)
	if err != nil {
		return f, err
	}
	took := time.Since(began)
	after, err := p.cpu()
	if err != nil {
		return f, err
	}
	return figures{rate: n / took.Seconds(), each: (after - before).Seconds() / n, p50: p50, p99: p99}, nil
}

var (
	wrkCount = regexp.MustCompile(`(\d+) requests in`)
	wrkP50   = regexp.MustCompile(`(?m)^\s+50%\s+(\S+)`)
	wrkP99   = regexp.MustCompile(`(?m)^\s+99%\s+(\S+)`)
	wrkBad   = regexp.MustCompile(`Non-2xx.*|Socket errors.*`)
)

func wrk(url string, s settings, each float64) (n float64, p50, p99 time.Duration, err error) {
	clients := s.clients
	if each > 1 {
		clients = 4
	}
	out, err := exec.Command("wrk", "-t1", "-c"+strconv.Itoa(clients), "-d"+strconv.Itoa(int(s.during.Seconds()))+"s", "--latency", url).CombinedOutput()
	if err != nil {
		return 0, 0, 0, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	if bad := wrkBad.Find(out); bad != nil {
		return 0, 0, 0, fmt.Errorf("wrk: %s", bad)
	}
	find := func(of *regexp.Regexp) string {
		if m := of.FindSubmatch(out); m != nil {
			return string(m[1])
		}
		return ""
	}
	count, err := strconv.ParseFloat(find(wrkCount), 64)
	p50, _ = time.ParseDuration(find(wrkP50))
	p99, _ = time.ParseDuration(find(wrkP99))
	return count * each, p50, p99, err
}

var h2Count = regexp.MustCompile(`(\d+) succeeded, 0 failed`)

// h2load asks by HTTP/2, on a few connections of some streams each.
func h2load(url string, s settings) (n float64, p50, p99 time.Duration, err error) {
	seconds := strconv.Itoa(int(s.during.Seconds()))
	out, err := exec.Command("h2load", "-t1", "-c4", "-m"+strconv.Itoa(s.clients/4), "-D"+seconds, url).CombinedOutput()
	if err != nil {
		return 0, 0, 0, fmt.Errorf("h2load: %w\n%s", err, out)
	}
	m := h2Count.FindSubmatch(out)
	if m == nil {
		return 0, 0, 0, fmt.Errorf("h2load: requests failed:\n%s", out)
	}
	n, err = strconv.ParseFloat(string(m[1]), 64)
	return n, 0, 0, err
}

// shakeHands makes connections of TLS 1.3 as fast as it can, each a whole handshake.
func shakeHands(_, secure string, s settings) (n float64, p50, p99 time.Duration, err error) {
	var done sync.WaitGroup
	var count atomic.Int64
	var failed atomic.Pointer[error]
	end := time.Now().Add(s.during)
	for range 8 {
		done.Go(func() {
			for time.Now().Before(end) && failed.Load() == nil {
				if err := shake(secure); err != nil {
					failed.Store(&err)
					return
				}
				count.Add(1)
			}
		})
	}
	done.Wait()
	if err := failed.Load(); err != nil {
		return 0, 0, 0, *err
	}
	return float64(count.Load()), 0, 0, nil
}

func shake(at string) error {
	conn, err := net.Dial("tcp", at)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetLinger(0) // so that no port waits
	// Who they are does not matter here, and would cost the client time.
	return tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519}}).Handshake()
}

// median takes that of each figure by itself.
func median(all []figures) figures {
	by := func(of func(a, b figures) int) figures {
		sorted := slices.Clone(all)
		slices.SortFunc(sorted, of)
		return sorted[len(sorted)/2]
	}
	f := by(func(a, b figures) int { return cmp.Compare(a.each, b.each) })
	f.p50 = by(func(a, b figures) int { return cmp.Compare(a.p50, b.p50) }).p50
	f.p99 = by(func(a, b figures) int { return cmp.Compare(a.p99, b.p99) }).p99
	f.rate = by(func(a, b figures) int { return cmp.Compare(a.rate, b.rate) }).rate
	return f
}
