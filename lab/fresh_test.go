package lab

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"github.com/rogpeppe/go-internal/testscript"
)

const freshUsage = "usage: fresh FROM TIMES"

// freshening changes names, and asks until they are answered as they are now.
type freshening struct {
	api       *http.Client
	namespace string
	wire      *dns.Conn // to the address of DNS
	took      map[string][]time.Duration
}

// fresh FROM TIMES has the API server make a Service of whose name FROM was told
// that there is none, change the endpoint of a headless Service, and delete the
// first one, so many times, and fails if what FROM is told does not follow. It
// tells how long that took, from when the API server said that it was done.
func (s *stories) fresh(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf(freshUsage)
	}
	times, err := strconv.Atoi(args[1])
	if err != nil || times < 1 || times > 250 {
		ts.Fatalf("%s is not a number from 1 to 250; %s", args[1], freshUsage)
	}
	f := &freshening{namespace: ts.Getenv(namespaceVariable), took: map[string][]time.Duration{}}
	source, err := s.netns(f.namespace, args[0])
	ts.Check(err)
	defer source.Close()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	f.api = s.apiClient(ctx, ts, &running)
	server := s.lab.state.Config.Family.pickText(dnsAddress4, dnsAddress6)[0]
	ts.Check(within(source, func() error {
		conn, err := net.Dial("udp", netip.AddrPortFrom(netip.MustParseAddr(server), 53).String())
		if err != nil {
			return err
		}
		defer conn.Close()
		f.wire = &dns.Conn{Conn: conn}
		return f.run(times)
	}))
	for _, what := range sortedKeys(f.took) {
		all := f.took[what]
		slices.Sort(all)
		at := func(percent int) time.Duration { return all[(len(all)-1)*percent/100].Round(10 * time.Microsecond) }
		ts.Logf("%s: %d times; %s half of them, %s 90 of 100, %s 99 of 100, %s the longest", what, len(all), at(50), at(90), at(99), at(100))
	}
}

func (f *freshening) run(times int) error {
	services := "/api/v1/namespaces/" + f.namespace + "/services"
	endpointSlices := "/apis/discovery.k8s.io/v1/namespaces/" + f.namespace + "/endpointslices"
	if err := callAPI(f.api, http.MethodPost, services, service("headless", "None")); err != nil {
		return err
	}
	if err := callAPI(f.api, http.MethodPost, endpointSlices, manualSlice(0)); err != nil {
		return err
	}
	for n := range times {
		name, addr := fmt.Sprintf("fresh-%d", n), fmt.Sprintf("198.51.100.%d", n+1)
		if told, err := f.ask(name); err != nil || told != "NXDOMAIN" {
			return fmt.Errorf("%s is answered with %s (%v), and there is none yet", name, told, err)
		}
		for _, step := range []struct {
			what, method, path string
			object             map[string]any
			name, want         string
		}{
			{"a Service is made", http.MethodPost, services, service(name, ""), name, "10.96."},
			{"an endpoint is another", http.MethodPut, endpointSlices + "/manual", manualSlice(n + 1), "headless", addr},
			{"a Service is deleted", http.MethodDelete, services + "/" + name, nil, name, "NXDOMAIN"},
		} {
			if err := callAPI(f.api, step.method, step.path, step.object); err != nil {
				return err
			}
			took, err := f.until(step.name, step.want)
			if err != nil {
				return fmt.Errorf("%s: %w", step.what, err)
			}
			f.took[step.what] = append(f.took[step.what], took)
		}
	}
	return nil
}

// until asks until a name is answered as it should be.
func (f *freshening) until(name, want string) (time.Duration, error) {
	for began := time.Now(); ; time.Sleep(200 * time.Microsecond) { // nobody tells
		told, err := f.ask(name)
		switch took := time.Since(began); {
		case err != nil:
			return took, err
		case strings.HasPrefix(told, want):
			return took, nil
		case took > 5*time.Second:
			return took, fmt.Errorf("%s is answered with %s after %s, and should be with %s", name, told, took, want)
		}
	}
}

// ask returns the address that a Service is answered with, or the rcode.
func (f *freshening) ask(name string) (string, error) {
	query := new(dns.Msg).SetQuestion(name+"."+f.namespace+".svc.cluster.local.", dns.TypeA)
	if err := f.wire.SetDeadline(time.Now().Add(queryTime)); err != nil {
		return "", err
	}
	if err := f.wire.WriteMsg(query); err != nil {
		return "", err
	}
	for {
		answer, err := f.wire.ReadMsg()
		switch {
		case err != nil:
			return "", err
		case answer.Id != query.Id:
			continue
		case len(answer.Answer) == 1:
			return answer.Answer[0].(*dns.A).A.String(), nil
		}
		return dns.RcodeToString[answer.Rcode], nil
	}
}

// service is one of a port and without a selector.
func service(name, clusterIP string) map[string]any {
	spec := map[string]any{"ports": []any{map[string]any{"port": 80}}}
	if clusterIP != "" {
		spec["clusterIP"] = clusterIP
	}
	return map[string]any{"apiVersion": "v1", "kind": "Service", "metadata": map[string]any{"name": name}, "spec": spec}
}

// manualSlice is the EndpointSlice of the headless Service, with another address
// each time.
func manualSlice(n int) map[string]any {
	return map[string]any{
		"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
		"metadata":  map[string]any{"name": "manual", "labels": map[string]any{"kubernetes.io/service-name": "headless"}},
		"ports":     []any{map[string]any{"port": 80}},
		"endpoints": []any{map[string]any{"addresses": []string{fmt.Sprintf("198.51.100.%d", n)}}},
	}
}
