package kube

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// TestServing: which Services there are to people, which of them are served, why
// the others are not, and whose pods are behind them.
func TestServing(t *testing.T) {
	api := newStub(t)
	for name, rest := range map[string]string{
		"web":      `"spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}`,
		"balanced": `"spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.2", "ports": [{"port": 80}, {"port": 81, "protocol": "ICMP"}]}`,
		"headless": `"spec": {"clusterIP": "None"}`,
		"named":    `"spec": {"type": "ExternalName", "externalName": "example.com"}`,
		"early":    `"spec": {"type": "ClusterIP"}`,
	} {
		api.put(servicesPath, `{"kind": "Service", "apiVersion": "v1", "metadata": {"namespace": "shop", "name": "`+name+`"}, `+rest+`}`)
	}
	api.put(servicesPath, `{"kind": "Service", "apiVersion": "v1", "metadata": {"namespace": "shop", "name": "meshed",
		"labels": {"service.kubernetes.io/service-proxy-name": "mesh"}}, "spec": {"clusterIP": "10.96.0.3"}}`)
	for name, label := range map[string]string{"web": "app", "headless": "service.kubernetes.io/headless"} {
		api.put(slicesPath, `{"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
			"metadata": {"namespace": "shop", "name": "`+name+`-1", "labels": {"kubernetes.io/service-name": "`+name+`", "`+label+`": ""}},
			"endpoints": [{"addresses": ["10.244.0.1"], "targetRef": {"kind": "Pod", "name": "`+name+`-0"}}, {"addresses": ["10.244.0.2"]}],
			"ports": [{"port": 8080}]}`)
	}
	serving, err := api.client(Options{}).Serving(t.Context(), model.ServiceKey{})
	if err != nil {
		t.Fatal(err)
	}
	unserved := map[string]string{
		"headless": "headless", "named": "another one for example.com", "early": "no clusterIP yet", "meshed": `to another program, "mesh"`,
	}
	var names []string
	for _, s := range serving.Services {
		names = append(names, s.Name)
		why, not := unserved[s.Name]
		if not != (s.Unserved != "") || !strings.Contains(s.Unserved, why) || not == (s.Served != nil) || s.Awaits != (s.Name == "balanced") {
			t.Errorf("%s: %+v", s.Name, s)
		}
	}
	if got := strings.Join(names, " "); got != "balanced early headless meshed named web" {
		t.Errorf("there are %s", got)
	}
	if n := serving.Snapshot.Services.Len(); n != 2 || serving.Snapshot.Slices.Len() != 1 {
		t.Errorf("%d Services and %d slices are served", n, serving.Snapshot.Slices.Len())
	}
	if len(serving.Pods) != 1 || serving.Pods[netip.MustParseAddr("10.244.0.1")] != "shop/web-0" {
		t.Errorf("pods are %v", serving.Pods)
	}
	if len(serving.Problems) != 1 || serving.Problems[0].Name != "balanced" {
		t.Errorf("problems %v", serving.Problems)
	}
}
