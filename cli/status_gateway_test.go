package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/servers/gateway/daemon"
)

// deniedGateways are those that the user may not read all of.
type deniedGateways struct {
	pods        []kube.GatewayPod
	noPods, err error
}

func (d deniedGateways) Gateways(context.Context) ([]kube.GatewayPod, error) { return d.pods, d.noPods }
func (d deniedGateways) GatewayNodes(context.Context) (int, error)           { return 0, d.err }
func (d deniedGateways) ExecGateway(context.Context, string, ...string) ([]byte, error) {
	return nil, errors.New("you may not")
}

// TestStatusWithoutGateways: who may not read whether there are gateways is told so, and
// how the network is all the same. Another error is one.
func TestStatusWithoutGateways(t *testing.T) {
	now := time.Now()
	denied := fmt.Errorf("read DaemonSet x: %w", apierrors.NewForbidden(schema.GroupResource{Group: "apps", Resource: "daemonsets"}, "x", errors.New("no role")))
	pods := []kube.GatewayPod{{Name: "gw-a", Node: "a", Phase: "Running", Ready: true}}
	for name, reader := range map[string]deniedGateways{
		"the DaemonSet":         {err: denied},
		"the DaemonSet of pods": {err: denied, pods: pods},
		"pods of gateways":      {noPods: denied},
	} {
		for _, node := range []string{"", "a"} {
			found, err := findGateways(t.Context(), reader, node)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			overview := &kube.Overview{Installed: true, Nodes: []kube.NodeOverview{statusNode("a", now)}}
			var out bytes.Buffer
			if node == "" {
				status := judge(overview, found, now)
				if err := printStatus(&out, &format{name: inText}, status, now); err != nil {
					t.Fatal(err)
				}
				if status.State != "healthy" || !strings.Contains(out.String(), "gateways: not known: read DaemonSet x") || strings.Contains(out.String(), "GATEWAY") != (len(reader.pods) > 0) {
					t.Errorf("%s: %s\n%s", name, status.State, out.String())
				}
				continue
			}
			status, err := judgeOne(overview, found, node, now)
			if err == nil {
				err = printNodeStatus(&out, status, false, now)
			}
			if err != nil {
				t.Fatal(err)
			}
			if status.State != "healthy" || strings.Contains(out.String(), "not known: read DaemonSet x") != (reader.noPods != nil) {
				t.Errorf("%s, of the node: %s\n%s", name, status.State, out.String())
			}
		}
	}
	if _, err := findGateways(t.Context(), deniedGateways{err: errors.New("it is down")}, ""); err == nil {
		t.Error("gateways that cannot be read are none")
	}
}

// TestGatewayStatus: what is wrong with a gateway or a certificate is a problem of the
// network, what is wrong with Ingresses is counted, and who may not ask is told so.
func TestGatewayStatus(t *testing.T) {
	now := time.Now()
	said := func() *daemon.Details {
		return &daemon.Details{
			Version: "v1", Revision: 7, Hosts: 3, Listening: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:8080")},
			Problems: map[string]int{"NoEndpoints": 2, "PathTaken": 5},
		}
	}
	for name, c := range map[string]struct {
		change func(f *gatewaysFound, details map[string]*daemon.Details)
		state  string
		says   []string
		not    string
	}{
		"all well": {func(*gatewaysFound, map[string]*daemon.Details) {}, "healthy", []string{
			"GATEWAY   STATE   ROUTES    HOSTS   HTTP/3   VERSION\na         ready   current   3       off      v1\nb         ready   current   3       off      v1\n",
			"\ningresses: 5 PathTaken, 2 NoEndpoints\n  next: fairlead ingress lint; kubectl get events -A",
		}, ""},
		"one is missing": {func(f *gatewaysFound, _ map[string]*daemon.Details) { f.wanted = 3 }, "unhealthy",
			[]string{"DaemonSet/kube-system/fairlead-gateway\n", "to have one: 1 of 3\n", "describe daemonset fairlead-gateway"}, ""},
		"all are missing": {func(f *gatewaysFound, _ map[string]*daemon.Details) { f.pods = nil }, "unhealthy", []string{"to have one: 2 of 2\n"}, "ingresses:"},
		"one does not start": {func(f *gatewaysFound, details map[string]*daemon.Details) {
			f.pods[1].Ready, f.pods[1].Phase, f.pods[1].State = false, "Pending", "ImagePullBackOff: no such image"
		}, "unhealthy", []string{"Pod/kube-system/gw-b\n", "the gateway of node b is not ready (ImagePullBackOff: no such image)", "logs gw-b", "b         ImagePullBackOff: no such image   unknown"}, ""},
		"one is replaced": {func(f *gatewaysFound, _ map[string]*daemon.Details) {
			f.pods = append(f.pods, kube.GatewayPod{Name: "gw-b2", Node: "b", Phase: "Pending"})
		}, "healthy", []string{"b         not ready   unknown"}, "not known"},
		"one hears nothing": {func(_ *gatewaysFound, details map[string]*daemon.Details) {
			details["gw-a"].Unfed, details["gw-a"].Problems = []string{"ingresses cannot be watched: it is down"}, nil
		}, "unhealthy", []string{"Pod/kube-system/gw-a\n", "the gateway of node a serves on by what it knew: ingresses cannot be watched: it is down", "a         ready   old", "5 PathTaken"}, ""},
		"a certificate": {func(_ *gatewaysFound, details map[string]*daemon.Details) {
			for _, d := range details {
				d.Certificates = []v1alpha1.Problem{{Kind: "Secret", Namespace: "shop", Name: "tls", Reason: "CertificateEndsSoon", Message: "the certificate of a ends at x", Remedy: "renew it"}}
				d.MoreCertificates = 2
			}
		}, "unhealthy", []string{": 2 problems\n", "Secret/shop/tls\n", "could not be ordered: 2\n"}, ""},
		"who may not ask": {func(_ *gatewaysFound, details map[string]*daemon.Details) { clear(details) }, "healthy",
			[]string{"a         ready   unknown", "not known: b: the gateway does not answer: you may not"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			found := &gatewaysFound{wanted: 2, pods: []kube.GatewayPod{
				{Name: "gw-a", Node: "a", Phase: "Running", Ready: true}, {Name: "gw-b", Node: "b", Phase: "Running", Ready: true},
			}}
			details := map[string]*daemon.Details{"gw-a": said(), "gw-b": said()}
			c.change(found, details)
			found.ask(t.Context(), func(_ context.Context, pod string, command ...string) ([]byte, error) {
				if got := strings.Join(command, " "); got != "/fairlead passing status" {
					t.Errorf("%s is asked by %q", pod, got)
				}
				if details[pod] == nil {
					return nil, errors.New("you may not")
				}
				return json.Marshal(details[pod])
			})
			overview := &kube.Overview{Installed: true, Nodes: []kube.NodeOverview{statusNode("a", now), statusNode("b", now)}}
			status := judge(overview, found, now)
			var out bytes.Buffer
			if err := printStatus(&out, &format{name: inText}, status, now); err != nil {
				t.Fatal(err)
			}
			if status.State != c.state || c.not != "" && strings.Contains(out.String(), c.not) {
				t.Errorf("it is %s:\n%s", status.State, out.String())
			}
			for _, part := range c.says {
				if !strings.Contains(out.String(), part) {
					t.Errorf("%q is not in\n%s", part, out.String())
				}
			}
		})
	}
}
