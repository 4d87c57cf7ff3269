package dns

import "time"

// Requests are queries of one sort that were answered since the start.
type Requests struct {
	Proto  string // udp or tcp
	Family string // 1 for IPv4, 2 for IPv6, as CoreDNS has it
	Zone   string // see Zones
	Type   string
	Count  uint64
}

// Responses are answers of one sort.
type Responses struct {
	Zone, Rcode string
	Count       uint64
}

// Durations are how long answers of one sort took: Buckets holds how many took at
// most as long as each bound, in seconds.
type Durations struct {
	Zone    string
	Count   uint64
	Sum     float64
	Buckets map[float64]uint64
}

// Totals are what else is counted.
type Totals struct {
	Completed uint64 // first queries of a search that had the answer of the last
	Truncated uint64 // answers that were too long
	Ignored   uint64 // messages that were no queries
	Strangers uint64 // queries of who is no client
	Lost      uint64 // answers that the kernel did not take

	Pending     int // queries that others are being asked for
	Connections int // of TCP
	Others      *Client
}

// zoneNames are the classes, as metrics call them.
func (s *Server) zoneNames() [classes]string {
	names := [classes]string{ofCluster: "cluster.local.", ofReverse: "arpa.", ofOutside: "."}
	if zone := s.served.Load().Zone; zone != nil {
		names[ofCluster] = zone.Origin.String()
	}
	return names
}

// Counts returns all that is counted. Sorts of which there was nothing are left
// out.
func (s *Server) Counts() (requests []Requests, responses []Responses, durations []Durations, totals Totals) {
	all := s.tallies()
	zones := s.zoneNames()
	for of, zone := range zones {
		for tcp, proto := range [...]string{"udp", "tcp"} {
			for six, family := range [...]string{"1", "2"} {
				for kind := range countedTypes {
					if n := sum(all, func(c *counts) uint64 { return c.requests[tcp][six][of][kind].Load() }); n > 0 {
						requests = append(requests, Requests{proto, family, zone, countedTypes[kind].name, n})
					}
				}
			}
		}
		for i, code := range countedCodes {
			if n := sum(all, func(c *counts) uint64 { return c.responses[of][i].Load() }); n > 0 {
				responses = append(responses, Responses{zone, code.String(), n})
			}
		}
		d := Durations{Zone: zone, Buckets: map[float64]uint64{}}
		for i := range len(durationBounds) + 1 {
			d.Count += sum(all, func(c *counts) uint64 { return c.durations[of][i].Load() })
			if i < len(durationBounds) {
				d.Buckets[durationBounds[i]] = d.Count
			}
		}
		d.Sum = time.Duration(sum(all, func(c *counts) uint64 { return uint64(c.sums[of].Load()) })).Seconds()
		durations = append(durations, d)
	}
	return requests, responses, durations, s.totals(all)
}

func (s *Server) totals(all []*counts) Totals {
	t := Totals{
		Completed: sum(all, func(c *counts) uint64 { return c.completed.Load() }),
		Truncated: sum(all, func(c *counts) uint64 { return c.cut.Load() }),
		Ignored:   sum(all, func(c *counts) uint64 { return c.ignored.Load() }),
		Strangers: sum(all, func(c *counts) uint64 { return c.strangers.Load() }),
		Lost:      sum(all, func(c *counts) uint64 { return c.lost.Load() }),
		Others:    &s.others,
	}
	s.pending.mu.Lock()
	t.Pending = s.pending.all
	s.pending.mu.Unlock()
	s.places.mu.Lock()
	t.Connections = s.places.all
	s.places.mu.Unlock()
	return t
}

func sum(all []*counts, of func(*counts) uint64) (n uint64) {
	for _, c := range all {
		n += of(c)
	}
	return n
}

// tallies are those of all loops, and of what loops do not do themselves.
func (s *Server) tallies() []*counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*counts{&s.counts}, s.loops...)
}
