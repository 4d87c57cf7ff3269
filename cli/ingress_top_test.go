package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/observe/traffic"
)

// TestIngressTop: what gateways say is added up, those that do not answer are named
// with what to do next, and people read rates, shares and times.
func TestIngressTop(t *testing.T) {
	shop := traffic.Place{Host: "shop.example.org", Path: "/", Namespace: "shop", Ingress: "web", Service: "web"}
	said, _ := json.Marshal(traffic.Report{Seconds: 2, Bounds: []float64{0.001, 1}, Routes: []traffic.Route{
		{Place: shop, Requests: 100, Refused: 10, Errors: 5, Sent: 4000, Took: []uint64{99, 1, 0}, Total: 1000},
		{Place: traffic.Place{Host: "-"}, Requests: 1, Refused: 1, Took: []uint64{1, 0, 0}, Total: 1},
	}})
	pods := []kube.GatewayPod{{Name: "gw-a", Node: "node1", Phase: "Running"}, {Name: "gw-b", Node: "node2", Phase: "Running"}, {Name: "gw-c", Node: "node3", Phase: "Pending"}, {Name: "gw-d", Node: "node4", Phase: "Running"}, {Name: "gw-e", Node: "node5", Phase: "Running"}}
	exec := func(_ context.Context, pod string, command ...string) ([]byte, error) {
		if got := strings.Join(command, " "); got != "/fairlead passing top?over=2s" {
			t.Errorf("%s is asked by %q", pod, got)
		}
		switch pod {
		case "gw-d":
			return nil, &kube.ExitError{Code: int(exitNoServer), Stderr: "connection refused"}
		case "gw-e":
			return nil, errors.New("the kubelet is gone")
		}
		return said, nil
	}
	o := &ingressTopOptions{interval: 2 * time.Second, most: 20}
	output := o.ask(t.Context(), pods, exec)
	if len(output.Routes) != 2 || output.Routes[0].Requests != 200 || output.Routes[0].Place != shop {
		t.Fatalf("%+v", output.Report)
	}
	if len(output.Gateways) != 3 || !strings.Contains(output.Gateways[0].Trouble, "its pod is Pending") || !strings.Contains(output.Gateways[1].Next, "logs gw-d") || !strings.Contains(output.Gateways[2].Next, "kubelet") {
		t.Errorf("%+v", output.Gateways)
	}
	var text bytes.Buffer
	if err := o.print(&text, output, false); err != nil {
		t.Fatal(err)
	}
	want := `101 requests a second, 5% of them failed, over 2.0 s

HOST               PATH   INGRESS    SERVICE   REQUESTS/S   4XX    5XX   P50     P99     BYTES/S   TOTAL
shop.example.org   /      shop/web   web       100          10%    5%    0.5ms   1.0ms   4000      2000
-                                              1.0          100%   0%    0.5ms   1.0ms   0         2

`
	if text.String() != want {
		t.Errorf("it says\n%s\nwant\n%s", text.String(), want)
	}
	o.namespace = "other"
	if output := o.ask(t.Context(), pods[:1], exec); len(output.Routes) != 0 {
		t.Errorf("of another namespace there are %+v", output.Routes)
	}
}

// TestAccessLogOptions: what is no place or form is refused with what is.
func TestAccessLogOptions(t *testing.T) {
	command := gatewayCommand()
	command.SetOut(&bytes.Buffer{})
	for _, c := range []struct {
		options accessLogOptions
		says    string
	}{
		{accessLogOptions{"stdout", "text", 1}, "neither json nor upstreaminfo"},
		{accessLogOptions{"stdout", "json", 0}, "not 1 or more"},
		{accessLogOptions{"/nonexistent/log", "json", 1}, "--access-log"},
		{accessLogOptions{t.TempDir() + "/log", "upstreaminfo", 1}, ""},
		{accessLogOptions{"off", "json", 1}, ""},
	} {
		log, err := c.options.open(command)
		if (err != nil) != (c.says != "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v, want %q", c.options, err, c.says)
		}
		if err == nil && (log.To == nil) != (c.options.to == "off") {
			t.Errorf("%+v: it is written to %v", c.options, log.To)
		}
	}
}

// TestStrictTransport: what browsers would pass over is refused.
func TestStrictTransport(t *testing.T) {
	command := gatewayCommand()
	for value, ok := range map[string]bool{
		"": true, "max-age=0": true, "max-age=31536000; includeSubDomains": true, "max-age=1;includeSubDomains;preload": true, "max-age=63072000; preload": true,
		"31536000": false, "max-age": false, "max-age=1y": false, "includeSubDomains": false, "max-age=1; preload; includeSubDomains\r\nX: y": false, "max-age=1 includeSubDomains": false,
	} {
		err := judgeStrictTransport(command, value)
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "--strict-transport-security") {
			t.Errorf("%q: %v", value, err)
		}
	}
}
