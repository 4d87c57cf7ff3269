package main

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestScheduleOfSeed: a seed says all that is done, and another one something
// else.
func TestScheduleOfSeed(t *testing.T) {
	take := func(seed uint64) (steps []step) {
		for s := newSchedule(seed); len(steps) < 2000; {
			steps = append(steps, s.next())
		}
		return steps
	}
	first := take(1)
	if !reflect.DeepEqual(first, take(1)) {
		t.Error("one seed has two orders")
	}
	if reflect.DeepEqual(first, take(2)) {
		t.Error("two seeds have one order")
	}
}

// TestScheduleIsPossible: what is deleted or scaled is there, nothing is created
// twice, bounds hold, and all kinds come.
func TestScheduleIsPossible(t *testing.T) {
	for seed := range uint64(20) {
		there := map[string]bool{}
		kinds := map[kind]int{}
		ports := map[int]bool{}
		spare, ended := false, map[string]bool{}
		s := newSchedule(seed)
		for range 3000 {
			step := s.next()
			kinds[step.Kind]++
			switch step.Kind {
			case createWorkload, createPod, createService:
				if there[step.Name] || step.Of != "" && !there[step.Of] {
					t.Fatalf("seed %d: %s: it is there, or what it is for is not", seed, step)
				}
				there[step.Name] = true
				if step.Kind == createPod && step.Count > 0 {
					ports[step.Count] = true
				}
			case deleteWorkload, deletePod, deleteService, scaleWorkload, rollWorkload:
				if !there[step.Name] {
					t.Fatalf("seed %d: %s: it is not there", seed, step)
				}
				there[step.Name] = step.Kind == scaleWorkload || step.Kind == rollWorkload
			case addNode, removeNode:
				if spare != (step.Kind == removeNode) {
					t.Fatalf("seed %d: %s", seed, step)
				}
				spare = !spare
			case killAgent, starveMemory, deleteAgent:
				if step.Kind != deleteAgent && ended[step.Node] {
					t.Fatalf("seed %d: %s, whose agent the kubelet would let wait", seed, step)
				}
				ended[step.Node] = step.Kind != deleteAgent
			}
			switch step.Kind {
			case killAgent, starveMemory, deleteAgent, reboot:
				if step.Node == quietNode {
					t.Fatalf("seed %d: %s: this agent is to live", seed, step)
				}
			}
			if step.Pause < time.Second || step.Pause > 15*time.Second {
				t.Fatalf("seed %d: %s after %s", seed, step, step.Pause)
			}
			if len(s.workloads) > mostWorkloads || len(s.pods) > mostPods || len(s.services) > mostServices {
				t.Fatalf("seed %d: after %s there is too much", seed, step)
			}
		}
		if len(kinds) != len(choices) {
			t.Errorf("seed %d: %d kinds of %d", seed, len(kinds), len(choices))
		}
		if len(ports) < kinds[createPod]/4 {
			t.Errorf("seed %d: %d host ports for %d pods", seed, len(ports), kinds[createPod])
		}
	}
}

// TestUserSpace: who ends an agent that carries packets, ends tunnels.
func TestUserSpace(t *testing.T) {
	carried := 0
	s := newSchedule(3)
	for range 2000 {
		before := s.backend
		step := s.next()
		if (before == "udp" || s.backend == "udp") && !step.UserSpace {
			t.Fatalf("%s with %s does not say that packets go through user space", step, s.backend)
		}
		if step.UserSpace {
			carried++
		}
	}
	if carried == 0 || carried == 2000 {
		t.Errorf("%d of 2000 steps", carried)
	}
}

func TestCompare(t *testing.T) {
	start := map[place]counts{"node1": {"routes": 7, "goroutines": 100, "memory, bytes": 40 << 20, "veths": 2, "age, s": 5}}
	peak := map[place]counts{"node1": {"routes": 20, "veths": 1}}
	end := map[place]counts{"node1": {"routes": 8, "goroutines": 104, "memory, bytes": 60 << 20, "veths": 2, "age, s": 500, "tables": 1}}
	all := compare(start, peak, end)
	var text []string
	for _, l := range leaks(all) {
		text = append(text, l.where+" "+l.resource)
	}
	// A table that was not there is one too many.
	if want := []string{"node1 routes", "node1 tables"}; !reflect.DeepEqual(text, want) {
		t.Errorf("leaks are %q, want %q", text, want)
	}
	for _, l := range all {
		if l.resource == "routes" && l.peak != 20 || l.resource == "veths" && l.peak != 2 {
			t.Errorf("%+v", l)
		}
	}
	end["node1"] = counts{"goroutines": 106, "memory, bytes": 67 << 20, "veths": 1}
	if found := leaks(compare(start, peak, end)); len(found) != 2 {
		t.Errorf("leaks are %+v, want goroutines and memory", found)
	}
	if more := added([]string{"a", "b", "b"}, []string{"b", "c", "b", "b"}); more != "b; c" {
		t.Errorf("added: %q", more)
	}
}

func TestWindows(t *testing.T) {
	var w windows
	at := func(second int) time.Time { return time.Unix(int64(second), 0) }
	cut := w.open(at(10), "cut", links, "node1")
	for _, test := range []struct {
		needs      effect
		nodes      []string
		from, till int
		excused    bool
	}{
		{links | tunnels, []string{"node1", "node2"}, 12, 13, true},
		{links, []string{"node2", "node3"}, 12, 13, false},
		{tunnels, []string{"node1"}, 12, 13, false},
		{links, []string{"node1"}, 8, 9, false},
		{links, []string{"node1"}, 8, 10, true},
		{links, nil, 12, 13, true},
	} {
		if got := w.excuse(test.needs, test.nodes, at(test.from), at(test.till)) != ""; got != test.excused {
			t.Errorf("%+v: %t", test, got)
		}
	}
	w.close(cut, at(20))
	if w.excuse(links, []string{"node1"}, at(19), at(30)) == "" || w.excuse(links, []string{"node1"}, at(21), at(30)) != "" {
		t.Error("a closed window does not end at its time")
	}
	w.open(at(40), "all", api)
	if w.excuse(api, []string{"node7"}, at(41), at(41)) != "all" {
		t.Error("a window of all nodes does not excuse one")
	}
}

// TestComplaints: what is so for too long is told once, and again when it has
// been over; the time in which it is excused does not count.
func TestComplaints(t *testing.T) {
	c := newComplaints()
	one := complaint{key: "k", after: 3 * time.Second}
	excused := false
	var told []int
	for second := range 20 {
		found := []complaint{one}
		if second == 10 {
			found = nil
		}
		excused = second == 2
		for range c.judge(time.Unix(int64(second), 0), found, func(complaint) bool { return excused }) {
			told = append(told, second)
		}
	}
	if want := []int{4, 14}; !reflect.DeepEqual(told, want) {
		t.Errorf("told at %v, want %v", told, want)
	}
}

func TestDuplicates(t *testing.T) {
	a, b := netip.MustParseAddr("10.244.0.5"), netip.MustParseAddr("10.244.1.5")
	kernels := map[string]*kernelView{
		"node1": {pods: map[string][]netip.Addr{"x/p": {a}, "x/q": {b}}},
		"node2": {pods: map[string][]netip.Addr{"x/r": {a}}},
	}
	found := duplicates(kernels)
	if len(found) != 1 || !strings.Contains(found[0].text, "x/p on node1 and x/r on node2") {
		t.Errorf("%+v", found)
	}
}

func TestStale(t *testing.T) {
	v := &view{pods: make([]pod, 2), named: map[netip.Addr]bool{netip.MustParseAddr("10.244.0.8"): true}}
	addr := func(text string) netip.AddrPort { return netip.MustParseAddrPort(text) }
	set := func(p *pod, text string) {
		p.Status.PodIPs = append(p.Status.PodIPs, struct {
			IP netip.Addr `json:"ip"`
		}{netip.MustParseAddr(text)})
	}
	set(&v.pods[0], "10.244.0.5")
	set(&v.pods[1], "10.244.0.6")
	v.pods[1].Status.Phase = "Failed"
	flows := []flow{
		{client: addr("10.244.0.2:999"), service: addr("10.96.0.1:80"), endpoint: addr("10.244.0.5:8081")},
		{client: addr("10.244.0.2:999"), service: addr("10.96.0.1:80"), endpoint: addr("10.244.0.6:8081")},
		{client: addr("10.244.0.2:999"), service: addr("10.96.0.1:80"), endpoint: addr("10.244.0.7:8081")},
		{client: addr("10.244.0.2:999"), service: addr("10.96.0.1:80"), endpoint: addr("10.244.0.8:8081")},
		{client: addr("10.244.0.2:999"), service: addr("203.0.113.10:53"), endpoint: addr("203.0.113.11:53")},
	}
	var text []string
	for _, c := range stale("node1", flows, v) {
		text = append(text, c.key[len(c.key)-len("10.244.0.x:8081"):])
	}
	if want := []string{"10.244.0.6:8081", "10.244.0.7:8081"}; !reflect.DeepEqual(text, want) {
		t.Errorf("stale are %q, want %q", text, want)
	}
}

func TestParseMetrics(t *testing.T) {
	c := parseMetrics([]byte("# HELP go_goroutines x\ngo_goroutines 12\nfairlead_addresses_in_use{family=\"ipv4\"} 3\nfairlead_addresses_in_use{family=\"ipv6\"} 3\nprocess_resident_memory_bytes 5.1e+07\nother{text=\"a b\"} 1\n"))
	if want := (counts{"goroutines": 12, "addresses in use": 6, "memory, bytes": 51000000}); !reflect.DeepEqual(c, want) {
		t.Errorf("%v, want %v", c, want)
	}
}

// TestReport: what broke and what leaked is in it, and what is fine is not blamed.
func TestReport(t *testing.T) {
	r := &report{
		seed: 7, steps: map[kind]int{killAgent: 3}, looks: map[string]int{"agents are healthy": 9},
		traffic: map[string]tally{"pings": {sent: 100, lost: 1}}, broken: []string{"pings: 1 lost"},
		leaks: []leak{{where: "node1", resource: "routes", start: 7, peak: 9, end: 8, leaked: true}, {where: "node1", resource: "veths", start: 2, peak: 9, end: 2}},
		left:  map[string]string{"node1 routes": "10.244.0.9/32"},
	}
	text := r.markdown()
	for _, want := range []string{
		"Seed 7", "**1 invariants broken, 1 leaks.**", "- pings: 1 lost", "| kill agent | 3 |", "| pings | 100 | 1 |",
		"| routes | node1 | 7 | 9 | 8 | **leak** 10.244.0.9/32 |", "| veths | node1 | 2 | 9 | 2 |  |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}
