package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// churning changes the endpoints of a Service without a selector, again and
// again, by way of the API server. There is always one that is ready.
type churning struct {
	api     *http.Client // of the API server, by kubectl proxy
	path    string       // of the EndpointSlices of the namespace
	service string
	pods    [][]netip.Addr

	stop    context.CancelFunc
	running sync.WaitGroup
	changes atomic.Int64
	began   time.Time
	failed  atomic.Pointer[error]
}

const (
	churnUsage = "usage: churn SERVICE POD…, then churn until CHANGES, and then churn stop"
	// churnRate is in changes a second, of both families together.
	churnRate = 200
)

// churn SERVICE POD… begins to change which of the pods are endpoints of the
// Service's port http; its port stream stays with the first. churn until N
// waits until there were so many changes. churn stop ends it.
func (s *stories) churn(ts *testscript.TestScript, neg bool, args []string) {
	switch {
	case neg || len(args) == 0:
		ts.Fatalf(churnUsage)
	case args[0] == "stop" && s.churns != nil:
		s.churns.end(ts)
		s.churns = nil
	case args[0] == "until" && len(args) == 2 && s.churns != nil:
		wanted, err := strconv.ParseInt(args[1], 10, 64)
		ts.Check(err)
		wanted *= churnTimes(ts)
		for s.churns.changes.Load() < wanted {
			if err := s.churns.failed.Load(); err != nil {
				ts.Check(*err)
			}
			pause(context.Background(), 50*time.Millisecond)
		}
	case len(args) >= 2 && s.churns == nil:
		s.startChurn(ts, args[0], args[1:])
	default:
		ts.Fatalf(churnUsage)
	}
}

// churnTimes is how many times as many changes there are to be as a story says, by
// the environment: for a longer look than make test has time for.
func churnTimes(ts *testscript.TestScript) int64 {
	text := os.Getenv("FAIRLEAD_CHURN_TIMES")
	if text == "" {
		return 1
	}
	times, err := strconv.ParseInt(text, 10, 64)
	if err != nil || times < 1 {
		ts.Fatalf("FAIRLEAD_CHURN_TIMES=%s: want a number from 1 on", text)
	}
	return times
}

func (s *stories) startChurn(ts *testscript.TestScript, service string, pods []string) {
	namespace := ts.Getenv(namespaceVariable)
	c := &churning{service: service, path: "/apis/discovery.k8s.io/v1/namespaces/" + namespace + "/endpointslices"}
	for _, pod := range pods {
		addrs, err := s.addresses(namespace, pod)
		ts.Check(err)
		c.pods = append(c.pods, addrs)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.stop = cancel
	c.api = s.apiClient(ctx, ts, &c.running)
	ts.Defer(func() { cancel(); c.running.Wait(); s.churns = nil })
	for i := range c.pods[0] {
		ts.Check(c.put(http.MethodPost, c.path, c.slice(i, "stream", viaPort, []int{0})))
		ts.Check(c.put(http.MethodPost, c.path, c.slice(i, "http", 8080, []int{0})))
	}
	c.began = time.Now()
	for family := range c.pods[0] { // side by side: one PUT takes longer than there is time
		c.running.Go(func() { c.run(ctx, family) })
	}
	s.churns = c
}

// apiClient is one of the API server, by kubectl proxy, which is counted in
// running until the context ends.
func (s *stories) apiClient(ctx context.Context, ts *testscript.TestScript, running *sync.WaitGroup) *http.Client {
	socket := filepath.Join(ts.MkAbs("."), "proxy")
	proxy := s.lab.KubectlCommand(ctx, "proxy", "--unix-socket="+socket)
	ts.Check(proxy.Start())
	running.Go(func() { _ = proxy.Wait() })
	for began := time.Now(); ; pause(ctx, 20*time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		if time.Since(began) > patience {
			ts.Fatalf("kubectl proxy does not listen")
		}
	}
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
}

// run changes the endpoints of a family.
func (c *churning) run(ctx context.Context, family int) {
	next := time.NewTicker(time.Duration(len(c.pods[0])) * time.Second / churnRate)
	defer next.Stop()
	for ctx.Err() == nil {
		// Any of them, but one.
		ready := rand.Perm(len(c.pods))[:1+rand.IntN(len(c.pods))]
		slice := c.slice(family, "http", 8080, ready)
		name := slice["metadata"].(map[string]any)["name"].(string)
		if err := c.put(http.MethodPut, c.path+"/"+name, slice); err != nil {
			if ctx.Err() == nil {
				c.failed.Store(&err)
			}
			return
		}
		c.changes.Add(1)
		select {
		case <-ctx.Done():
		case <-next.C:
		}
	}
}

// slice is one of the Service's, by the number of a family and the numbers of
// pods that are ready; half of the others are in it, and are not.
func (c *churning) slice(family int, port string, number int, ready []int) map[string]any {
	kind := "IPv4"
	if c.pods[0][family].Is6() {
		kind = "IPv6"
	}
	is := map[int]bool{}
	for _, pod := range ready {
		is[pod] = true
	}
	var endpoints []any
	for pod, addrs := range c.pods {
		if is[pod] || rand.IntN(2) == 0 {
			endpoints = append(endpoints, map[string]any{
				"addresses": []string{addrs[family].String()}, "conditions": map[string]any{"ready": is[pod]},
			})
		}
	}
	return map[string]any{
		"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": kind,
		"metadata": map[string]any{
			"name": fmt.Sprintf("%s-%s-%d", c.service, port, family), "labels": map[string]any{"kubernetes.io/service-name": c.service},
		},
		"ports": []any{map[string]any{"name": port, "port": number}}, "endpoints": endpoints,
	}
}

func (c *churning) put(method, path string, object map[string]any) error {
	if err := callAPI(c.api, method, path, object); err != nil {
		return fmt.Errorf("changing endpoints: %w", err)
	}
	return nil
}

// callAPI has the API server do something, and returns when it has said that it
// is done.
func callAPI(api *http.Client, method, path string, object map[string]any) error {
	var text []byte
	if object != nil {
		var err error
		if text, err = json.Marshal(object); err != nil {
			return err
		}
	}
	request, err := http.NewRequest(method, "http://localhost"+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := api.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= 300 {
		err = fmt.Errorf("%s: %s", response.Status, answer)
	}
	return err
}

func (c *churning) end(ts *testscript.TestScript) {
	took := time.Since(c.began)
	c.stop()
	c.running.Wait()
	n := c.changes.Load()
	ts.Logf("%d changes of endpoints in %s, %.0f a second", n, took.Round(time.Second), float64(n)/took.Seconds())
	if err := c.failed.Load(); err != nil {
		ts.Check(*err)
	}
}
