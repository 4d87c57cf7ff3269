package dns

import (
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

func TestClusterIP(t *testing.T) {
	zone, problems := Compute(nil, world(func(s *model.Snapshot) {
		s.Services = s.Services.With(model.ServiceKey{Namespace: "default", Name: "web"},
			service("default", "web", addresses("10.96.0.7", "fd00::7"), port("http", model.TCP, 80)))
	}))
	if zone == nil || len(problems) > 0 {
		t.Fatalf("zone %v, problems %v", zone, problems)
	}
	for _, test := range []struct{ name, kind, want string }{
		{"web.default.svc.cluster.local", "A", "10.96.0.7"},
		{"web.default.svc.cluster.local", "AAAA", "fd00::7"},
	} {
		if got := answer(zone, mustName(t, test.name), test.kind); got != test.want {
			t.Errorf("%s %s is %s, want %s", test.name, test.kind, got, test.want)
		}
	}
}
