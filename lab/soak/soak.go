package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fairlead-net/fairlead/lab"
)

// soak is one that is under way.
type soak struct {
	lab        *lab.Lab
	o          options
	out        io.Writer
	cluster    *cluster
	windows    windows
	busy       busy
	processors processors
	stop       context.CancelFunc // ends the steps

	entry   []netip.Addr // of entryNode
	bundles chan string  // what broke, to be collected

	mu     sync.Mutex // guards all below
	live   []string   // names of nodes
	doors  map[string]*sync.RWMutex
	seen   *view // the newest
	r      report
	recent []string // steps, the newest last
}

func newSoak(l *lab.Lab, o options, out io.Writer) *soak {
	return &soak{
		lab: l, o: o, out: out, entry: l.Addresses(entryNode), live: slices.Clone(fixedNodes), doors: map[string]*sync.RWMutex{}, bundles: make(chan string, 3),
		r: report{
			seed: o.seed, planned: o.time, steps: map[kind]int{}, looks: map[string]int{}, traffic: map[string]tally{}, left: map[string]string{},
			peak: map[place]counts{},
		},
	}
}

// Times of the beginning and the end.
const (
	calm       = 45 * time.Second // before counting: addresses cool down, peers are probed
	settleMost = 4 * time.Minute  // a tunnel that is not used any more stays for one
)

// run does all of it. soaking ends with the first signal, ctx with the second.
func (s *soak) run(ctx, soaking context.Context) (err error) {
	if s.cluster, err = openCluster(s.lab.Kubeconfig()); err != nil {
		return err
	}
	if err := s.lab.Apply(ctx, []byte(fixedManifest())); err != nil {
		return err
	}
	if _, err := s.lab.Kubectl(ctx, "wait", "--namespace="+namespace, "--for=condition=Ready", "--timeout=120s", "pods", "--all"); err != nil {
		return err
	}
	soaking, s.stop = context.WithCancel(soaking)
	defer s.stop()
	watching, end := context.WithCancel(ctx)
	defer end()
	var background sync.WaitGroup
	for _, run := range []func(context.Context){s.watchMachine, s.watchCluster, s.sample, s.runTraffic, s.collect} {
		background.Go(func() { run(watching) })
	}
	s.log("waiting for %s, and counting", calm)
	if pause(ctx, calm); ctx.Err() != nil {
		return context.Cause(ctx)
	}
	start, had, err := s.count(true)
	if err != nil {
		return err
	}
	s.r.began = time.Now()
	s.steps(ctx, soaking)
	if s.o.keep && s.broken() > 0 {
		s.r.cut = "It stopped at the first broken invariant, and left the lab as it is."
	} else if err := s.settle(ctx, start, had); err != nil {
		s.r.cut = "What is left could not be counted: " + err.Error()
		s.log("%s", s.r.cut)
	}
	s.r.ended = time.Now()
	end()
	background.Wait()
	return s.tell()
}

// steps does one after the other until the time is over.
func (s *soak) steps(ctx, soaking context.Context) {
	over, cancel := context.WithTimeout(soaking, s.o.time)
	defer cancel()
	for plan := newSchedule(s.o.seed); ; {
		t := plan.next()
		if pause(over, t.Pause); over.Err() != nil {
			return
		}
		s.mu.Lock()
		s.r.steps[t.Kind]++
		s.recent = append(s.recent, time.Now().UTC().Format("15:04:05 ")+t.String())
		s.mu.Unlock()
		s.log("%s", t)
		// What was begun is ended: it may have broken something.
		if err := s.do(ctx, t); err != nil && ctx.Err() == nil {
			text := fmt.Sprintf("%s: %v", t, err)
			s.log("FAILED %s", text)
			s.mu.Lock()
			s.r.failed = append(s.r.failed, text)
			s.mu.Unlock()
		}
	}
}

// settle deletes all that was made, and waits until nothing is left.
func (s *soak) settle(ctx context.Context, start map[place]counts, had map[place]names) error {
	s.log("everything is deleted")
	if err := s.deleteAll(ctx); err != nil {
		return err
	}
	began := time.Now()
	for {
		now, has, err := s.count(true)
		if err != nil {
			return err
		}
		s.mu.Lock()
		peak := s.r.peak
		s.r.leaks = compare(start, peak, now)
		found := leaks(s.r.leaks)
		clear(s.r.left)
		for _, l := range found {
			s.r.left[l.where+" "+l.resource] = added(had[l.where][l.resource], has[l.where][l.resource])
		}
		s.r.settled = time.Since(began)
		s.mu.Unlock()
		if len(found) == 0 || time.Since(began) > settleMost {
			s.log("%d leaks after %s", len(found), s.r.settled.Round(time.Second))
			return nil
		}
		if pause(ctx, 5*time.Second); ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// tell writes the report.
func (s *soak) tell() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.r.busy = s.busy.count()
	text := s.r.markdown()
	path := filepath.Join(s.o.out, "report.md")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	fmt.Fprintf(s.out, "\n%s\nAll of it is in %s\n", text, s.o.out)
	if len(s.r.broken)+len(s.r.failed)+len(leaks(s.r.leaks)) > 0 || s.r.cut != "" {
		return errBroken
	}
	return nil
}

// breaks tells of a broken invariant.
func (s *soak) breaks(format string, args ...any) {
	text := time.Now().UTC().Format("15:04:05 ") + fmt.Sprintf(format, args...)
	s.mu.Lock()
	s.r.broken = append(s.r.broken, text)
	recent := slices.Clone(s.recent[max(0, len(s.recent)-5):])
	s.mu.Unlock()
	s.log("BROKEN %s; the last actions: %s", text, strings.Join(recent, "; "))
	select {
	case s.bundles <- text:
	default: // enough are being collected
	}
	if s.o.keep {
		s.stop()
	}
}

func (s *soak) broken() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.r.broken)
}

// collect writes what helps to find the fault, for the first few that broke.
func (s *soak) collect(ctx context.Context) {
	for number := 1; number <= cap(s.bundles); number++ {
		select {
		case <-ctx.Done():
			return
		case <-s.bundles:
		}
		file := filepath.Join(s.o.out, fmt.Sprintf("bundle-%d.tar.gz", number))
		limited, cancel := context.WithTimeout(ctx, 2*time.Minute)
		command := exec.CommandContext(limited, s.lab.Program(), "debug", "bundle", "--output="+file)
		command.Env = append(os.Environ(), "KUBECONFIG="+s.lab.Kubeconfig())
		if output, err := command.CombinedOutput(); err != nil {
			s.log("no bundle: %v: %s", err, output)
		} else {
			s.log("bundle of what broke: %s", file)
		}
		cancel()
	}
}

// sample counts what there is every ten seconds.
func (s *soak) sample(ctx context.Context) {
	file, err := os.Create(filepath.Join(s.o.out, "samples.csv"))
	if err != nil {
		s.log("no samples: %v", err)
		return
	}
	defer file.Close()
	table, err := newSheet(file)
	if err != nil {
		s.log("no samples: %v", err)
		return
	}
	for ; ctx.Err() == nil; pause(ctx, 10*time.Second) {
		all, _, err := s.count(false)
		if err == nil {
			err = table.write(time.Now(), all)
		}
		if err != nil {
			s.log("no sample: %v", err)
			continue
		}
		s.mu.Lock()
		raise(s.r.peak, all)
		s.r.looks["samples of memory, files and the kernel"] += len(all)
		s.mu.Unlock()
	}
}

func (s *soak) log(format string, args ...any) {
	fmt.Fprintf(s.out, "%s %s\n", time.Now().UTC().Format("15:04:05.0"), fmt.Sprintf(format, args...))
}

// looked counts checks.
func (s *soak) looked(what string, times int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.r.looks[what] += times
}

// nodes are those that are in the cluster.
func (s *soak) nodes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.live)
}

func (s *soak) setNode(name string, live bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = slices.DeleteFunc(s.live, func(n string) bool { return n == name })
	if live {
		s.live = append(s.live, name)
	}
}

// door is what keeps others out of a machine's network while the machine is
// switched off: who is in it would keep it alive.
func (s *soak) door(node string) *sync.RWMutex {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.doors[node] == nil {
		s.doors[node] = &sync.RWMutex{}
	}
	return s.doors[node]
}

// machine lets the caller look into a machine until it calls leave; not ok: it is
// being switched off or on.
func (s *soak) machine(node string) (leave func(), ok bool) {
	door := s.door(node)
	if !door.TryRLock() {
		return nil, false
	}
	return door.RUnlock, true
}

func (s *soak) view() *view {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// pause waits, or returns when ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// until asks again and again, five times a second, until it is so.
func until(ctx context.Context, limit time.Duration, what string, is func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := is(limited)
		if err == nil {
			return nil
		}
		if pause(limited, 200*time.Millisecond); limited.Err() != nil {
			return fmt.Errorf("%s: not within %s: %w", what, limit, err)
		}
	}
}
