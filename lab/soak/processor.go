package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// processorUse is what a process has used since the sample before; of the first
// sample, since it started.
const processorUse = "processor, % of a core"

// Nothing in a cluster of this size takes so much for so long, but a loop that spins.
const (
	processorMost = 50               // % of a core, on average
	processorOver = 30 * time.Second // over this time, outside of windows, of a process that has run for youngMost
)

// reading is how much time of any core a process has used until a moment.
type reading struct {
	pid  int
	age  time.Duration
	at   time.Time
	used time.Duration
}

// since is the use of a process between two readings, in % of a core.
func (r reading) since(before reading) int64 {
	return int64(math.Round(100 * float64(r.used-before.used) / float64(r.at.Sub(before.at))))
}

// processors remembers what the process at each place uses. It may be used
// concurrently.
type processors struct {
	mu  sync.Mutex // guards all
	all map[place]*load
}

// load is what one process uses.
type load struct {
	last   reading
	use    int64     // at the last, in % of a core
	judged []reading // outside of windows, of the last processorOver and the one before
	told   bool
}

// read takes a reading. It returns what the process has used since the one before, and
// how much over which time if that is too much, once. The time between two readings
// that is excused does not count.
func (p *processors) read(where place, now reading, excused func(from, until time.Time) bool) (use int64, broken string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.all[where]
	if l == nil || l.last.pid != now.pid {
		age := max(now.age, time.Second)
		l = &load{last: reading{pid: now.pid, at: now.at.Add(-age)}}
		if p.all == nil {
			p.all = map[place]*load{}
		}
		p.all[where] = l
	} else if now.at.Sub(l.last.at) < time.Second {
		return l.use, "" // the kernel counts in hundredths of a second
	}
	l.use = now.since(l.last)
	if excused(l.last.at, now.at) {
		l.judged = nil
	}
	if l.last = now; now.age < youngMost {
		return l.use, ""
	}
	l.judged = append(l.judged, now)
	for len(l.judged) > 1 && now.at.Sub(l.judged[1].at) >= processorOver {
		l.judged = l.judged[1:]
	}
	over := now.at.Sub(l.judged[0].at)
	if over < processorOver {
		return l.use, ""
	}
	average := now.since(l.judged[0])
	if average <= processorMost {
		l.told = false
	} else if !l.told {
		l.told = true
		broken = fmt.Sprintf("%d %% of a core for %s", average, over.Round(time.Second))
	}
	return l.use, broken
}

// lookProcessors tells what the agent of a node, and the controller if it is there,
// use. Nothing excuses the controller: its windows would be those of whatever node it
// is on.
func (s *soak) lookProcessors(node string) map[place]int64 {
	uses := map[place]int64{}
	for role, where := range map[string]place{"agent": node, "controller": controllerPlace} {
		pid, age, err := processOf(s.lab.World(), node, role)
		if err != nil || pid == 0 {
			continue
		}
		used, ok := usedBy(pid)
		if !ok {
			continue // it has just ended
		}
		use, broken := s.processors.read(where, reading{pid, age, time.Now(), used}, func(from, until time.Time) bool {
			return role == "agent" && s.windows.excuse(agents, []string{node}, from, until) != ""
		})
		if uses[where] = use; broken != "" {
			s.breaks("the %s on %s (process %d) has used %s", role, node, pid, broken)
		}
		s.looked("no process spins", 1)
	}
	return uses
}

// statOf returns fields of a process from the third on, as of proc(5).
func statOf(pid int) (fields []string, ok bool) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	_, after, ok := strings.Cut(string(text), ") ")
	fields = strings.Fields(after)
	return fields, err == nil && ok && len(fields) >= 20
}

// hundredths are the times of statOf.
const hundredths = 10 * time.Millisecond

// ageOf is how long a process has been there.
func ageOf(pid int) (time.Duration, bool) {
	fields, ok := statOf(pid)
	uptime, err := os.ReadFile("/proc/uptime")
	times := strings.Fields(string(uptime))
	if !ok || err != nil || len(times) == 0 {
		return 0, false
	}
	started, err := strconv.ParseInt(fields[19], 10, 64) // since boot
	now, err2 := strconv.ParseFloat(times[0], 64)
	if err != nil || err2 != nil {
		return 0, false
	}
	return time.Duration(now*float64(time.Second)) - time.Duration(started)*hundredths, true
}

// usedBy is the time that a process has used of any core, by itself and in the kernel.
func usedBy(pid int) (time.Duration, bool) {
	fields, ok := statOf(pid)
	if !ok {
		return 0, false
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * hundredths, err == nil && err2 == nil
}
