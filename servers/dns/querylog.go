package dns

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/fairlead-net/fairlead/plan/dns"
)

// QueryLog writes queries that were answered, as lines of JSON. Who answers is
// never kept waiting, and makes no garbage for it: what cannot be written in time
// is lost, and counted. A nil one takes in nothing.
type QueryLog struct {
	lines    chan logged
	all      quota
	failures quota
	written  atomic.Uint64
	lost     atomic.Uint64
}

// Bounds of a log.
const (
	maxLogged      = 1024 // queries that wait to be written
	linesEach      = 5000 // at most, in a second
	failuresEach   = 10   // likewise, of those that are logged because they failed
	logEndPatience = time.Second
)

// NewQueryLog returns one that is empty.
func NewQueryLog() *QueryLog { return &QueryLog{lines: make(chan logged, maxLogged)} }

// Counts are how many lines were written, and how many were to be and could not.
func (l *QueryLog) Counts() (written, lost uint64) { return l.written.Load(), l.lost.Load() }

// quota bounds what may be done in a second.
type quota struct{ state atomic.Uint64 } // the second, and 32 bits of how often

func (q *quota) take(now time.Time, most uint32) bool {
	second := uint64(now.Unix()) << 32
	for {
		state := q.state.Load()
		next := state + 1
		if state>>32 != second>>32 {
			next = second + 1
		} else if uint32(state) >= most {
			return false
		}
		if q.state.CompareAndSwap(state, next) {
			return true
		}
	}
}

// logged is a query that waits to be written. It has all that it needs: what it was
// made of is of use again by then.
type logged struct {
	began     time.Time
	took      time.Duration
	client    *Client
	addr      netip.Addr
	name      [maxName]byte
	length    int
	kind      uint16
	rcode     rcode
	tcp       bool
	completed bool
	source    Source
	revision  uint64
}

// source is told who has answered, if somebody wants to know.
func (l *QueryLog) source() *Source {
	if l == nil {
		return nil
	}
	return &Source{}
}

// take takes in the query that was answered last, if it is one to be logged.
// Source is who has answered, if others were asked.
func (l *QueryLog) take(a *answering, began time.Time, source *Source) {
	if l == nil {
		return
	}
	failed := a.r.rcode == serverFailure || a.r.rcode == refused
	switch {
	case a.any(int(a.served.LogOneIn)) == 0:
		if !l.all.take(began, linesEach) {
			l.lost.Add(1)
			return
		}
	case !failed:
		return
	case !l.failures.take(began, failuresEach):
		return // it is not said that all of them are
	}
	entry := logged{
		began: began, took: time.Since(began), client: a.client, addr: a.from.addr,
		name: a.q.lower, length: a.q.length, kind: a.q.kind, rcode: a.r.rcode, tcp: a.from.tcp,
		completed: a.completed, source: a.source(), revision: a.served.Revision,
	}
	if source != nil && source.By != "" {
		entry.source = *source
	}
	select {
	case l.lines <- entry:
	default:
		l.lost.Add(1)
	}
}

// source is who has answered, if nobody was asked now.
func (a *answering) source() Source {
	switch {
	case a.turned:
		return Source{By: ByServer}
	case a.abroad:
		return Source{By: ByCache}
	case a.class != ofOutside:
		return Source{By: ByCluster}
	}
	return Source{By: ByServer}
}

// line is what is written. It only grows.
type line struct {
	Time      time.Time  `json:"time"` // when the server had the query
	Client    netip.Addr `json:"client"`
	Namespace string     `json:"namespace,omitempty"` // of a pod of this node
	Pod       string     `json:"pod,omitempty"`
	Name      string     `json:"name"`
	Type      string     `json:"type"`
	Protocol  string     `json:"protocol"` // udp or tcp
	Rcode     string     `json:"rcode"`
	By        By         `json:"by"`
	Upstream  string     `json:"upstream,omitempty"`
	Stub      string     `json:"stubDomain,omitempty"`
	Completed bool       `json:"completed,omitempty"` // as the last of a search would have been
	Seconds   float64    `json:"seconds"`             // until it was answered
	Revision  uint64     `json:"revision"`            // of the agent's snapshot
}

func (e *logged) line() line {
	l := line{
		Time: e.began.UTC(), Client: e.addr, Namespace: e.client.Namespace, Pod: e.client.Name, Name: ".",
		Type: typeText(e.kind), Protocol: "udp", Rcode: e.rcode.String(), By: e.source.By, Upstream: e.source.Upstream,
		Stub: e.source.Zone, Completed: e.completed, Seconds: e.took.Seconds(), Revision: e.revision,
	}
	if e.length > 0 {
		l.Name = dns.Name(e.name[:e.length]).String()
	}
	if e.tcp {
		l.Protocol = "tcp"
	}
	return l
}

// typeText is a type as people write it (RFC 3597, section 5).
func typeText(kind uint16) string {
	for _, counted := range countedTypes[:len(countedTypes)-1] {
		if counted.kind == kind {
			return counted.name
		}
	}
	return fmt.Sprintf("TYPE%d", kind)
}

// Run writes lines until the context ends. Who reads them may have stopped to: it
// does not wait for him then.
func (l *QueryLog) Run(ctx context.Context, to io.Writer) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.write(ctx, to)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-ended:
	case <-time.After(logEndPatience):
	}
	return nil
}

func (l *QueryLog) write(ctx context.Context, to io.Writer) {
	out := bufio.NewWriterSize(to, 32<<10)
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	unsaid := uint64(0) // lines that are in out
	flush := func() {
		if out.Flush() == nil {
			l.written.Add(unsaid)
		} else {
			l.lost.Add(unsaid)
			out.Reset(to)
		}
		unsaid = 0
	}
	put := func(e *logged) {
		unsaid++
		_ = encoder.Encode(e.line()) // a failure shows when it is flushed
		if len(l.lines) == 0 || unsaid >= maxLogged {
			flush()
		}
	}
	for {
		select {
		case e := <-l.lines:
			put(&e)
			continue
		case <-ctx.Done():
		}
		for {
			select {
			case e := <-l.lines:
				put(&e)
			default:
				flush()
				return
			}
		}
	}
}

// crediting asks, and lets source be told who has answered last.
type crediting struct {
	inquiry
	source *Source
}

func (c crediting) find(q Question, into []byte) ([]byte, found) {
	q.Source = c.source
	return c.inquiry.find(q, into)
}
