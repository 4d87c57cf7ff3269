package kube

import (
	"reflect"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

const ingresses = `
apiVersion: v1
kind: List
items:
- apiVersion: networking.k8s.io/v1
  kind: Ingress
  metadata:
    name: web
    creationTimestamp: "2024-03-01T10:00:00Z"
    annotations:
      kubernetes.io/ingress.class: old
      nginx.ingress.kubernetes.io/limit-rps: "5"
      nginx.ingress.kubernetes.io/app-root: /a
      example.org/other: x
  spec:
    ingressClassName: nginx
    defaultBackend: {resource: {kind: Bucket, name: b}}
    tls: [{hosts: [WWW.example.org], secretName: s}, {}]
    rules:
    - host: WWW.example.org
      http:
        paths:
        - {path: /a, pathType: Exact, backend: {service: {name: a, port: {number: 80}}}}
        - {path: /b, pathType: Prefix, backend: {service: {name: b, port: {name: http}}}}
        - {path: /c, pathType: Sometimes, backend: {service: {name: c, port: {number: 80}}}}
        - {path: /d, backend: {service: {name: d, port: {number: 80000}}}}
    - {host: empty.example.org}
- apiVersion: networking.k8s.io/v1
  kind: IngressClass
  metadata:
    name: nginx
    annotations: {ingressclass.kubernetes.io/is-default-class: "true"}
  spec: {controller: k8s.io/ingress-nginx}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: left-out}
---
apiVersion: v1
kind: Service
metadata: {name: a, namespace: other}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: b}
spec: {clusterIP: None}
`

func TestReadIngresses(t *testing.T) {
	snapshot := &model.Snapshot{}
	problems, err := ReadIngresses(strings.NewReader(ingresses), "shop", snapshot)
	if err != nil {
		t.Fatal(err)
	}
	key := model.IngressKey{Namespace: "shop", Name: "web"}
	got, _ := snapshot.Ingresses.Get(key)
	const annotation = "nginx.ingress.kubernetes.io/"
	want := &model.HTTPIngress{
		IngressKey: key, Created: 1709287200, Class: "nginx", Default: &model.IngressBackend{Resource: "Bucket/b"},
		Rules: []model.IngressRule{
			{Host: "www.example.org", Paths: []model.IngressPath{
				{Path: "/a", Type: model.PathExact, Backend: model.IngressBackend{Service: "a", Port: 80}},
				{Path: "/b", Type: model.PathPrefix, Backend: model.IngressBackend{Service: "b", PortName: "http"}},
			}},
			{Host: "empty.example.org"},
		},
		TLS:         []model.IngressTLS{{Hosts: []string{"www.example.org"}, Secret: "s"}, {}},
		Annotations: []model.Annotation{{Key: annotation + "app-root", Value: "/a"}, {Key: annotation + "limit-rps", Value: "5"}},
	}
	if !reflect.DeepEqual(got, want) || !got.Equal(want) {
		t.Errorf("the Ingress is\n%+v\nwant\n%+v", got, want)
	}
	if len(problems) != 2 || problems[0].Field != "spec.rules[0].http.paths[2]" || problems[1].Field != "spec.rules[0].http.paths[3]" {
		t.Errorf("problems are %v", problems)
	}
	if class, _ := snapshot.IngressClasses.Get("nginx"); class == nil || *class != (model.IngressClass{Name: "nginx", Controller: "k8s.io/ingress-nginx", Default: true}) {
		t.Errorf("the class is %+v", class)
	}
	if _, ok := snapshot.Services.Get(model.ServiceKey{Namespace: "other", Name: "a"}); !ok || snapshot.Names.Len() != 1 {
		t.Error("the Services are not there")
	}
}
