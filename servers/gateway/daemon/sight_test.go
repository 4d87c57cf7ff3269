package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/traffic"
)

// fetch returns what is served at a URL.
func fetch(url string) string {
	response, err := http.Get(url)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return string(body)
}

// TestSight: what was answered shows in the metrics, with ingress-nginx's names and
// labels, in the log, and in what ingress top asks for. A change of routes loses
// none of it.
func TestSight(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "backend") }))
	t.Cleanup(backend.Close)
	c := &cluster{feed: make(chan *model.Feed, 1), synced: make(chan struct{}), changed: make(chan struct{})}
	c.put(&model.Secret{SecretKey: model.SecretKey{Namespace: "shop", Name: "pair"}, Content: pemPair(t, "shop.example.org", time.Unix(2_000_000_000, 0))})
	var requests lockedBuffer
	at, health := freePort(t), freePort(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- Run(ctx, Config{Source: c, HTTPS: []netip.AddrPort{at}, HealthAddress: health.String(), AccessLog: AccessLog{To: &requests}, Log: slog.New(slog.DiscardHandler)})
	}()
	feed := <-c.feed
	feed.Edit(func(s *model.Snapshot) { addShop(s, netip.MustParseAddrPort(backend.Listener.Addr().String())) })
	close(c.synced)
	eventually(t, "200 backend shop.example.org", func() string { return ask(at) })
	metrics := func() string { return fetch(fmt.Sprintf("http://%s/metrics", health)) }
	const labels = `canary="",host="shop.example.org",ingress="web",method="GET",namespace="shop",path="/",service="web",status="200"`
	for _, want := range []string{
		"nginx_ingress_controller_requests{" + labels + "} 1\n",
		"nginx_ingress_controller_request_duration_seconds_count{" + labels + "} 1\n",
		"nginx_ingress_controller_request_duration_seconds_bucket{" + labels + `,le="0.005"} `,
		"nginx_ingress_controller_response_duration_seconds_count{" + labels + "} 1\n",
		"nginx_ingress_controller_request_size_bucket{" + labels + `,le="1000"} 1` + "\n",
		"nginx_ingress_controller_response_size_bucket{" + labels + `,le="10"} 0` + "\n",
		`nginx_ingress_controller_connect_duration_seconds_count{canary="",host="shop.example.org",ingress="web",namespace="shop",path="/",service="web"} 1` + "\n",
		`nginx_ingress_controller_ssl_expire_time_seconds{host="shop.example.org",namespace="shop",secret_name="pair"} 2e+09` + "\n",
		`nginx_ingress_controller_nginx_process_connections{state="active"} `,
		`nginx_ingress_controller_nginx_process_connections_total{state="handled"} `,
		"nginx_ingress_controller_nginx_process_requests_total 1\n",
	} {
		eventually(t, "yes", func() string {
			if text := metrics(); !strings.Contains(text, want) {
				return "not there: " + want
			}
			return "yes"
		})
	}
	feed.Edit(func(s *model.Snapshot) {
		s.Ingresses = s.Ingresses.With(model.IngressKey{Namespace: "x", Name: "y"}, &model.HTTPIngress{})
	})
	top := make(chan string)
	go func() { top <- fetch(fmt.Sprintf("http://%s/debug/top?over=1s", health)) }()
	time.Sleep(200 * time.Millisecond) // what is asked in the period counts; when it begins, nobody tells
	if got := ask(at); got != "200 backend shop.example.org" {
		t.Error(got)
	}
	var report traffic.Report
	if err := json.Unmarshal([]byte(<-top), &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Routes) != 1 || report.Routes[0].Requests != 1 || report.Routes[0].Total != 2 || report.Routes[0].Ingress != "web" || report.Routes[0].Sent == 0 {
		t.Errorf("top: %+v", report)
	}
	if text := fetch(fmt.Sprintf("http://%s/debug/top?over=1h", health)); !strings.Contains(text, "up to 30s") {
		t.Errorf("a question for an hour: %s", text)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if text := requests.String(); strings.Count(text, `"ingress":"web"`) != 2 { // the last one was written at the end
		t.Errorf("the log is\n%s", text)
	}
}
