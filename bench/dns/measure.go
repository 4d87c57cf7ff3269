package main

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"
)

// figures are those of one run.
type figures struct {
	throughput, perCPU float64 // queries, each second of the clock and of CPU, as fast as it can
	lost               int
	p50, p99           time.Duration // at the rate of the settings
	resident, peak     float64       // bytes, after the load
	start              time.Duration // from its start to the first right answer
}

// measure starts a server, and asks it each mix.
func measure(of server, objects *cluster, s settings) (map[string]figures, error) {
	at, err := freeAddress()
	if err != nil {
		return nil, err
	}
	p, err := of.start(at)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	mixes := objects.mixes()
	took, err := p.answers(at, mixes[0].queries[0])
	if err != nil {
		return nil, err
	}
	all := map[string]figures{}
	for _, mix := range mixes {
		if _, err := shoot(at, mix.queries, time.Second, 0); err != nil { // warms up
			return nil, err
		}
		before, err := p.cpu()
		if err != nil {
			return nil, err
		}
		var fast outcome
		if s.dnsperf {
			var file string
			if file, err = mix.file(s.dir); err == nil {
				fast, err = dnsperf(at, file, s.during)
			}
		} else {
			fast, err = shoot(at, mix.queries, s.during, 0)
		}
		if err != nil {
			return nil, err
		}
		after, err := p.cpu()
		if err != nil {
			return nil, err
		}
		steady, err := shoot(at, mix.queries, s.during, s.rate)
		if err != nil {
			return nil, err
		}
		f := figures{
			throughput: float64(fast.answered) / fast.took.Seconds(), perCPU: float64(fast.answered) / (after - before).Seconds(),
			lost: fast.lost + steady.lost, p50: steady.percentile(50), p99: steady.percentile(99), start: took,
		}
		if f.resident, f.peak, err = p.memory(); err != nil {
			return nil, err
		}
		all[mix.name] = f
	}
	return all, nil
}

// answers waits for the first right answer.
func (p *process) answers(at netip.AddrPort, query []byte) (time.Duration, error) {
	for time.Since(p.began) < 30*time.Second {
		conn, err := net.Dial("udp", at.String())
		if err != nil {
			return 0, err
		}
		_ = conn.SetDeadline(time.Now().Add(50 * time.Millisecond))
		_, _ = conn.Write(query)
		var answer [1500]byte
		n, err := conn.Read(answer[:])
		_ = conn.Close()
		if err == nil && n > 12 && answer[3]&0xf == 0 && answer[7] > 0 {
			return time.Since(p.began), nil
		}
		time.Sleep(2 * time.Millisecond) // nobody tells
	}
	log, _ := os.ReadFile(p.log)
	return 0, fmt.Errorf("it does not answer:\n%s", log)
}

func freeAddress() (netip.AddrPort, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("find a port: %w", err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).AddrPort(), nil
}

// median takes that of each figure by itself.
func median(all []figures) (f figures) {
	pick := func(of func(figures) float64) float64 {
		values := make([]float64, 0, len(all))
		for _, one := range all {
			values = append(values, of(one))
		}
		slices.SortFunc(values, cmp.Compare[float64])
		return values[len(values)/2]
	}
	return figures{
		throughput: pick(func(f figures) float64 { return f.throughput }),
		perCPU:     pick(func(f figures) float64 { return f.perCPU }),
		lost:       int(pick(func(f figures) float64 { return float64(f.lost) })),
		p50:        time.Duration(pick(func(f figures) float64 { return float64(f.p50) })),
		p99:        time.Duration(pick(func(f figures) float64 { return float64(f.p99) })),
		resident:   pick(func(f figures) float64 { return f.resident }),
		peak:       pick(func(f figures) float64 { return f.peak }),
		start:      time.Duration(pick(func(f figures) float64 { return float64(f.start) })),
	}
}
