package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/miekg/dns"
)

// mix is what is asked.
type mix struct {
	name    string
	queries [][]byte
	lines   []byte // the same, as dnsperf reads it
}

func (m *mix) ask(name string, kind uint16) {
	query := new(dns.Msg).SetQuestion(name, kind)
	query.Id = 0
	query.SetEdns0(1232, false)
	raw, err := query.Pack()
	if err != nil {
		panic(err) // our own names
	}
	m.queries = append(m.queries, raw)
	m.lines = fmt.Appendf(m.lines, "%s %s\n", name, dns.TypeToString[kind])
}

// file writes it for dnsperf.
func (m *mix) file(dir string) (string, error) {
	path := filepath.Join(dir, m.name+".queries")
	if err := os.WriteFile(path, m.lines, 0o644); err != nil {
		return "", fmt.Errorf("write the queries: %w", err)
	}
	return path, nil
}

// Numbers of the mixes: queries, and names of the outside.
const (
	mixSize = 20_000
	outside = 200
)

// mixes are like those of kubernetes/perf-tests: names of Services; those, what a
// search path adds to them, and other types; names of the outside, with all that
// a pod's search path makes of them; and both halves.
func (c *cluster) mixes() []mix {
	random := rand.New(rand.NewPCG(1, 2))
	services, all := mix{name: "services"}, mix{name: "all"}
	for n := range mixSize {
		i := random.IntN(c.services)
		namespace, name := key(i)
		full := name + "." + namespace + ".svc.cluster.local."
		services.ask(full, dns.TypeA)
		switch {
		case n%20 < 9:
			all.ask(full, dns.TypeA)
		case n%20 < 13:
			all.ask(full, dns.TypeAAAA)
		case n%20 < 17:
			all.ask(fmt.Sprintf("name-%d.namespace-7.svc.cluster.local.", n), dns.TypeA)
		case n%20 < 19:
			all.ask("_http._tcp."+full, dns.TypeSRV)
		default:
			reverse, _ := dns.ReverseAddr(clusterIP(i).String())
			if c.isHeadless(i) {
				reverse, _ = dns.ReverseAddr(podIP(i, 0).String())
			}
			all.ask(reverse, dns.TypePTR)
		}
	}
	searched, half := mix{name: "outside"}, mix{name: "half"}
	for len(searched.queries) < mixSize {
		name := fmt.Sprintf("www-%d.example.com.", random.IntN(outside))
		for _, domain := range []string{"namespace-7.svc.cluster.local.", "svc.cluster.local.", "cluster.local.", ""} {
			for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
				searched.ask(name+domain, kind)
				half.ask(name+domain, kind)
				namespace, service := key(random.IntN(c.services))
				half.ask(service+"."+namespace+".svc.cluster.local.", kind)
			}
		}
	}
	return []mix{services, all, searched, half}
}
