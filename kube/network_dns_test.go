package kube

import (
	"bytes"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/model"
)

func TestConvertDNS(t *testing.T) {
	long := strings.Repeat("a", 60) + "." + strings.Repeat("b", 62)
	for name, test := range map[string]struct {
		spec  string
		want  func(*model.DNSOptions)
		wrong []string
	}{
		"nothing": {spec: `{}`, want: func(*model.DNSOptions) {}},
		"all": {
			spec: `{zone: Example.Internal., ttl: 0, service: {namespace: dns, name: coredns}, podNames: verified, completion: false, select: ordered,
				upstreams: [192.0.2.1, "tls://192.0.2.2#dns.example", 192.0.2.1:53], stubDomains: [{zone: z.corp, upstreams: [192.0.2.3]}, {zone: internal, upstreams: ["2001:db8::1"]}],
				cache: {mebibytes: 1, maxTTL: 0, maxNegativeTTL: 7, maxStale: 0}, queryLog: {oneIn: 100}}`,
			want: func(o *model.DNSOptions) {
				*o = model.DNSOptions{
					Zone: "example.internal", Service: model.ServiceKey{Namespace: "dns", Name: "coredns"}, PodNames: true, NoCompletion: true, Ordered: true,
					Upstreams: upstreamsOf(t, "192.0.2.1", "tls://192.0.2.2#dns.example"),
					Stubs:     []model.StubDomain{{Zone: "internal", Upstreams: upstreamsOf(t, "2001:db8::1")}, {Zone: "z.corp", Upstreams: upstreamsOf(t, "192.0.2.3")}},
					Cache:     model.CacheOptions{Bytes: 1 << 20, MaxNegativeTTL: 7}, LogOneIn: 100,
				}
			},
		},
		"a zone that is none":     {spec: `{zone: "a..b"}`, wrong: []string{"spec.dns.zone"}},
		"a zone that is too long": {spec: `{zone: ` + long + `}`, wrong: []string{"spec.dns.zone"}},
		"numbers":                 {spec: `{ttl: 3601, cache: {mebibytes: -1, maxTTL: -1, maxNegativeTTL: 10801, maxStale: 604801}}`, wrong: []string{"spec.dns.cache.maxNegativeTTL", "spec.dns.cache.maxStale", "spec.dns.cache.maxTTL", "spec.dns.cache.mebibytes", "spec.dns.ttl"}},
		"a log":                   {spec: `{queryLog: {oneIn: -1}}`, wrong: []string{"spec.dns.queryLog.oneIn"}},
		"words":                   {spec: `{podNames: insecure, select: random}`, wrong: []string{"spec.dns.podNames", "spec.dns.select"}},
		"a Service":               {spec: `{service: {namespace: A, name: b.c}}`, wrong: []string{"spec.dns.service.name", "spec.dns.service.namespace"}},
		"an upstream": {spec: `{upstreams: [dns.example, 192.0.2.1]}`, wrong: []string{"spec.dns.upstreams"},
			want: func(o *model.DNSOptions) { o.Upstreams = upstreamsOf(t, "192.0.2.1") }},
		"the cluster's zone":    {spec: `{stubDomains: [{zone: cluster.local, upstreams: [192.0.2.1]}]}`, wrong: []string{"spec.dns.stubDomains[0].zone"}},
		"in the cluster's zone": {spec: `{zone: z, stubDomains: [{zone: svc.z, upstreams: [192.0.2.1]}]}`, wrong: []string{"spec.dns.stubDomains[0].zone"}, want: func(o *model.DNSOptions) { o.Zone = "z" }},
		"above the cluster's": {spec: `{stubDomains: [{zone: local, upstreams: [192.0.2.1]}]}`, want: func(o *model.DNSOptions) {
			o.Stubs = []model.StubDomain{{Zone: "local", Upstreams: upstreamsOf(t, "192.0.2.1")}}
		}},
		"a stub domain twice": {spec: `{stubDomains: [{zone: a, upstreams: [192.0.2.1]}, {zone: A., upstreams: [192.0.2.2]}]}`, wrong: []string{"spec.dns.stubDomains[1].zone"}, want: func(o *model.DNSOptions) {
			o.Stubs = []model.StubDomain{{Zone: "a", Upstreams: upstreamsOf(t, "192.0.2.1")}}
		}},
		"a stub domain of nobody": {spec: `{stubDomains: [{zone: a, upstreams: []}, {zone: "."}]}`, wrong: []string{"spec.dns.stubDomains[0].upstreams", "spec.dns.stubDomains[1].zone"}},
	} {
		t.Run(name, func(t *testing.T) {
			network := fromYAML[v1alpha1.Network](t, "metadata: {name: default}\nspec: {dns: "+test.spec+"}")
			got := convertNetwork(network)
			want := model.DefaultDNS()
			if test.want != nil {
				test.want(&want)
			}
			if !got.value.DNS.Equal(&want) {
				t.Errorf("got  %+v\nwant %+v", got.value.DNS, want)
			}
			if fields := problemFields(got.problems); !slices.Equal(fields, test.wrong) {
				t.Errorf("problems of %q, want %q: %v", fields, test.wrong, got.problems)
			}
			var written bytes.Buffer
			if err := WriteSnapshot(&written, &model.Snapshot{Network: got.value}); err != nil {
				t.Fatal(err)
			}
			if again, err := ReadSnapshot(&written); err != nil || !again.Network.Equal(got.value) {
				t.Errorf("written and read again: %v, %+v", err, again)
			}
		})
	}
}

func upstreamsOf(t *testing.T, texts ...string) (all []model.Upstream) {
	for _, text := range texts {
		upstream, err := model.ParseUpstream(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, upstream)
	}
	return all
}

// TestUpstreamsOfCRD: what the API server lets through is what is understood.
func TestUpstreamsOfCRD(t *testing.T) {
	content, err := os.ReadFile("../deploy/crd/fairlead.io_networks.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var crd any
	if err := yaml.Unmarshal(content, &crd); err != nil {
		t.Fatal(err)
	}
	expression := ""
	var find func(any)
	find = func(node any) {
		switch node := node.(type) {
		case map[string]any:
			if rule, _ := node["rule"].(string); strings.Contains(rule, "tls|https") {
				expression = strings.TrimSuffix(strings.TrimPrefix(rule, "self.matches('"), "')")
			}
			for _, inner := range node {
				find(inner)
			}
		case []any:
			for _, inner := range node {
				find(inner)
			}
		}
	}
	find(crd)
	pattern, err := regexp.Compile(expression)
	if err != nil || expression == "" {
		t.Fatalf("the rule is %q: %v", expression, err)
	}
	for text, want := range map[string]bool{
		"192.0.2.1": true, "192.0.2.1:53": true, "::1": true, "2001:db8::1": true, "[2001:db8::1]:53": true, "[2001:db8::1]": true, "::ffff:192.0.2.1": true,
		"tls://192.0.2.1": true, "tls://[2001:db8::1]:853#a.example": true, "https://192.0.2.1/x/y": true, "https://192.0.2.1:8443/x#a": true,
		"": false, "a.example": false, "a": false, "tls://a.example": false, "quic://192.0.2.1": false, "192.0.2.1/24#": false, "https://192.0.2.1/?x": false, "192.0.2.1 ": false,
	} {
		if got := pattern.MatchString(text); got != want {
			t.Errorf("the rule lets %q through: %v", text, got)
		}
		if _, err := model.ParseUpstream(text); (err == nil) != want {
			t.Errorf("%q is read with %v", text, err)
		}
	}
}
