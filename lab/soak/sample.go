package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-net/fairlead/lab/world"
)

// Where the processes answer on their own machine.
const (
	agentAddress      = "127.0.0.1:9811"
	controllerAddress = "127.0.0.1:9812"
	controllerPlace   = "controller"
)

// ask gets a path over HTTP, in the network of the calling thread.
func ask(address, path string, patience time.Duration) (status int, body []byte, err error) {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return 0, nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, nil, err
	}
	if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.0\r\nHost: soak\r\n\r\n"); err != nil {
		return 0, nil, err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(response.Body)
	return response.StatusCode, body, err
}

// processOf finds the process of a machine that is the agent or the controller,
// and tells how long it has been there; 0 if there is none.
func processOf(w *world.World, machine, role string) (pid int, age time.Duration, err error) {
	pids, err := w.Processes(machine)
	if err != nil {
		return 0, 0, err
	}
	for _, pid := range pids {
		command, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
		if !bytes.HasPrefix(command, []byte("/fairlead\x00"+role)) {
			continue
		}
		if age, ok := ageOf(pid); ok {
			return pid, age, nil
		}
	}
	return 0, 0, nil
}

// processMetrics are what a process says of itself, by the name of the metric.
var processMetrics = map[string]string{
	"process_resident_memory_bytes": "memory, bytes",
	"go_memstats_heap_alloc_bytes":  "heap, bytes",
	"go_goroutines":                 "goroutines",
	"process_open_fds":              "files",
	"fairlead_addresses_in_use":     "addresses in use",
	"fairlead_addresses_cooling":    "addresses cooling",
	"fairlead_refused_items":        "refused items",
	"fairlead_problems":             "problems",
}

// askProcess reads them, in the network of the calling thread. With collect, the
// process throws away first what it does not use any more.
func askProcess(address string, collect bool) (counts, error) {
	if collect {
		if _, _, err := ask(address, "/debug/pprof/heap?gc=1", 10*time.Second); err != nil {
			return nil, fmt.Errorf("asking for what is in use: %w", err)
		}
	}
	status, body, err := ask(address, "/metrics", 10*time.Second)
	if err != nil || status != http.StatusOK {
		return nil, fmt.Errorf("asking for metrics: status %d: %w", status, err)
	}
	return parseMetrics(body), nil
}

func parseMetrics(text []byte) counts {
	c := counts{}
	for line := range bytes.Lines(text) {
		series, value, ok := strings.Cut(strings.TrimSpace(string(line)), " ")
		if at := strings.LastIndex(series, "}"); at < 0 && strings.Contains(series, "{") {
			// A value of a label has a space in it; none of those wanted has.
			continue
		}
		name, _, _ := strings.Cut(series, "{")
		resource, wanted := processMetrics[name]
		number, err := strconv.ParseFloat(value, 64)
		if !ok || !wanted || err != nil {
			continue
		}
		c[resource] += int64(number)
	}
	return c
}

// count counts all that there is at all places. With collect it is exact about
// memory.
func (s *soak) count(collect bool) (map[place]counts, map[place]names, error) {
	all, which := map[place]counts{}, map[place]names{}
	for _, node := range s.nodes() {
		unlock, ok := s.machine(node)
		if !ok {
			continue // it boots
		}
		err := s.countNode(node, collect, all, which)
		unlock()
		if err != nil && collect {
			return nil, nil, fmt.Errorf("counting what is on %s: %w", node, err)
		}
	}
	return all, which, nil
}

// countNode adds what is on a node, and the controller if it is there.
func (s *soak) countNode(node string, collect bool, all map[place]counts, which map[place]names) error {
	world := s.lab.World()
	uses := s.lookProcessors(node) // first: one that spins may let nothing else be counted
	err := inside(world, node, func(pid int) (err error) {
		all[node], which[node], err = countKernel(pid)
		return err
	})
	if err != nil {
		return err
	}
	for _, process := range []struct{ role, address, where string }{
		{"agent", agentAddress, node}, {"controller", controllerAddress, controllerPlace},
	} {
		pid, age, err := processOf(world, node, process.role)
		if err != nil || pid == 0 {
			continue
		}
		var own counts
		if err := world.Do(node, func() (err error) {
			own, err = askProcess(process.address, collect)
			return err
		}); err != nil {
			return err
		}
		own["age, s"] = int64(age.Seconds())
		if use, ok := uses[process.where]; ok {
			own[processorUse] = use
		}
		if collect {
			if err := s.keepStacks(process.where, process.address, node); err != nil {
				return err
			}
		}
		if all[process.where] == nil {
			all[process.where] = counts{}
		}
		maps.Copy(all[process.where], own)
	}
	return nil
}

// keepStacks writes down what the goroutines of a process do, equal ones together, at
// the start and at the end: where there are more, it tells which.
func (s *soak) keepStacks(where place, address, node string) error {
	var stacks []byte
	err := s.lab.World().Do(node, func() (err error) {
		_, stacks, err = ask(address, "/debug/pprof/goroutine?debug=1", 10*time.Second)
		return err
	})
	if err != nil {
		return fmt.Errorf("asking for goroutines: %w", err)
	}
	when := "start"
	if !s.r.began.IsZero() {
		when = "end"
	}
	return os.WriteFile(filepath.Join(s.o.out, fmt.Sprintf("goroutines-%s-%s.txt", where, when)), stacks, 0o600)
}

// sheet writes samples to a file, a line for each place and time.
type sheet struct {
	columns []string
	out     *csv.Writer
}

// sheetColumns are the resources that have one.
var sheetColumns = []string{
	"age, s", processorUse, "memory, bytes", "heap, bytes", "goroutines", "files", "addresses in use", "problems", "veths", "links", "routes",
	"permanent neighbours", "forwarding entries", "rules", "elements", "connections", "namespaces",
}

func newSheet(file io.Writer) (*sheet, error) {
	s := &sheet{columns: sheetColumns, out: csv.NewWriter(file)}
	if err := s.out.Write(append([]string{"time", "place"}, s.columns...)); err != nil {
		return nil, fmt.Errorf("writing samples: %w", err)
	}
	return s, nil
}

func (s *sheet) write(now time.Time, all map[place]counts) error {
	for _, where := range slices.Sorted(maps.Keys(all)) {
		line := []string{now.UTC().Format(time.RFC3339), where}
		for _, column := range s.columns {
			cell := ""
			if value, ok := all[where][column]; ok {
				cell = strconv.FormatInt(value, 10)
			}
			line = append(line, cell)
		}
		if err := s.out.Write(line); err != nil {
			return fmt.Errorf("writing samples: %w", err)
		}
	}
	s.out.Flush()
	return s.out.Error()
}
