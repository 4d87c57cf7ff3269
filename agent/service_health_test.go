package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-net/fairlead/dataplane"
	"github.com/fairlead-net/fairlead/model"
)

// TestServiceHealth: a change may wait for a minute, and a node that is to go is
// no place to send clients to, though it is alive.
func TestServiceHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := &model.Feed{}
		state := idle(feed)
		h := newServiceHealth(&Config{Log: slog.New(slog.DiscardHandler)}, state)
		node := newCluster("10.244.0.0/24").node
		feed.Edit(func(s *model.Snapshot) { s.Nodes = s.Nodes.With(testNode, node) })
		apply := func() {
			latest, _ := feed.Latest()
			state.loop.served.begin()
			state.loop.served.end(latest, nil)
		}
		ask := func(path string) (int, map[string]any) {
			answer := httptest.NewRecorder()
			h.mux().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
			body := map[string]any{}
			must(t, json.Unmarshal(answer.Body.Bytes(), &body))
			if answer.Header().Get("Content-Type") != "application/json" || answer.Header().Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s has the header %v", path, answer.Header())
			}
			return answer.Code, body
		}
		expect := func(when string, health, life int) {
			t.Helper()
			code, body := ask("/healthz")
			live, liveBody := ask("/livez")
			if code != health || live != life {
				t.Errorf("%s: %d %v, %d %v; want %d, %d", when, code, body, live, liveBody, health, life)
			}
			if _, has := liveBody["nodeEligible"]; has || body["nodeEligible"] == nil || body["currentTime"] != time.Now().Format(time.RFC3339Nano) {
				t.Errorf("%s: %v, %v", when, body, liveBody)
			}
			if (code == 200) != (body["lastUpdated"] == body["currentTime"]) {
				t.Errorf("%s: %v", when, body)
			}
		}
		time.Sleep(time.Second)
		apply()
		applied := time.Now()
		time.Sleep(time.Hour)
		expect("nothing changed for long", 200, 200)
		change(feed, "other")
		time.Sleep(lateAfter)
		expect("a change waits", 200, 200)
		time.Sleep(time.Millisecond)
		expect("it waits for too long", 503, 503)
		if _, body := ask("/healthz"); body["lastUpdated"] != applied.Format(time.RFC3339Nano) || body["nodeEligible"] != true {
			t.Errorf("then it says %v", body)
		}
		apply()
		expect("it is applied", 200, 200)
		time.Sleep(time.Hour)
		leaving := *node
		leaving.Leaving = true
		feed.Edit(func(s *model.Snapshot) { s.Nodes = s.Nodes.With(testNode, &leaving) })
		apply()
		time.Sleep(time.Second)
		expect("the node is to go", 503, 200)
		feed.Edit(func(s *model.Snapshot) { s.Nodes = s.Nodes.Without(testNode) })
		expect("it is gone", 503, 200)
		got := scrape(t, state.metrics)
		for series, want := range map[string]string{
			`kubeproxy_proxy_healthz_total{code="200"}`: "3", `kubeproxy_proxy_healthz_total{code="503"}`: "4",
			`kubeproxy_proxy_livez_total{code="200"}`: "5", `kubeproxy_proxy_livez_total{code="503"}`: "1",
		} {
			if got[series] != want {
				t.Errorf("%s is %s, want %s", series, got[series], want)
			}
		}
	})
}

// carrying is a data plane that carries Services.
type carrying struct{ *plane }

func (carrying) CarriesServices() {}

// TestServiceHealthOfServicesAlone: what cannot be carried out and has nothing to
// do with Services sends no clients to other nodes; Services that cannot be do.
func TestServiceHealthOfServicesAlone(t *testing.T) {
	broken := func() ([]model.Problem, error) { return nil, errors.New("broken") }
	tunnel, services := &plane{answer: broken}, &plane{}
	withinAll(t, []dataplane.Dataplane{tunnel, carrying{services}}, func(t *testing.T, l *loop, feed *model.Feed) {
		h := &serviceHealth{state: &state{feed: feed, loop: l}}
		expect := func(when string, want bool) {
			t.Helper()
			time.Sleep(2 * lateAfter)
			if h.current() != want || l.behind() < lateAfter {
				t.Errorf("%s: current %t, want %t; all is behind by %v", when, h.current(), want, l.behind())
			}
		}
		expect("a tunnel cannot be made", true)
		if !isDone(l.serving) || isDone(l.began) {
			t.Error("the ports of Services wait for a tunnel")
		}
		change(feed, "another")
		expect("nor when something changed", true)
		services.mu.Lock()
		services.answer = broken
		services.mu.Unlock()
		change(feed, "a third")
		expect("Services neither", false)
	})
}

// TestServiceHealthOfAgent: an agent answers where kube-proxy does, as soon as a
// kube-proxy does not any more, and at the port of a Service when the kernel has
// its endpoints.
func TestServiceHealthOfAgent(t *testing.T) {
	needNode(t)
	taken, err := net.Listen("tcp", ":10256")
	must(t, err)
	cluster := newCluster("10.244.0.0/24", "fd00:10:244::/64")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Config{
			Node: testNode, Version: "test", Source: cluster, Publisher: cluster, Dataplanes: []dataplane.Dataplane{&plane{}},
			RunDir: t.TempDir(), StateDir: t.TempDir(), CNIBinDir: t.TempDir(), CNIConfDir: t.TempDir(),
			Log: slog.New(slog.DiscardHandler), ServiceHealthAddress: ":10256", ServiceMetricsAddress: "127.0.0.1:10249",
		})
	}()
	defer func() {
		cancel()
		must(t, <-ended)
	}()
	get := func(url string) (int, string) {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		answer, err := client.Get(url)
		if err != nil {
			return 0, err.Error()
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		must(t, err)
		return answer.StatusCode, string(text)
	}
	key := model.ServiceKey{Namespace: "default", Name: "web"}
	endpoints := func(nodes ...string) {
		slice := &model.EndpointSlice{
			SliceKey: model.SliceKey{Namespace: "default", Name: "web-1"}, Service: "web",
			Ports: []model.EndpointPort{{Protocol: model.TCP, Port: 8080}}, Triggered: time.Now().UnixNano(),
		}
		for i, node := range nodes {
			slice.Endpoints = append(slice.Endpoints, model.Endpoint{Address: netip.MustParseAddr(fmt.Sprint("10.244.0.", 10+i)), Node: node, Ready: true, Serving: true})
		}
		cluster.edit(func(s *model.Snapshot) { s.Slices = s.Slices.With(slice.SliceKey, slice) })
	}
	<-cluster.synced
	cluster.edit(func(s *model.Snapshot) {
		s.Services = s.Services.With(key, &model.Service{
			ServiceKey: key, ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.1")},
			Ports: []model.ServicePort{{Protocol: model.TCP, Port: 80}}, ExternalLocal: true, HealthCheckNodePort: 30199,
		})
	})
	eventually(t, "the port of the Service to answer", func() bool { code, _ := get("http://127.0.0.1:30199/"); return code == 503 })
	endpoints("other")
	endpoints("other", testNode)
	eventually(t, "an endpoint of this node to be told of", func() bool { code, _ := get("http://192.0.2.1:30199/"); return code == 200 })
	must(t, taken.Close())
	eventually(t, "the port of the other program to be taken over", func() bool { code, _ := get("http://[2001:db8::1]:10256/healthz"); return code == 200 })
	_, text := get("http://127.0.0.1:10249/metrics")
	for _, series := range []string{
		"kubeproxy_sync_proxy_rules_service_changes_total 1\n", "kubeproxy_network_programming_duration_seconds_count ",
		"kubeproxy_sync_proxy_rules_duration_seconds_count ",
		`kubeproxy_proxy_healthz_total{code="200"} 1`, "fairlead_change_duration_seconds_count ", "fairlead_build_info{",
	} {
		if !strings.Contains(text, "\n"+series) {
			t.Errorf("%s is not in the metrics", series)
		}
	}
	if strings.Contains(text, "kubeproxy_network_programming_duration_seconds_count 0") || strings.Contains(text, "kubeproxy_sync_proxy_rules_endpoint_changes_total 0") {
		t.Error("the endpoints were not measured")
	}
	if code, mode := get("http://127.0.0.1:10249/proxyMode"); code != 200 || mode != "nftables" {
		t.Errorf("the mode is %d %s", code, mode)
	}
	cluster.edit(func(s *model.Snapshot) { s.Services = s.Services.Without(key) })
	eventually(t, "the port of the Service to be closed", func() bool { code, _ := get("http://127.0.0.1:30199/"); return code == 0 })
}
