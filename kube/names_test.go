package kube

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/fairlead-net/fairlead/model"
)

func TestConvertName(t *testing.T) {
	const proxy = "metadata: {namespace: ns, name: web, labels: {service.kubernetes.io/service-proxy-name: x}}\n"
	for name, test := range map[string]struct {
		object string
		want   *model.Name
		served bool
		wrong  []string
	}{
		"served":         {object: `spec: {clusterIP: 10.96.0.1}`, served: true},
		"no address yet": {object: `spec: {}`},
		"headless": {object: `spec: {clusterIP: None, ports: [{name: http, port: 80, targetPort: 8080}]}`,
			want: &model.Name{Ports: []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 80}}}},
		"external": {object: `spec: {type: ExternalName, externalName: WWW.example.com., ports: [{name: http, port: 80}]}`,
			want: &model.Name{External: "www.example.com", Ports: []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 80}}}},
		"external, address":  {object: `spec: {type: ExternalName, externalName: 192.0.2.1}`, wrong: []string{"spec.externalName"}},
		"external, no name":  {object: `spec: {type: ExternalName, externalName: a..b}`, wrong: []string{"spec.externalName"}},
		"external, nowhere":  {object: `spec: {type: ExternalName}`},
		"external, labelled": {object: proxy + `spec: {type: ExternalName, externalName: a}`, want: &model.Name{External: "a"}},
		"headless, labelled": {object: proxy + `spec: {clusterIP: None}`, want: &model.Name{}},
		"another program's": {object: proxy + `spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, "fd00::1"], ports: [{name: http, port: 80}, {port: 0}]}`,
			want:  &model.Name{ClusterIPs: addrs("10.96.0.1", "fd00::1"), Ports: []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 80}}},
			wrong: []string{"spec.ports[1]"}},
		"another program's, nowhere": {object: proxy + `spec: {clusterIP: x}`, wrong: []string{"spec.clusterIPs"}},
	} {
		t.Run(name, func(t *testing.T) {
			head := "metadata: {namespace: ns, name: web}\n"
			if strings.Contains(test.object, "metadata:") {
				head = ""
			}
			got := convertNamed(fromYAML[corev1.Service](t, head+test.object))
			if test.want != nil {
				test.want.ServiceKey = model.ServiceKey{Namespace: "ns", Name: "web"}
			}
			switch {
			case got.key != model.ServiceKey{Namespace: "ns", Name: "web"}:
				t.Errorf("it is %v", got.key)
			case got.absent != (test.want == nil && !test.served), !got.absent && got.value.key() != got.key:
				t.Errorf("absent %v, value %+v", got.absent, got.value)
			case (got.value.service != nil) != test.served, (got.value.name != nil) != (test.want != nil):
				t.Errorf("value %+v", got.value)
			case test.want != nil && !got.value.name.Equal(test.want):
				t.Errorf("got  %+v\nwant %+v", got.value.name, test.want)
			}
			if fields := problemFields(got.problems); !slices.Equal(fields, test.wrong) {
				t.Errorf("problems of %q, want %q: %v", fields, test.wrong, got.problems)
			}
		})
	}
}

func TestConvertHosts(t *testing.T) {
	const (
		headless = `metadata: {namespace: ns, name: web-1, labels: {kubernetes.io/service-name: web, service.kubernetes.io/headless: ""}}`
		others   = `metadata: {namespace: ns, name: web-1, labels: {kubernetes.io/service-name: web}}`
		managed  = `metadata: {namespace: ns, name: web-1, labels: {kubernetes.io/service-name: web, endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io}}`
		rest     = `
addressType: IPv4
ports: [{name: http, port: 80, protocol: TCP}, {name: x, port: 0}, {name: all}]
endpoints:
- {addresses: [10.0.0.1], hostname: web-0, conditions: {ready: true}}
- {addresses: [10.0.0.2], conditions: {ready: false}}
- {addresses: [10.0.0.3]}
- {addresses: ["fd00::1"]}
`
	)
	for name, test := range map[string]struct {
		object string
		absent bool
		wrong  []string
	}{
		"headless":         {object: headless + rest, wrong: []string{"ports[1]", "endpoints[3].addresses"}},
		"not of anybody":   {object: others + rest},
		"of a served one":  {object: managed + rest, absent: true},
		"of no Service":    {object: "metadata: {namespace: ns, name: web-1}" + rest, absent: true},
		"names, elsewhere": {object: headless + "\naddressType: FQDN\nendpoints: [{addresses: [example.com]}]", absent: true},
	} {
		t.Run(name, func(t *testing.T) {
			got := convertHosts(fromYAML[discoveryv1.EndpointSlice](t, test.object))
			want := &model.Hosts{
				SliceKey: model.SliceKey{Namespace: "ns", Name: "web-1"}, Service: "web",
				Ports: []model.EndpointPort{{Name: "http", Protocol: model.TCP, Port: 80}},
				Hosts: []model.Host{{Address: addrs("10.0.0.1")[0], Hostname: "web-0"}, {Address: addrs("10.0.0.3")[0]}},
			}
			if got.absent != test.absent || !test.absent && !got.value.Equal(want) {
				t.Errorf("absent %v; got\n%+v\nwant\n%+v", got.absent, got.value, want)
			}
			if fields := problemFields(got.problems); !slices.Equal(fields, test.wrong) {
				t.Errorf("problems of %q, want %q: %v", fields, test.wrong, got.problems)
			}
		})
	}
}

func stubNamed(name, labels, spec string) string {
	return `{"kind": "Service", "apiVersion": "v1", "metadata": {"namespace": "default", "name": "` + name + `", "labels": {` + labels + `}}, "spec": {` + spec + `}}`
}

func stubHosts(name, service, labels, rest string) string {
	return `{"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "metadata": {"namespace": "default", "name": "` + name +
		`", "labels": {"kubernetes.io/service-name": "` + service + `"` + labels + `}}, "addressType": "IPv4", ` + rest + `}`
}

// TestSourceNames: names are followed once somebody wants them, and not before.
func TestSourceNames(t *testing.T) {
	const headless = `, "service.kubernetes.io/headless": ""`
	s := newStub(t)
	s.put(servicesPath, stubNamed("web", "", `"clusterIP": "10.96.0.1"`))
	s.put(servicesPath, stubNamed("db", "", `"clusterIP": "None"`))
	s.put(servicesPath, stubNamed("out", "", `"type": "ExternalName", "externalName": "example.com"`))
	s.put(slicesPath, stubHosts("db-1", "db", headless, `"endpoints": [{"addresses": ["10.0.0.1"], "hostname": "db-0"}]`))
	s.put(slicesPath, stubHosts("web-1", "web", `, "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"`, `"endpoints": [{"addresses": ["10.0.0.2"]}]`))
	source := s.client(Options{}).Source()
	feed := start(t, source)
	synced(t, source)
	before, _ := feed.Latest()
	if before.NamesKnown || before.Hosts.Len() > 0 || before.Services.Len() != 1 || before.Names.Len() != 2 {
		t.Errorf("before anybody asked: known %v, %d hosts, %d Services, %d names", before.NamesKnown, before.Hosts.Len(), before.Services.Len(), before.Names.Len())
	}
	if n := s.count("GET " + slicesPath); n != 1 {
		t.Errorf("before anybody asked there were %d requests for EndpointSlices", n)
	}
	source.FollowNames()
	source.FollowNames()
	after := until(t, feed, "names", func(s *model.Snapshot) bool { return s.NamesKnown })
	hosts, _ := after.Hosts.Get(model.SliceKey{Namespace: "default", Name: "db-1"})
	if after.Hosts.Len() != 1 || hosts == nil || len(hosts.Hosts) != 1 || hosts.Hosts[0].Hostname != "db-0" {
		t.Errorf("the hosts are %d, of them %+v", after.Hosts.Len(), hosts)
	}

	// A Service becomes another kind, and is in one place only.
	key := model.ServiceKey{Namespace: "default", Name: "out"}
	s.put(servicesPath, stubNamed("out", "", `"clusterIP": "10.96.0.2"`))
	until(t, feed, "a Service with an address", func(s *model.Snapshot) bool {
		_, served := s.Services.Get(key)
		_, name := s.Names.Get(key)
		if served == name {
			t.Errorf("it is served: %v; a mere name: %v", served, name)
		}
		return served
	})
	s.remove(servicesPath + "/db")
	s.remove(slicesPath + "/db-1")
	until(t, feed, "a name going", func(s *model.Snapshot) bool { return s.Names.Len() == 0 && s.Hosts.Len() == 0 })
}

// TestSnapshotNames: what names are made of is read from a file, and written.
func TestSnapshotNames(t *testing.T) {
	const file = `apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Service, metadata: {namespace: ns, name: db}, spec: {clusterIP: None}}
- {apiVersion: v1, kind: Service, metadata: {namespace: ns, name: out}, spec: {type: ExternalName, externalName: example.com}}
- {apiVersion: v1, kind: Service, metadata: {namespace: ns, name: other, labels: {service.kubernetes.io/service-proxy-name: x}}, spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}}
- {apiVersion: v1, kind: Service, metadata: {namespace: ns, name: web}, spec: {clusterIP: 10.96.0.2, ports: [{port: 80}]}}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {namespace: ns, name: db-1, labels: {kubernetes.io/service-name: db, service.kubernetes.io/headless: ""}}
  addressType: IPv6
  ports: [{name: sql, port: 5432}]
  endpoints: [{addresses: ["fd00::1"], hostname: db-0}, {addresses: ["fd00::2"]}, {addresses: ["fd00::3"], conditions: {ready: false}}]
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {namespace: ns, name: hand-made, labels: {kubernetes.io/service-name: db}}
  addressType: IPv4
  endpoints: [{addresses: [192.0.2.1], hostname: a}, {addresses: [192.0.2.2]}]
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {namespace: ns, name: web-1, labels: {kubernetes.io/service-name: web, endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io}}
  addressType: IPv4
  endpoints: [{addresses: [10.0.0.2]}]
`
	first, err := ReadSnapshot(strings.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	if !first.NamesKnown || first.Services.Len() != 1 || first.Names.Len() != 3 || first.Slices.Len() != 2 || first.Hosts.Len() != 2 {
		t.Errorf("known %v, %d Services, %d names, %d slices, %d hosts", first.NamesKnown, first.Services.Len(), first.Names.Len(), first.Slices.Len(), first.Hosts.Len())
	}
	first.NamesKnown = false
	var written bytes.Buffer
	if err := WriteSnapshot(&written, first); err != nil {
		t.Fatal(err)
	}
	second, err := ReadSnapshot(bytes.NewReader(written.Bytes()))
	if err != nil {
		t.Fatalf("%v in\n%s", err, written.String())
	}
	if second.NamesKnown || second.Services.Len() != 1 || second.Names.Len() != 3 || second.Slices.Len() != 2 || second.Hosts.Len() != 2 {
		t.Errorf("again: known %v, %d Services, %d names, %d slices, %d hosts", second.NamesKnown, second.Services.Len(), second.Names.Len(), second.Slices.Len(), second.Hosts.Len())
	}
	for key, name := range first.Names.All() {
		if again, _ := second.Names.Get(key); again == nil || !again.Equal(name) {
			t.Errorf("name %s: %+v, was %+v", key, again, name)
		}
	}
	for key, hosts := range first.Hosts.All() {
		if again, _ := second.Hosts.Get(key); again == nil || !again.Equal(hosts) {
			t.Errorf("hosts %s: %+v, was %+v", key, again, hosts)
		}
	}
}

// TestHostsSelectors: each slice that may be of a headless Service is in one watch.
func TestHostsSelectors(t *testing.T) {
	controller := labels.Set{discoveryv1.LabelManagedBy: controllerOfSlices}
	for name, test := range map[string]struct {
		of   labels.Set
		want [2]bool // of headless Services, and of others
	}{
		"served":               {controller, [2]bool{}},
		"headless":             {labels.Merge(controller, labels.Set{corev1.IsHeadlessService: ""}), [2]bool{true, false}},
		"mirrored":             {labels.Set{discoveryv1.LabelManagedBy: "endpointslicemirroring-controller.k8s.io"}, [2]bool{false, true}},
		"by hand":              {labels.Set{}, [2]bool{false, true}},
		"by hand, as headless": {labels.Set{corev1.IsHeadlessService: ""}, [2]bool{true, false}},
	} {
		for i, selector := range []string{corev1.IsHeadlessService, hostsOfOthers} {
			parsed, err := labels.Parse(selector)
			if err != nil {
				t.Fatal(err)
			}
			if got := parsed.Matches(test.of); got != test.want[i] {
				t.Errorf("%s: %s is %v", name, selector, got)
			}
		}
	}
}
