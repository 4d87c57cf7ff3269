package dns

import (
	"sync/atomic"
	"time"
)

// class is whose a name is.
type class uint8

// The classes.
const (
	ofCluster class = iota // below the cluster's domain
	ofReverse              // the name of an address of the cluster's ranges
	ofOutside              // everybody else's, and what is no question
	classes
)

// countedTypes are those of queries that are counted apart. All others are one.
var countedTypes = [...]struct {
	kind uint16
	name string
}{
	{typeA, "A"}, {typeAAAA, "AAAA"}, {typeSRV, "SRV"}, {typePTR, "PTR"}, {typeTXT, "TXT"}, {typeCNAME, "CNAME"},
	{typeMX, "MX"}, {typeNS, "NS"}, {typeSOA, "SOA"}, {65, "HTTPS"}, {typeANY, "ANY"}, {0, "other"},
}

// countedCodes are the rcodes that are counted apart.
var countedCodes = [...]rcode{noError, formatError, serverFailure, nameError, notImplemented, refused, badVersion}

// durationBounds are those of the histograms, in seconds: CoreDNS's.
var durationBounds = [...]float64{
	0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032,
	0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192,
}

// counts are what one loop has answered, so that no two loops write to the same
// memory. They are read by anybody.
type counts struct {
	requests  [2][2][classes][len(countedTypes)]atomic.Uint64 // by TCP or not, IPv6 or not
	responses [classes][len(countedCodes)]atomic.Uint64
	durations [classes][len(durationBounds) + 1]atomic.Uint64
	sums      [classes]atomic.Int64 // of durations, in nanoseconds
	completed atomic.Uint64         // first queries of a search that had the answer of the last
	cut       atomic.Uint64         // answers that were too long
	ignored   atomic.Uint64         // messages that were no queries
	strangers atomic.Uint64         // queries of who is no client
	lost      atomic.Uint64         // answers that the kernel did not take
}

// tally counts an answer that was written.
func (c *counts) tally(a *answering, reply []byte) {
	at := len(countedTypes) - 1
	for i := range countedTypes[:at] {
		if countedTypes[i].kind == a.q.kind {
			at = i
			break
		}
	}
	tcp, six := 0, 0
	if a.from.tcp {
		tcp = 1
	}
	if a.from.addr.Is6() {
		six = 1
	}
	c.requests[tcp][six][a.class][at].Add(1)
	for i := range countedCodes {
		if countedCodes[i] == a.r.rcode {
			c.responses[a.class][i].Add(1)
			break
		}
	}
	if a.r.cut {
		c.cut.Add(1)
	}
	a.client.Queries.Add(1)
	a.client.Bytes.Add(uint64(len(a.q.message) + len(reply)))
	if a.r.rcode == nameError {
		a.client.Negative.Add(1)
	}
	if a.abroad {
		a.client.Outside.Add(1)
	}
}

// took counts how long some answers of a class took, each.
func (c *counts) took(of class, n uint64, each time.Duration) {
	at, seconds := 0, each.Seconds()
	for at < len(durationBounds) && seconds > durationBounds[at] {
		at++
	}
	c.durations[of][at].Add(n)
	c.sums[of].Add(int64(n) * int64(each))
}
