package kube

import (
	"fmt"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// TestAnsweredByOthers: who is ready counts, and is none of our DNS servers.
func TestAnsweredByOthers(t *testing.T) {
	const path = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices"
	for what, test := range map[string]struct {
		endpoints string
		want      bool
	}{
		"none":          {``, false},
		"ours alone":    {`{"addresses": ["192.0.2.1"], "targetRef": {"kind": "Pod", "name": "fairlead-dns-x7k2p"}}`, false},
		"not ready":     {`{"addresses": ["10.0.0.1"], "conditions": {"ready": false}, "targetRef": {"kind": "Pod", "name": "coredns-1"}}`, false},
		"CoreDNS":       {`{"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "targetRef": {"kind": "Pod", "name": "coredns-1"}}`, true},
		"cut off":       {`{"addresses": ["10.0.0.9"], "targetRef": {"kind": "Pod", "name": "coredns-1"}}`, false},
		"no pod at all": {`{"addresses": ["198.51.100.1"]}`, true},
	} {
		api := newStub(t)
		api.put(path, fmt.Sprintf(`{"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4", "metadata": {"name": "kube-dns-1"}, "endpoints": [%s]}`, test.endpoints))
		got, err := api.client(Options{}).AnsweredByOthers(t.Context(), model.ServiceKey{Namespace: "kube-system", Name: "kube-dns"}, func(address string) bool { return address == "10.0.0.9" })
		if err != nil || got != test.want {
			t.Errorf("%s: %t, %v", what, got, err)
		}
	}
}

// TestHasDNSServers: there is a DaemonSet of them or not.
func TestHasDNSServers(t *testing.T) {
	api := newStub(t)
	client := api.client(Options{})
	for _, want := range []bool{false, true} {
		if got, err := client.HasDNSServers(t.Context()); err != nil || got != want {
			t.Errorf("%t, %v, want %t", got, err, want)
		}
		api.put(setsPath, `{"kind": "DaemonSet", "apiVersion": "apps/v1", "metadata": {"name": "fairlead-dns"}}`)
	}
}
