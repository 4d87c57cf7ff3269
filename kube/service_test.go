package kube

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-net/fairlead/model"
)

func fromYAML[T any](t *testing.T, text string) *T {
	t.Helper()
	object := new(T)
	if err := yaml.UnmarshalStrict([]byte(text), object); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return object
}

func addrs(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// TestConvertService: what a Service says, field by field. The first is nil if
// Fairlead does not serve it.
func TestConvertService(t *testing.T) {
	tests := []struct {
		name, spec string // of a Service in the namespace ns; with its status
		want       *model.Service
		wrong      []string // fields with a Problem
	}{
		{name: "ClusterIP", spec: `
spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, "fd00::1"], ports: [{port: 80, targetPort: 8080}, {name: dns, port: 53, protocol: UDP}]}`,
			want: &model.Service{
				ClusterIPs: addrs("10.96.0.1", "fd00::1"),
				Ports:      []model.ServicePort{{Protocol: model.TCP, Port: 80}, {Name: "dns", Protocol: model.UDP, Port: 53}},
			}},
		{name: "of one address, as before Kubernetes 1.20", spec: `spec: {clusterIP: 10.96.0.1}`,
			want: &model.Service{ClusterIPs: addrs("10.96.0.1")}},
		{name: "what could answer queries of DNS has whom it selects", spec: `
spec: {clusterIP: 10.96.0.10, selector: {k8s-app: kube-dns}, ports: [{name: dns, port: 53, protocol: UDP, targetPort: 5353}, {name: dns-tcp, port: 53, targetPort: dns-tcp}, {name: metrics, port: 9153}]}`,
			want: &model.Service{
				ClusterIPs: addrs("10.96.0.10"),
				Ports:      []model.ServicePort{{Name: "dns", Protocol: model.UDP, Port: 53}, {Name: "dns-tcp", Protocol: model.TCP, Port: 53}, {Name: "metrics", Protocol: model.TCP, Port: 9153}},
				Serves: &model.Selected{
					Labels: model.LabelsOf(map[string]string{"k8s-app": "kube-dns"}),
					Ports:  []model.ContainerPort{{Protocol: model.UDP, Port: 5353}, {Name: "dns-tcp", Protocol: model.TCP}, {Protocol: model.TCP, Port: 9153}},
				},
			}},
		{name: "others do not", spec: `spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{port: 53}]}`,
			want: &model.Service{ClusterIPs: addrs("10.96.0.1"), Ports: []model.ServicePort{{Protocol: model.TCP, Port: 53}}}},
		{name: "headless", spec: `spec: {clusterIP: None, clusterIPs: [None]}`},
		{name: "another program's", spec: `
metadata: {namespace: ns, name: web, labels: {service.kubernetes.io/service-proxy-name: other}}
spec: {clusterIP: 10.96.0.1}`},
		{name: "ExternalName", spec: `spec: {type: ExternalName, externalName: example.com}`},
		{name: "ExternalName that was a ClusterIP", spec: `spec: {type: ExternalName, clusterIP: 10.96.0.1}`},
		{name: "without an address yet", spec: `spec: {type: ClusterIP}`},
		{name: "NodePort, Local", spec: `
spec: {type: NodePort, clusterIP: 10.96.0.1, externalTrafficPolicy: Local, healthCheckNodePort: 0, ports: [{port: 80, nodePort: 30080, protocol: SCTP}]}`,
			want: &model.Service{
				ClusterIPs: addrs("10.96.0.1"), ExternalLocal: true,
				Ports: []model.ServicePort{{Protocol: model.SCTP, Port: 80, NodePort: 30080}},
			}},
		{name: "a policy that has no meaning", spec: `spec: {clusterIP: 10.96.0.1, externalTrafficPolicy: Local}`,
			want: &model.Service{ClusterIPs: addrs("10.96.0.1")}},
		{name: "internal policy", spec: `spec: {clusterIP: 10.96.0.1, internalTrafficPolicy: Local}`,
			want: &model.Service{ClusterIPs: addrs("10.96.0.1"), InternalLocal: true}},
		{name: "external addresses", spec: `spec: {clusterIP: 10.96.0.1, externalIPs: [203.0.113.1], externalTrafficPolicy: Local}`,
			want: &model.Service{ClusterIPs: addrs("10.96.0.1"), ExternalIPs: addrs("203.0.113.1"), ExternalLocal: true}},
		{name: "load balancer", spec: `
spec:
  {type: LoadBalancer, clusterIP: 10.96.0.1, externalTrafficPolicy: Local, healthCheckNodePort: 32000, allocateLoadBalancerNodePorts: false,
   loadBalancerSourceRanges: [" 192.0.2.7/24", "2001:db8::/32 "], ports: [{port: 80}]}
status: {loadBalancer: {ingress: [{ip: 203.0.113.1}, {ip: 203.0.113.2, ipMode: VIP}, {ip: 203.0.113.3, ipMode: Proxy}, {hostname: lb.example.com}]}}`,
			want: &model.Service{
				ClusterIPs: addrs("10.96.0.1"), ExternalLocal: true, HealthCheckNodePort: 32000,
				LoadBalancerIPs: addrs("203.0.113.1", "203.0.113.2"),
				SourceRanges:    prefixes("192.0.2.0/24", "2001:db8::/32"),
				Ports:           []model.ServicePort{{Protocol: model.TCP, Port: 80}},
			}},
		{name: "a load balancer of Cluster policy has no health check", spec: `spec: {type: LoadBalancer, clusterIP: 10.96.0.1, healthCheckNodePort: 32000}`,
			want: &model.Service{ClusterIPs: addrs("10.96.0.1")}},
		{name: "no load balancer any more", spec: `
spec: {type: NodePort, clusterIP: 10.96.0.1, loadBalancerSourceRanges: [192.0.2.0/24]}
status: {loadBalancer: {ingress: [{ip: 203.0.113.1}]}}`,
			want: &model.Service{ClusterIPs: addrs("10.96.0.1")}},
		{name: "affinity", spec: `spec: {clusterIP: 10.96.0.1, sessionAffinity: ClientIP}`,
			want: &model.Service{ClusterIPs: addrs("10.96.0.1"), Affinity: 10800}},
		{name: "affinity with a time", spec: `
spec: {clusterIP: 10.96.0.1, sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 7}}}`,
			want: &model.Service{ClusterIPs: addrs("10.96.0.1"), Affinity: 7}},
		{name: "zeros in front", spec: `spec: {clusterIP: 010.096.0.01}`,
			want: &model.Service{ClusterIPs: addrs("10.96.0.1")}},
		{name: "what cannot be understood is left out", spec: `
spec:
  {type: LoadBalancer, clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 10.96.0.2, x], externalIPs: [example.com, 203.0.113.9],
   loadBalancerSourceRanges: [192.0.2.0, 198.51.100.0/24], ports: [{port: 0}, {port: 80, protocol: DCCP}, {port: 70000}, {port: 81}]}
status: {loadBalancer: {ingress: [{ip: 1.2.3}]}}`,
			want: &model.Service{
				ClusterIPs: addrs("10.96.0.1"), ExternalIPs: addrs("203.0.113.9"), SourceRanges: prefixes("198.51.100.0/24"),
				Ports: []model.ServicePort{{Protocol: model.TCP, Port: 81}},
			},
			wrong: []string{
				"spec.externalIPs", "spec.clusterIPs", "spec.clusterIPs", "status.loadBalancer.ingress", "spec.loadBalancerSourceRanges",
				"spec.ports[0]", "spec.ports[1]", "spec.ports[2]",
			}},
		{name: "addresses that no Service can have", spec: `
spec: {type: LoadBalancer, clusterIP: 10.96.0.1, externalIPs: [0.0.0.0, 127.0.0.1, "::1", 203.0.113.9]}
status: {loadBalancer: {ingress: [{ip: 127.0.0.1}, {ip: 224.0.0.1}, {ip: "::"}]}}`,
			want: &model.Service{ClusterIPs: addrs("10.96.0.1"), ExternalIPs: addrs("203.0.113.9")},
			wrong: []string{
				"spec.externalIPs", "spec.externalIPs", "spec.externalIPs",
				"status.loadBalancer.ingress", "status.loadBalancer.ingress", "status.loadBalancer.ingress",
			}},
		{name: "ranges of which none is understood let nobody in", spec: `spec: {type: LoadBalancer, clusterIP: 10.96.0.1, loadBalancerSourceRanges: [x]}`,
			want:  &model.Service{ClusterIPs: addrs("10.96.0.1"), SourceRanges: prefixes("0.0.0.0/32", "::/128")},
			wrong: []string{"spec.loadBalancerSourceRanges"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			head := "metadata: {namespace: ns, name: web, creationTimestamp: 1970-01-01T00:00:09Z}\n"
			if strings.Contains(test.spec, "metadata:") {
				head = ""
			}
			object := fromYAML[corev1.Service](t, head+test.spec)
			got := convertService(object)
			if got.absent != (test.want == nil) {
				t.Fatalf("absent %v", got.absent)
			}
			if test.want != nil {
				test.want.ServiceKey, test.want.Created = model.ServiceKey{Namespace: "ns", Name: "web"}, 9
				if !got.value.Equal(test.want) {
					t.Errorf("got  %+v\nwant %+v", got.value, test.want)
				}
			}
			if fields := fieldsOf(t, "Service ns/web", got.problems); !slices.Equal(fields, test.wrong) {
				t.Errorf("problems of %q, want %q: %v", fields, test.wrong, got.problems)
			}
		})
	}
}

func problemFields(problems []model.Problem) (fields []string) {
	for _, problem := range problems {
		fields = append(fields, problem.Field)
	}
	return fields
}

// fieldsOf is problemFields, of problems which all name that object and say what to
// do.
func fieldsOf(t *testing.T, object string, problems []model.Problem) []string {
	t.Helper()
	for _, problem := range problems {
		if named := problem.Kind + " " + problem.Namespace + "/" + problem.Name; named != object || problem.Remedy == "" {
			t.Errorf("a problem of %s is told of %s: %v", object, named, problem)
		}
	}
	return problemFields(problems)
}

// TestConvertSlice: conditions that are not given, first addresses, and what
// cannot be understood.
func TestConvertSlice(t *testing.T) {
	const head = "metadata: {namespace: ns, name: web-1, labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\n"
	endpoint := func(addr string) model.Endpoint {
		return model.Endpoint{Address: netip.MustParseAddr(addr), Ready: true, Serving: true}
	}
	tests := []struct {
		name, text string
		want       *model.EndpointSlice
		wrong      []string
	}{
		{name: "nothing said", text: head + `{ports: [{port: 8080}], endpoints: [{addresses: [10.0.0.1, 10.0.0.2]}]}`,
			want: &model.EndpointSlice{
				Ports: []model.EndpointPort{{Protocol: model.TCP, Port: 8080}}, Endpoints: []model.Endpoint{endpoint("10.0.0.1")},
			}},
		{name: "all said", text: head + `
ports: [{name: dns, protocol: UDP, port: 53}]
endpoints:
- {addresses: [10.0.0.1], nodeName: a, conditions: {ready: false, serving: true, terminating: true}, hints: {forZones: [{name: z}], forNodes: [{name: a}]}}
- {addresses: [10.0.0.2], conditions: {ready: false, serving: false}, hints: {}}`,
			want: &model.EndpointSlice{
				Ports: []model.EndpointPort{{Name: "dns", Protocol: model.UDP, Port: 53}},
				Endpoints: []model.Endpoint{
					{Address: netip.MustParseAddr("10.0.0.1"), Node: "a", Serving: true, Terminating: true, Hints: &model.Hints{Zones: []string{"z"}, Nodes: []string{"a"}}},
					{Address: netip.MustParseAddr("10.0.0.2")},
				},
			}},
		{name: "names", text: "metadata: {namespace: ns, name: web-1, labels: {kubernetes.io/service-name: web}}\naddressType: FQDN\nendpoints: []"},
		{name: "of no Service", text: "metadata: {namespace: ns, name: web-1}\naddressType: IPv4\nendpoints: []"},
		{name: "what only nodes may call (CVE-2021-25737)", text: head + `
ports: [{port: 80}]
endpoints: [{addresses: [127.0.0.1]}, {addresses: [169.254.169.254]}, {addresses: [224.0.0.1]}, {addresses: [10.0.0.9]}]`,
			want: &model.EndpointSlice{
				Ports: []model.EndpointPort{{Protocol: model.TCP, Port: 80}}, Endpoints: []model.Endpoint{endpoint("10.0.0.9")},
			},
			wrong: []string{"endpoints[0].addresses", "endpoints[1].addresses", "endpoints[2].addresses"}},
		{name: "what cannot be understood is left out", text: head + `
ports: [{name: all}, {name: zero, port: 0}, {name: web, port: 80}, {name: odd, port: 1, protocol: ICMP}]
endpoints: [{addresses: []}, {addresses: [x]}, {addresses: ["fd00::1"]}, {addresses: [0.0.0.0]}, {addresses: [10.0.0.9]}]`,
			want: &model.EndpointSlice{
				Ports:     []model.EndpointPort{{Name: "web", Protocol: model.TCP, Port: 80}},
				Endpoints: []model.Endpoint{endpoint("10.0.0.9")},
			},
			wrong: []string{
				"ports[0]", "ports[1]", "ports[3]",
				"endpoints[0].addresses", "endpoints[1].addresses", "endpoints[2].addresses", "endpoints[3].addresses",
			}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			text := strings.Replace(test.text, head+"{", "{metadata: {namespace: ns, name: web-1, labels: {kubernetes.io/service-name: web}}, addressType: IPv4, ", 1)
			got := convertSlice(fromYAML[discoveryv1.EndpointSlice](t, text))
			if got.absent != (test.want == nil) {
				t.Fatalf("absent %v", got.absent)
			}
			if test.want != nil {
				test.want.SliceKey, test.want.Service = model.SliceKey{Namespace: "ns", Name: "web-1"}, "web"
				if !got.value.Equal(test.want) {
					t.Errorf("got  %+v\nwant %+v", got.value, test.want)
				}
			}
			if fields := fieldsOf(t, "EndpointSlice ns/web-1", got.problems); !slices.Equal(fields, test.wrong) {
				t.Errorf("problems of %q, want %q: %v", fields, test.wrong, got.problems)
			}
		})
	}
}

// TestConvertServiceCIDR: what cannot be understood is left out, with a Problem.
func TestConvertServiceCIDR(t *testing.T) {
	got := convertServiceCIDR(fromYAML[networkingv1.ServiceCIDR](t, `
metadata: {name: more}
spec: {cidrs: [10.97.0.0/16, 10.98.0.0, "fd97::/112"]}`))
	if want := prefixes("10.97.0.0/16", "fd97::/112"); !slices.Equal(got.value.Prefixes, want) {
		t.Errorf("the ranges are %v, want %v", got.value.Prefixes, want)
	}
	if fields := fieldsOf(t, "ServiceCIDR /more", got.problems); !slices.Equal(fields, []string{"spec.cidrs"}) {
		t.Errorf("problems of %q", fields)
	}
}

// A controller says when what it saw changed. That alone is no change.
func TestSliceTriggered(t *testing.T) {
	slice := func(annotations string) *model.EndpointSlice {
		return convertSlice(fromYAML[discoveryv1.EndpointSlice](t, `
metadata: {namespace: ns, name: web-1, labels: {kubernetes.io/service-name: web}, annotations: {`+annotations+`}}
addressType: IPv4`)).value
	}
	at, none := slice(`endpoints.kubernetes.io/last-change-trigger-time: "2026-01-02T03:04:05.5Z"`), slice("")
	want := time.Date(2026, 1, 2, 3, 4, 5, 5e8, time.UTC).UnixNano()
	if bad := slice("endpoints.kubernetes.io/last-change-trigger-time: noon"); at.Triggered != want || none.Triggered != 0 || bad.Triggered != 0 {
		t.Errorf("triggered at %d, %d, %d; want %d, 0, 0", at.Triggered, none.Triggered, bad.Triggered, want)
	}
	if !at.Equal(none) {
		t.Error("another time makes another slice")
	}
}

// Equal hints are one: a large cluster has few of them.
func TestHintsAreShared(t *testing.T) {
	got := convertSlice(fromYAML[discoveryv1.EndpointSlice](t, `
metadata: {namespace: ns, name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 80}]
endpoints:
- {addresses: [10.0.0.1], hints: {forZones: [{name: z}]}}
- {addresses: [10.0.0.2], hints: {forZones: [{name: z}]}}
- {addresses: [10.0.0.3], hints: {forZones: [{name: y}]}}`))
	e := got.value.Endpoints
	if e[0].Hints != e[1].Hints || e[0].Hints == e[2].Hints {
		t.Errorf("hints %p %p %p", e[0].Hints, e[1].Hints, e[2].Hints)
	}
}

const stubService = `{"kind": "Service", "apiVersion": "v1", "metadata": {"namespace": "ns", "name": "web"}, "spec": `

// TestSourceOfServices: they come, change into something without an address, and
// back, and go.
func TestSourceOfServices(t *testing.T) {
	s := newStub(t)
	s.put(servicesPath, stubService+`{"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}}`)
	s.put(slicesPath, `{"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
		"metadata": {"namespace": "ns", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
		"ports": [{"port": 8080}], "endpoints": [{"addresses": ["10.244.0.2"]}, {"addresses": ["oops"]}]}`)
	s.put(cidrsPath, `{"kind": "ServiceCIDR", "apiVersion": "networking.k8s.io/v1", "metadata": {"name": "kubernetes"},
		"spec": {"cidrs": ["10.96.0.0/16", "fd96::/112"]}}`)
	source := s.client(Options{}).Source()
	feed := start(t, source)
	synced(t, source)
	first, _ := feed.Latest()
	key := model.ServiceKey{Namespace: "ns", Name: "web"}
	if service, _ := first.Services.Get(key); service == nil || len(service.Ports) != 1 {
		t.Errorf("the Service is %+v", service)
	}
	if slice, _ := first.Slices.Get(model.SliceKey{Namespace: "ns", Name: "web-1"}); slice == nil || len(slice.Endpoints) != 1 || slice.Service != "web" {
		t.Errorf("the slice is %+v", slice)
	}
	if cidr, _ := first.ServiceCIDRs.Get("kubernetes"); cidr == nil || len(cidr.Prefixes) != 2 {
		t.Errorf("the range is %+v", cidr)
	}
	if problems := source.Problems(); len(problems) != 1 || problems[0].Kind != "EndpointSlice" || problems[0].Name != "web-1" {
		t.Errorf("problems %v", problems)
	}

	s.put(servicesPath, stubService+`{"type": "ExternalName", "externalName": "example.com"}}`)
	until(t, feed, "a Service without an address", func(s *model.Snapshot) bool { return s.Services.Len() == 0 })
	s.put(servicesPath, stubService+`{"clusterIP": "10.96.0.2", "ports": [{"port": 80}]}}`)
	until(t, feed, "another address", func(s *model.Snapshot) bool {
		service, _ := s.Services.Get(key)
		return service != nil && service.ClusterIPs[0] == netip.MustParseAddr("10.96.0.2")
	})
	s.remove(servicesPath + "/web")
	until(t, feed, "no Service", func(s *model.Snapshot) bool { return s.Services.Len() == 0 })
}

// Clusters before 1.33 have no ServiceCIDRs.
func TestSourceWithoutServiceCIDRs(t *testing.T) {
	s := newStub(t)
	s.missing[cidrsPath] = true
	source := s.client(Options{}).Source()
	start(t, source)
	synced(t, source)
	if problems := source.Problems(); len(problems) > 0 {
		t.Errorf("problems %v", problems)
	}
}

// TestManyHints: hints of many endpoints that all differ take as long for each as
// those of few, and equal ones are shared.
func TestManyHints(t *testing.T) {
	convert := func(count, kinds int) (*model.EndpointSlice, time.Duration) {
		slice := &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
			AddressType: discoveryv1.AddressTypeIPv4,
		}
		for i := range count {
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
				Addresses: []string{fmt.Sprintf("10.%d.%d.%d", 1+i>>16, i>>8&255, i&255)},
				Hints:     &discoveryv1.EndpointHints{ForNodes: []discoveryv1.ForNode{{Name: fmt.Sprint("node-", i%kinds)}}},
			})
		}
		began := time.Now()
		converted := convertSlice(slice)
		return converted.value, time.Since(began)
	}
	const some, many = 6_000, 60_000 // the API server takes 1,000
	_, short := convert(some, some)
	slice, long := convert(many, many)
	if long > 4*many/some*short+500*time.Millisecond {
		t.Errorf("%d endpoints took %v, %d took %v", some, short, many, long)
	}
	if slice.Endpoints[7].Hints.Nodes[0] != "node-7" {
		t.Errorf("the hints of an endpoint are %v", slice.Endpoints[7].Hints)
	}
	if slice, _ = convert(4, 2); slice.Endpoints[0].Hints != slice.Endpoints[2].Hints || slice.Endpoints[0].Hints == slice.Endpoints[1].Hints {
		t.Error("equal hints are not shared, or others are")
	}
}
