package routing

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/model"
	plan "github.com/fairlead-net/fairlead/plan/gateway"
)

// TestIncremental: a Router that was made of another, again and again, leads as one
// that was made at once, and holds no more.
func TestIncremental(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 0))
		snapshot := &model.Snapshot{Network: model.DefaultNetwork()}
		snapshot.Network.Ingress.NginxCompatible = true
		secrets := map[plan.SecretKey]map[string][]byte{}
		var table *plan.Table
		var router *Router
		endpoints := &plan.Endpoints{}
		for step := range 80 {
			next := *snapshot
			snapshot = &next
			for range 1 + r.IntN(3) {
				alter(r, snapshot, secrets)
			}
			table, _ = plan.Compute(table, snapshot)
			endpoints = endpoints.Next(snapshot)
			secret := func(key plan.SecretKey) map[string][]byte { return secrets[key] }
			router = New(router, table, Sources{Endpoints: endpoints, Secret: secret})
			fresh := New(nil, table, Sources{Endpoints: plan.EndpointsOf(snapshot), Secret: secret})
			if got, want := said(router), said(fresh); got != want {
				t.Fatalf("seed %d, step %d: it says\n%s\nwant\n%s", seed, step, got, want)
			}
		}
	}
}

// alter changes one object.
func alter(r *rand.Rand, s *model.Snapshot, secrets map[plan.SecretKey]map[string][]byte) {
	service := model.ServiceKey{Namespace: "a", Name: fmt.Sprint("s", r.IntN(4))}
	switch r.IntN(8) {
	case 0, 1, 2:
		slice := &model.EndpointSlice{SliceKey: model.SliceKey{Namespace: "a", Name: fmt.Sprint(service.Name, "-", r.IntN(2))}, Service: service.Name,
			Ports: []model.EndpointPort{{Name: "http", Protocol: model.TCP, Port: 80}}}
		for range r.IntN(3) {
			slice.Endpoints = append(slice.Endpoints, model.Endpoint{Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(250))}), Ready: true, Serving: true})
		}
		if s.Slices = s.Slices.With(slice.SliceKey, slice); r.IntN(4) == 0 {
			s.Slices = s.Slices.Without(slice.SliceKey)
		}
	case 3:
		if s.Services = s.Services.With(service, &model.Service{ServiceKey: service, Ports: []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 80}}}); r.IntN(4) == 0 {
			s.Services = s.Services.Without(service)
		}
	case 4:
		secrets[plan.SecretKey{Namespace: "a", Name: fmt.Sprint("users", r.IntN(2))}] = map[string][]byte{"auth": fmt.Appendf(nil, "u%d:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n", r.IntN(3))}
	default:
		key := model.IngressKey{Namespace: "a", Name: fmt.Sprint("i", r.IntN(6))}
		if r.IntN(5) == 0 {
			s.Ingresses = s.Ingresses.Without(key)
			return
		}
		ingress := &model.HTTPIngress{IngressKey: key, Class: plan.Class}
		for _, a := range []model.Annotation{
			{Key: "nginx.ingress.kubernetes.io/auth-type", Value: "basic"}, {Key: "nginx.ingress.kubernetes.io/auth-secret", Value: fmt.Sprint("users", r.IntN(2))},
			{Key: "nginx.ingress.kubernetes.io/limit-rps", Value: "5"}, {Key: "nginx.ingress.kubernetes.io/auth-url", Value: "http://a/"},
			{Key: "nginx.ingress.kubernetes.io/from-to-www-redirect", Value: "true"}, {Key: "nginx.ingress.kubernetes.io/server-alias", Value: "alias"},
		} {
			if r.IntN(3) == 0 {
				ingress.Annotations = append(ingress.Annotations, a)
			}
		}
		for range 1 + r.IntN(2) {
			ingress.Rules = append(ingress.Rules, model.IngressRule{Host: []string{"", "h1", "h2", "*.h3"}[r.IntN(4)], Paths: []model.IngressPath{
				{Path: fmt.Sprint("/", r.IntN(3)), Type: model.PathPrefix, Backend: model.IngressBackend{Service: fmt.Sprint("s", r.IntN(4)), PortName: "http"}},
			}})
		}
		if r.IntN(4) == 0 {
			ingress.Default = &model.IngressBackend{Service: fmt.Sprint("s", r.IntN(4)), PortName: "http"}
		}
		s.Ingresses = s.Ingresses.With(key, ingress)
	}
}

// said is all that a Router does, and how much it holds.
func said(r *Router) string {
	var all []string
	for name, h := range r.hosts.All() {
		for of, to := range h.routes {
			line := fmt.Sprint(name, " ", of.Match.Path, " ", of.From, " ", to.backend.Endpoints, len(to.limits), to.external != nil, h.other != nil)
			if to.users != nil {
				line += fmt.Sprint(" ", to.users.Check("u0", "test"), to.users.Check("u1", "test"), to.users.Len())
			}
			all = append(all, line)
		}
	}
	slices.Sort(all)
	p := r.parts
	return strings.Join(append(all, fmt.Sprint(len(p.backends), len(p.secrets), len(p.limits), len(p.users), len(p.external))), "\n")
}
