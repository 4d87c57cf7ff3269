package agent

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
)

// TestSnapshotOfServices: who asks for a Service does not get all.
func TestSnapshotOfServices(t *testing.T) {
	feed := &model.Feed{}
	change(feed, "a")
	feed.Edit(func(s *model.Snapshot) {
		for name, at := range map[string]string{"web": "10.96.0.1", "db": "10.96.0.2"} {
			service := &model.Service{ServiceKey: model.ServiceKey{Namespace: "shop", Name: name}, ClusterIPs: []netip.Addr{netip.MustParseAddr(at)}}
			s.Services = s.Services.With(service.ServiceKey, service)
		}
	})
	h := &health{state: idle(feed), log: slog.New(slog.DiscardHandler)}
	for query, want := range map[string]int{"": 2, "?services=shop/web": 1, "?services=": 0, "?services=192.0.2.1%3A80": 0} {
		_, text := ask(h, "/debug/snapshot"+query)
		if snapshot, err := kube.ReadSnapshot(strings.NewReader(text)); err != nil || snapshot.Services.Len() != want || snapshot.Nodes.Len() != 1 {
			t.Errorf("%q: error %v of %s", query, err, text)
		}
	}
}
