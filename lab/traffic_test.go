package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/lab/world"
)

// traffic is what flows from one place to another all the while that a story
// does something: a thousand pings, a hundred new connections over each address
// family, and an established stream of bytes over each (flows_test.go and stream_test.go have them).
// None may be lost but for what the machine's own queues had no room for, unless
// the story allows it.
type traffic struct {
	stop  context.CancelFunc
	full  int // packets that found the machine's queues full before it began
	flows sync.WaitGroup

	mu      sync.Mutex // guards results
	results []result
}

// result is what became of one flow.
type result struct {
	name   string        // what flowed, and to which address
	sent   int           // pings, connections, or bytes of a stream
	lost   int           // of those pings and connections; packets of a stream
	gap    time.Duration // the longest time in which nothing came through
	tcp    bool          // TCP waits, after a gap, about as long again before it tries
	stream bool          // it has to last
	broken error         // why it ended before its time
	detail string        // for people
}

func (r result) String() string {
	text := fmt.Sprintf("%s: %d sent, %d lost, longest gap %s%s", r.name, r.sent, r.lost, r.gap.Round(time.Millisecond), r.detail)
	if r.broken != nil {
		text += ", broke: " + r.broken.Error()
	}
	return text
}

// allowance is what a story lets be lost, where the fault itself takes the wire
// away. The zero value allows nothing.
type allowance struct {
	lost int           // of each flow; with a gap, of pings
	gap  time.Duration // in which nothing comes through
}

// parseAllowance reads lost<=N and gap<=D.
func parseAllowance(args []string) (a allowance, err error) {
	for _, arg := range args {
		key, value, ok := strings.Cut(arg, "<=")
		switch {
		case ok && key == "lost":
			a.lost, err = strconv.Atoi(value)
		case ok && key == "gap":
			a.gap, err = time.ParseDuration(value)
		default:
			err = fmt.Errorf("want lost<=NUMBER or gap<=DURATION")
		}
		if err != nil {
			return a, fmt.Errorf("%s: %w", arg, err)
		}
	}
	return a, nil
}

// stall is the time after which a stream that is quiet has stalled.
const stall = time.Second

// excess says what is more than the story allows; "" if nothing is.
func (a allowance) excess(r result) string {
	// TCP doubles the time between two tries: what was cut for d may need as long
	// again, and a second more for a first packet.
	patient := 2*a.gap + stall
	switch {
	case r.broken != nil:
		return "it broke"
	case r.sent == 0:
		return "nothing was sent"
	case r.stream && r.gap > patient && (r.lost > 0 || a != allowance{}): // else the machine was busy
		return fmt.Sprintf("it stalled for more than %s", patient)
	case a.gap == 0 && r.lost > a.lost:
		return fmt.Sprintf("more are lost than the %d that are allowed", a.lost)
	case a.gap == 0:
		return ""
	case r.tcp && !r.stream && r.gap > patient, !r.tcp && r.gap > a.gap:
		return fmt.Sprintf("the gap is longer than the %s that are allowed", a.gap)
	case !r.tcp && r.lost > a.lost:
		return fmt.Sprintf("more are lost than the %d that are allowed", a.lost)
	}
	return ""
}

const trafficUsage = "usage: traffic NAME FROM TO [via=svc/NAME], or traffic NAME FROM svc/NAME|ADDRESS, and then traffic NAME stop [lost<=PINGS] [gap<=DURATION]"

// viaPort is that of streams by way of a Service, which has it beside 8080.
const viaPort = 8099

// traffic NAME FROM TO begins to send from a pod or a machine to a pod; traffic
// NAME stop ends it, and fails if more was lost than it allows: by itself,
// nothing. By way of a Service, of which TO is the only endpoint, there are no
// pings; to a Service or an address, whose endpoints come and go, there are only
// connections.
func (s *stories) traffic(ts *testscript.TestScript, neg bool, args []string) {
	switch {
	case neg || len(args) < 2:
		ts.Fatalf(trafficUsage)
	case args[1] == "stop":
		allowed, err := parseAllowance(args[2:])
		if err != nil {
			ts.Fatalf("%v; %s", err, trafficUsage)
		}
		s.stopTraffic(ts, args[0], allowed)
	case len(args) == 3:
		s.startTraffic(ts, args[0], args[1], args[2], "")
	case len(args) == 4 && strings.HasPrefix(args[3], "via="):
		s.startTraffic(ts, args[0], args[1], args[2], strings.TrimPrefix(args[3], "via="))
	default:
		ts.Fatalf(trafficUsage)
	}
}

func (s *stories) startTraffic(ts *testscript.TestScript, name, from, to, via string) {
	if s.flowing[name] != nil {
		ts.Fatalf("traffic %s flows already", name)
	}
	namespace := ts.Getenv(namespaceVariable)
	targets, err := s.addresses(namespace, to)
	ts.Check(err)
	called, port := targets, uint16(0)
	if via != "" {
		called, err = s.addresses(namespace, via)
		ts.Check(err)
		port = viaPort
	}
	source, err := s.netns(namespace, from)
	ts.Check(err)
	ts.Defer(func() { source.Close() })
	flow := &traffic{full: queuesFull(ts)}
	ctx, cancel := context.WithCancel(context.Background())
	flow.stop = cancel
	ts.Defer(func() {
		flow.end()
		delete(s.flowing, name)
	})
	lasting := !isVirtual(to)
	if lasting {
		destination, err := s.netns(namespace, to)
		ts.Check(err)
		defer destination.Close()
		for _, target := range called {
			at := slices.IndexFunc(targets, func(addr netip.Addr) bool { return addr.Is6() == target.Is6() })
			if at < 0 {
				ts.Fatalf("%s has no address of the family of %s", to, target)
			}
			stream, err := openStream(source, destination, targets[at], target, port)
			ts.Check(err)
			flow.flows.Go(func() { flow.note(stream.run(ctx)) })
		}
	}
	for _, target := range called {
		pause := pingPause * time.Duration(len(targets))
		runs := []func() result{func() result { return connect(ctx, target) }}
		if lasting && via == "" {
			runs = append(runs, func() result { return ping(ctx, target, pause) })
		}
		for _, run := range runs {
			flow.flows.Go(func() {
				err := within(source, func() error {
					flow.note(run())
					return nil
				})
				if err != nil {
					flow.note(result{name: to, broken: err})
				}
			})
		}
	}
	s.flowing[name] = flow
}

// isVirtual tells the addresses of Services from pods and machines.
func isVirtual(name string) bool {
	_, err := netip.ParseAddr(name)
	return err == nil || strings.HasPrefix(name, "svc/")
}

func (s *stories) stopTraffic(ts *testscript.TestScript, name string, allowed allowance) {
	flow, ok := s.flowing[name]
	if !ok {
		ts.Fatalf("there is no traffic %s", name)
	}
	delete(s.flowing, name)
	excess, results := false, flow.end()
	for _, r := range results {
		why := allowed.excess(r)
		excess = excess || why != ""
		if why != "" {
			why = ": " + strings.ToUpper(why)
		}
		ts.Logf("traffic %s: %s%s", name, r, why)
	}
	switch full := queuesFull(ts) - flow.full; {
	case excess && allowed.explained(results, full):
		ts.Logf("lost, but nobody can tell why: the queues of this machine, which is too busy, were full for %d packets", full)
	case excess:
		ts.Fatalf("more was lost than is allowed")
	}
}

// queuesFull counts the packets of the whole machine that found the queue
// between two interfaces full (second column of softnet_stat).
func queuesFull(ts *testscript.TestScript) (packets int) {
	for line := range strings.Lines(readFile("/proc/net/softnet_stat")) {
		dropped, err := strconv.ParseUint(strings.Fields(line)[1], 16, 32)
		ts.Check(err)
		packets += int(dropped)
	}
	return packets
}

func (t *traffic) note(r result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.results = append(t.results, r)
}

func (t *traffic) end() []result {
	t.stop()
	t.flows.Wait()
	return t.results
}

// within runs f on a thread in a network namespace.
func within(netns *os.File, f func() error) error {
	return world.OnThread(func() error {
		if err := unix.Setns(int(netns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("entering a network namespace: %w", err)
		}
		return f()
	})
}

// netns opens the network namespace of a machine or a pod.
func (s *stories) netns(namespace, name string) (file *os.File, err error) {
	if len(s.lab.Addresses(name)) > 0 {
		err := s.lab.world.Do(name, func() error {
			file, err = os.Open("/proc/thread-self/ns/net")
			return err
		})
		return file, err
	}
	uid, err := s.lab.Kubectl(context.Background(), "get", "pod", name, "--namespace="+namespace, "--output=jsonpath={.metadata.uid}")
	if err != nil {
		return nil, err
	}
	paths, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		// The kubelet gives each container its pod's /etc/hosts.
		if strings.Contains(readFile(path), uid+"/etc-hosts /etc/hosts ") {
			return os.Open(filepath.Join(filepath.Dir(path), "ns", "net"))
		}
	}
	return nil, fmt.Errorf("pod %s has no process", name)
}

func TestAllowance(t *testing.T) {
	pings := func(lost int, gap time.Duration) result { return result{name: "ping", sent: 100, lost: lost, gap: gap} }
	connections := func(lost int, gap time.Duration) result {
		return result{name: "connect", sent: 100, lost: lost, gap: gap, tcp: true}
	}
	stream := func(lost int, gap time.Duration) result {
		return result{name: "stream", sent: 100, lost: lost, gap: gap, tcp: true, stream: true}
	}
	for _, test := range []struct {
		args string
		r    result
		fits bool
	}{
		{"", pings(0, 0), true},
		{"", pings(1, time.Millisecond), false},
		{"", connections(1, 0), false},
		{"", stream(1, 900*time.Millisecond), false},
		{"lost<=1 gap<=1s", stream(1, 900*time.Millisecond), true},
		{"", stream(1, 1100*time.Millisecond), false},
		{"", stream(0, 1100*time.Millisecond), true}, // nothing was sent twice: the machine was busy
		{"lost<=2", stream(2, 0), true},
		{"lost<=2", stream(3, 0), false},
		{"lost<=2", stream(2, 2*time.Second), false},
		{"lost<=10 gap<=2s", pings(10, 2*time.Second), true},
		{"lost<=10 gap<=2s", pings(11, 2*time.Second), false},
		{"lost<=10 gap<=2s", pings(10, 3*time.Second), false},
		{"lost<=10 gap<=2s", connections(7, 5*time.Second), true},
		{"lost<=10 gap<=2s", connections(7, 6*time.Second), false},
		{"lost<=10 gap<=2s", stream(3, 6*time.Second), false},
		{"lost<=10 gap<=2s", result{name: "stream", sent: 1, broken: unix.ECONNRESET}, false},
		{"lost<=10 gap<=2s", result{name: "ping"}, false},
	} {
		allowed, err := parseAllowance(strings.Fields(test.args))
		if err != nil {
			t.Fatal(err)
		}
		if why := allowed.excess(test.r); (why == "") != test.fits {
			t.Errorf("%q allows %v: %q", test.args, test.r, why)
		}
	}
	for _, wrong := range []string{"lost<=x", "gap<=1", "delay<=1s", "lost"} {
		if _, err := parseAllowance([]string{wrong}); err == nil {
			t.Errorf("%s is an allowance", wrong)
		}
	}
}
