package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-net/fairlead/dataplane"
	"github.com/fairlead-net/fairlead/dataplane/nftables"
	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/drop"
	"github.com/fairlead-net/fairlead/observe/nflog"
	"github.com/fairlead-net/fairlead/plan/policy"
)

// drops reads from the kernel's log what policies deny, and says it: to those
// who ask, in Events, and in a file. Nothing waits for it but itself.
type drops struct {
	node, cluster string // cluster may be empty
	loop          *loop
	denier        denier // nil: no data plane of the node denies
	publisher     Publisher
	file          *drop.File // nil: none
	log           *slog.Logger

	recent  drop.Ring
	reading watched[string]   // why the log is not read; empty: it is
	events  chan *drop.Record // that an Event may tell of

	read, lost, unwritten atomic.Uint64
	denied                tally
}

// denier is a data plane that denies, counts and logs it.
type denier interface {
	dataplane.Denier
	DeniedBy(mark uint32) (policy.Rule, bool)
}

const (
	dropsKept     = 1000
	dropBytes     = 128      // of each packet: its headers
	dropFileBytes = 10 << 20 // of each of the files
	dropFilesKept = 4        // besides the one that is written
	followTime    = 5 * time.Minute
)

func newDrops(c *Config, loop *loop) *drops {
	d := &drops{
		node: c.Node, cluster: c.Cluster, loop: loop, publisher: c.Publisher, log: c.Log,
		recent: drop.Ring{Size: dropsKept}, events: make(chan *drop.Record, dropsKept),
	}
	d.reading.set("it is about to begin")
	for _, plane := range c.Dataplanes {
		if denier, ok := plane.(denier); ok {
			d.denier = denier
		}
	}
	if c.DropLog != "" {
		d.file = &drop.File{Path: c.DropLog, Limit: dropFileBytes, Keep: dropFilesKept}
	}
	return d
}

// Run reads until the context ends. Another agent of the node, that is about to
// end, may still have the log: it is tried again.
func (d *drops) Run(ctx context.Context) error {
	if d.denier == nil {
		d.reading.set("no data plane of this node carries out policies")
		return nil
	}
	var telling sync.WaitGroup
	defer telling.Wait()
	telling.Go(func() { d.tell(ctx) })
	if d.file != nil {
		defer d.file.Close()
	}
	again := backoff{first: 100 * time.Millisecond, most: 10 * time.Second}
	for {
		err := d.follow(ctx, again.reset)
		if ctx.Err() != nil {
			return nil
		}
		if why, _ := d.reading.get(); why != err.Error() {
			d.log.Warn("what policies deny is not known, trying again", "error", err)
			d.reading.set(err.Error())
		}
		if !pause(ctx, again.next()) {
			return nil
		}
	}
}

// follow reads until it fails.
func (d *drops) follow(ctx context.Context, opened func()) error {
	socket, err := nflog.Open(nftables.DeniedLogGroup, dropBytes)
	if errors.Is(err, nflog.ErrTaken) {
		return fmt.Errorf("%w, perhaps another agent, or ulogd; find it: cat /proc/net/netfilter/nfnetlink_log", err)
	}
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = socket.Close() })
	defer func() {
		if stop() {
			_ = socket.Close()
		}
	}()
	opened()
	d.reading.set("")
	lost := uint64(0)
	for {
		packets, err := socket.Receive()
		if err != nil {
			return err
		}
		for _, packet := range packets {
			d.take(packet)
		}
		now := socket.Lost()
		d.lost.Add(now - lost)
		lost = now
	}
}

func (d *drops) take(packet nflog.Packet) {
	d.read.Add(1)
	decoded, ok := drop.Decode(packet.Payload)
	if !ok {
		return
	}
	denied := drop.Denied{Packet: decoded, Time: time.Now(), Called: packet.Original}
	if strings.HasSuffix(packet.Prefix, model.Egress.String()) {
		denied.Direction = model.Egress
	}
	if strings.HasSuffix(packet.Prefix, nftables.LogUnfound) {
		denied.Unfound = true
	} else if rule, known := d.denier.DeniedBy(packet.Mark); known {
		denied.By = &rule
	}
	outcome, _ := d.loop.outcome.get()
	record := drop.Scene{Node: d.node, Plan: outcome.plan}.Judge(denied)
	d.recent.Add(record)
	d.write(record)
	select {
	case d.events <- record:
	default: // Events are few in any case
	}
}

func (d *drops) write(record *drop.Record) {
	if d.file == nil {
		return
	}
	line, err := drop.ECS(record, d.cluster)
	if err == nil {
		err = d.file.Write(line)
	}
	if err != nil && d.unwritten.Add(1) == 1 {
		d.log.Warn("what policies deny is not written to the file; more of it is only counted (fairlead_drops_lost_total)", "error", err)
	}
}

// tell writes Events, a few.
func (d *drops) tell(ctx context.Context) {
	var told told
	for {
		select {
		case <-ctx.Done():
			return
		case record := <-d.events:
			event, ok := told.event(record, time.Now())
			if !ok {
				continue
			}
			writing, cancel := context.WithTimeout(ctx, publishTime)
			if err := d.publisher.WriteEvent(writing, event); err != nil && ctx.Err() == nil {
				d.log.Warn("an Event could not be written", "error", err)
			}
			cancel()
		}
	}
}

// report is what fairlead drops shows, of later than a time.
func (d *drops) report(after time.Time) drop.Report {
	records, _ := d.recent.Since(after)
	why, _ := d.reading.get()
	report := drop.Report{Node: d.node, Reading: why == "", Trouble: why, Records: records}
	if err := d.count(); err != nil && report.Trouble == "" {
		report.Trouble = err.Error()
	}
	report.Counts = drop.Counts{
		Read: d.read.Load(), Lost: d.lost.Load(), Suppressed: d.denied.suppressed(), Unwritten: d.unwritten.Load(),
	}
	return report
}

// count reads the kernel's counters.
func (d *drops) count() error {
	if d.denier == nil {
		return nil
	}
	denials, err := d.denier.Denials()
	if err == nil {
		d.denied.add(denials, func() uint64 { return d.read.Load() + d.lost.Load() })
	}
	return err
}

// serve answers with a drop.Report; with ?follow, with one drop.Record a line, as
// they come, for some minutes. Both are of what is later than ?since.
func (d *drops) serve(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	var since time.Time
	if text := query.Get("since"); text != "" {
		var err error
		if since, err = time.Parse(time.RFC3339Nano, text); err != nil {
			http.Error(w, "since is no time: "+err.Error(), http.StatusBadRequest)
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	to := json.NewEncoder(w)
	if !query.Has("follow") {
		_ = to.Encode(d.report(since)) // who asked may have gone
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), followTime)
	defer cancel()
	connection := http.NewResponseController(w)
	for {
		records, more := d.recent.Since(since)
		for _, record := range records {
			if to.Encode(record) != nil {
				return
			}
			since = record.Time
		}
		if connection.Flush() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-more:
		}
	}
}

// told are the Events of late.
type told struct{ events []toldEvent }

type toldEvent struct {
	about toldOf
	at    time.Time
}

// toldOf is what one Event is enough for, for a while. All addresses of no pod
// are the same peer: else one who scans would fill the Events.
type toldOf struct {
	uid, pod, peer, direction, policy string
}

const (
	toldFor  = 10 * time.Minute
	toldMost = 10 // Events of a node in that time
)

// event makes an Event of a record, unless there were some like it, or many.
func (t *told) event(r *drop.Record, now time.Time) (kube.Event, bool) {
	subject, peer := r.Subject(), r.Peer()
	if subject.Pod == "" || r.Policy == nil {
		return kube.Event{}, false
	}
	for len(t.events) > 0 && now.Sub(t.events[0].at) >= toldFor {
		t.events = t.events[1:]
	}
	about := toldOf{uid: subject.UID, pod: subject.String(), direction: r.Direction, policy: r.Policy.String()}
	if peer.Pod != "" {
		about.peer = peer.String()
	}
	for _, earlier := range t.events {
		if earlier.about == about {
			return kube.Event{}, false
		}
	}
	if len(t.events) >= toldMost {
		return kube.Event{}, false
	}
	t.events = append(t.events, toldEvent{about, now})
	return kube.Event{
		Problem: model.Problem{
			Kind: "Pod", Namespace: subject.Namespace, Name: subject.Pod, Reason: "PolicyDenied",
			Message: fmt.Sprintf("A packet from %s to %s, %s, was dropped: %s", r.Source, r.Destination, r.Port(), r.Why()),
			Remedy:  fmt.Sprintf("see more: fairlead drops -n %s --pod %s", subject.Namespace, subject.Pod),
		},
		UID:   subject.UID,
		Again: fmt.Sprint(about.peer, " ", about.direction, " ", about.policy, " ", now.Unix()),
	}, true
}
