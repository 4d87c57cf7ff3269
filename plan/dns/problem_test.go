package dns

import (
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

func TestProblems(t *testing.T) {
	upstreams := func(texts ...string) (all []model.Upstream) {
		for _, text := range texts {
			upstream, err := model.ParseUpstream(text)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, upstream)
		}
		return all
	}
	of := func(change func(*model.Snapshot)) []string {
		var fields []string
		for _, problem := range Problems(world(change)) {
			fields = append(fields, problem.Field)
		}
		return fields
	}
	other := service("default", "kubernetes", addresses("10.96.0.1"))
	dns := service("kube-system", "kube-dns", addresses("10.96.0.10", "fd96::a"))
	with := func(change func(*model.DNSOptions)) func(*model.Snapshot) {
		return func(s *model.Snapshot) {
			s.Services = s.Services.With(dns.ServiceKey, dns)
			change(&s.Network.DNS)
		}
	}
	for name, test := range map[string]struct {
		change func(*model.Snapshot)
		want   string
	}{
		"nothing is known": {func(s *model.Snapshot) { s.NamesKnown = false }, ""},
		"no Service":       {func(s *model.Snapshot) { s.Services = s.Services.With(other.ServiceKey, other) }, "spec.dns.service"},
		"another Service":  {with(func(o *model.DNSOptions) { o.Service.Name = "coredns" }), "spec.dns.service"},
		"well":             {with(func(o *model.DNSOptions) { o.Upstreams = upstreams("192.0.2.1") }), ""},
		"itself":           {with(func(o *model.DNSOptions) { o.Upstreams = upstreams("192.0.2.1", "tls://10.96.0.10") }), "spec.dns.upstreams"},
		"itself, in a stub": {with(func(o *model.DNSOptions) {
			o.Stubs = []model.StubDomain{{Zone: "corp", Upstreams: upstreams("fd96::a")}}
		}), "spec.dns.stubDomains[corp].upstreams"},
	} {
		if got := strings.Join(of(test.change), " "); got != test.want {
			t.Errorf("%s: problems of %q, want %q", name, got, test.want)
		}
	}
}

// TestExternalNames: names that lead nowhere are there, and say why.
func TestExternalNames(t *testing.T) {
	for text, want := range map[string]string{"192.0.2.1": "address", "a..b": "characters", "out.shop.svc.cluster.local": "itself", strings.Repeat("a.", 140) + "b": "bytes"} {
		key := model.ServiceKey{Namespace: "shop", Name: "out"}
		zone, problems := Compute(nil, world(func(s *model.Snapshot) {
			s.Names = s.Names.With(key, &model.Name{ServiceKey: key, External: text})
		}))
		if len(problems) != 1 || problems[0].Name != "out" || problems[0].Field != "spec.externalName" || !strings.Contains(problems[0].Message, want) {
			t.Errorf("%s: problems %v", text, problems)
		}
		if got := answer(zone, mustName(t, "out.shop.svc.cluster.local"), "A"); got != "NODATA" {
			t.Errorf("%s: the answer is %s", text, got)
		}
	}
	_, problems := Compute(nil, world(func(s *model.Snapshot) {
		s.Network.DNS.Zone = strings.TrimSuffix(strings.Repeat("a.", 120), ".")
		web := service("shop", "web-with-a-name-of-its-own", addresses("10.96.0.1"))
		s.Services = s.Services.With(web.ServiceKey, web)
	}))
	if !slices.ContainsFunc(problems, func(p model.Problem) bool { return p.Reason == "NameTooLong" }) {
		t.Errorf("of a name that is too long: %v", problems)
	}
	if zone, problems := Compute(nil, world(func(s *model.Snapshot) { s.Network.DNS.Zone = "a..b" })); zone != nil || len(problems) != 1 {
		t.Errorf("of a zone that is none: %v, %v", zone, problems)
	}
}
