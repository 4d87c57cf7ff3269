package gateway

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// TestIncremental: a table that was changed again and again is one that was made at
// once.
func TestIncremental(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 0))
		w := newWorld()
		var table *Table
		for step := range 60 {
			w.change(r)
			var problems []model.Problem
			table, problems = Compute(table, &w.Snapshot)
			fresh, want := Compute(nil, &w.Snapshot)
			if !slices.Equal(problems, want) {
				t.Fatalf("seed %d, step %d: problems are\n%v\nwant\n%v", seed, step, problems, want)
			}
			if got, want := said(table), said(fresh); got != want {
				t.Fatalf("seed %d, step %d: the table says\n%s\nwant\n%s", seed, step, got, want)
			}
			if wrong := misshared(table); wrong != "" {
				t.Fatalf("seed %d, step %d: %s", seed, step, wrong)
			}
		}
	}
}

// misshared says what is wrong with the settings that Ingresses share: those with the
// same annotations have the same, and none is kept that nobody has.
func misshared(t *Table) string {
	times := map[string]int{}
	for key, d := range t.drafts.All() {
		if d.like == nil {
			continue
		}
		times[d.like.key]++
		if had, _ := t.shared.Get(d.like.key); had.like != d.like || d.settings != d.like.settings || d.like.key != likeKey(d.ingress) {
			return fmt.Sprintf("%s has the settings of others", key)
		}
		if d.policy.Closed != "" || len(d.problems) > 0 && !slices.ContainsFunc(d.problems, func(p model.Problem) bool { return strings.HasPrefix(p.Field, "spec") }) {
			return fmt.Sprintf("%s shares what is wrong with it", key)
		}
	}
	for key, had := range t.shared.All() {
		if had.times != times[key] {
			return fmt.Sprintf("%q is said to be shared by %d, of %d", key, had.times, times[key])
		}
	}
	return ""
}

// said is all that a table does.
func said(t *Table) string {
	var all []string
	for name, host := range t.Hosts.All() {
		line := fmt.Sprintf("%s → %q, TLS %v %v", name, host.Redirect, host.TLS, host.Certificates)
		for _, route := range append(slices.Clone(host.Routes), host.Default) {
			if route != nil {
				line += fmt.Sprintf("; %s %s %s %s %s", route.Match.Type, route.Match.Path, route.Backend, route.From, route.Policy.Rewrite)
				for _, canary := range route.Canaries {
					line += fmt.Sprintf(" or %s %d", canary.Backend, canary.Weight)
				}
			}
		}
		all = append(all, line)
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// change makes, changes or removes one object.
func (w *world) change(r *rand.Rand) {
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	switch r.IntN(12) {
	case 0:
		network := *w.Network
		network.Ingress.NginxCompatible = !network.Ingress.NginxCompatible
		w.Network = &network
	case 1:
		w.IngressClasses = w.IngressClasses.With("some", &model.IngressClass{
			Name: "some", Controller: pick(Controller, NginxController, "other"), Default: r.IntN(2) == 0,
		})
	case 2:
		w.Services = w.Services.Without(model.ServiceKey{Namespace: "shop", Name: "api"})
	case 3:
		w.service("api")
	case 4:
		w.Ingresses = w.Ingresses.Without(model.IngressKey{Namespace: "shop", Name: fmt.Sprint("i", r.IntN(8))})
	default:
		var lines []string
		for range 1 + r.IntN(3) {
			lines = append(lines, fmt.Sprintf("%s %s/%s %s", pick("exact", "prefix", "any"), pick("a.org", "www.a.org", "b.org", "*.b.org", ""), pick("", "a", "a/b", "x.*"), pick("web", "api", "gone")))
		}
		for _, line := range []string{
			"use-regex: true", "rewrite-target: /$1", "canary: true", "canary-weight: 10", "server-alias: c.org, b.org", "from-to-www-redirect: true",
			"default web", "tls one a.org", "tls two *.b.org", "class some", "class ", "auth-type: basic", "namespace other", "proxy-body-size: 8m",
		} {
			if r.IntN(8) == 0 {
				lines = append(lines, line)
			}
		}
		name := fmt.Sprint("i", r.IntN(8))
		namespace := "shop"
		if slices.Contains(lines, "namespace other") {
			namespace = "other"
		}
		if old, ok := w.Ingresses.Get(model.IngressKey{Namespace: namespace, Name: name}); ok {
			now := w.now
			w.ingress(name, lines...).Created = old.Created // the object stays what it is
			w.now = now
			return
		}
		w.ingress(name, lines...)
	}
}
