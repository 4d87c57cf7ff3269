package dns

import (
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

func TestComplete(t *testing.T) {
	zone, _ := Compute(nil, world(func(s *model.Snapshot) {
		s.Services = s.Services.With(model.ServiceKey{Namespace: "shop", Name: "web"}, service("shop", "web", addresses("10.96.0.7")))
		db := model.ServiceKey{Namespace: "shop", Name: "db"}
		s.Names = s.Names.With(db, &model.Name{ServiceKey: db})
	}))
	const path = "corp.example example cluster.local svc.cluster.local shop.svc.cluster.local corp.example ."
	for _, test := range []struct{ name, query, namespace, search, want string }{
		{"outside", "www.example.com.shop.svc.cluster.local", "shop", path,
			"www.example.com.svc.cluster.local www.example.com.cluster.local www.example.com.corp.example www.example.com.example www.example.com"},
		{"no domains of the node", "www.example.com.shop.svc.cluster.local", "shop", "",
			"www.example.com.svc.cluster.local www.example.com.cluster.local www.example.com"},
		{"a Service of another namespace", "web.other.shop.svc.cluster.local", "shop", "",
			"web.other.svc.cluster.local web.other.cluster.local web.other"},
		{"that, with svc", "web.other.svc.shop.svc.cluster.local", "shop", "",
			"web.other.svc.svc.cluster.local web.other.svc.cluster.local web.other.svc"},
		{"in full: nothing but that", "web.other.svc.cluster.local.shop.svc.cluster.local", "shop", path, "web.other.svc.cluster.local"},
		{"in full, of a host: asked for before", "db-0.db.other.svc.cluster.local.shop.svc.cluster.local", "shop", path, ""},
		{"five dots: asked for before", "a.b.c.d.e.f.shop.svc.cluster.local", "shop", "corp.example",
			"a.b.c.d.e.f.svc.cluster.local a.b.c.d.e.f.cluster.local a.b.c.d.e.f.corp.example"},
		{"four dots", "a.b.c.d.e.shop.svc.cluster.local", "shop", "",
			"a.b.c.d.e.svc.cluster.local a.b.c.d.e.cluster.local a.b.c.d.e"},
		{"one label", "nothing.shop.svc.cluster.local", "shop", path, ""},
		{"what is there", "web.shop.svc.cluster.local", "shop", path, ""},
		{"below a Service", "db-7.db.shop.svc.cluster.local", "shop", path, ""},
		{"a port of a Service", "_http._tcp.web.shop.svc.cluster.local", "shop", path, ""},
		{"another namespace's search", "www.example.com.other.svc.cluster.local", "shop", path, ""},
		{"a namespace of which the name is a part", "www.example.com.workshop.svc.cluster.local", "shop", path, ""},
		{"the second of a search", "www.example.com.svc.cluster.local", "shop", path, ""},
		{"the namespace itself", "shop.svc.cluster.local", "shop", path, ""},
		{"no search", "www.example.com", "shop", path, ""},
		{"nobody's namespace", "www.example.com.svc.cluster.local", "", path, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var search []Name
			for _, domain := range strings.Fields(test.search) {
				search = append(search, mustName(t, domain))
			}
			query := mustName(t, test.query)
			steps := zone.Complete(query, test.namespace, search)
			if len(steps) > 0 && steps[0] != query {
				t.Errorf("it begins with %s", steps[0])
			}
			var got []string
			for _, step := range steps[min(1, len(steps)):] {
				got = append(got, strings.TrimSuffix(step.String(), "."))
			}
			if is := strings.Join(got, " "); is != test.want {
				t.Errorf("got  %s\nwant %s", is, test.want)
			}
		})
	}
	long := strings.Repeat("a", 60) + "." + strings.Repeat("b", 60) + "." + strings.Repeat("c", 60)
	steps := zone.Complete(mustName(t, long+".shop.svc.cluster.local"), "shop", []Name{mustName(t, strings.Repeat("d.", 50)+"example")})
	for _, step := range steps {
		if _, err := ParseName(step.String()); err != nil {
			t.Errorf("a step is no name: %v", err)
		}
	}
	if len(steps) != 4 {
		t.Errorf("of names that are too long, %d steps remain", len(steps))
	}
}
