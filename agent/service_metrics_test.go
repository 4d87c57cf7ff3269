package agent

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// TestServiceMetrics: what changed is counted once, when the kernel has it; and
// what is measured began after the agent did.
func TestServiceMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Hour)
		feed, m := &model.Feed{}, newMetrics()
		p := &progress{feed: feed}
		slice := func(name string, triggered time.Time) {
			key := model.SliceKey{Namespace: "default", Name: name}
			feed.Edit(func(s *model.Snapshot) {
				s.Slices = s.Slices.With(key, &model.EndpointSlice{SliceKey: key, Triggered: triggered.UnixNano()})
			})
		}
		apply := func(err error) {
			latest, _ := feed.Latest()
			p.begin()
			time.Sleep(100 * time.Millisecond)
			m.turned(p.end(latest, err))
		}
		expect := func(when string, want map[string]string) {
			t.Helper()
			got := scrape(t, m)
			for series, value := range want {
				if got[series] != value {
					t.Errorf("%s: %s is %s, want %s", when, series, got[series], value)
				}
			}
		}
		const programming, changes = "kubeproxy_network_programming_duration_seconds", "fairlead_change_duration_seconds"

		slice("old", time.Now().Add(-time.Second))
		slice("never", time.Unix(0, 0))
		feed.Edit(func(s *model.Snapshot) {
			key := model.ServiceKey{Namespace: "default", Name: "web"}
			s.Services = s.Services.With(key, &model.Service{ServiceKey: key})
		})
		apply(nil)
		expect("of before the agent began", map[string]string{
			programming + "_count": "0", changes + "_count": "0", "kubeproxy_sync_proxy_rules_endpoint_changes_total": "2",
			"kubeproxy_sync_proxy_rules_service_changes_total": "1", "kubeproxy_sync_proxy_rules_duration_seconds_sum": "0.1",
		})

		slice("new", time.Now())
		time.Sleep(200 * time.Millisecond)
		slice("newer", time.Now())
		apply(errors.New("broken"))
		expect("while it fails", map[string]string{programming + "_count": "0", changes + "_count": "0", "kubeproxy_sync_proxy_rules_duration_seconds_count": "2"})
		apply(nil)
		expect("when the kernel has it", map[string]string{ // 0.4 s and 0.2 s; the oldest change waited for 0.4 s
			programming + "_count": "2", programming + `_bucket{le="0.25"}`: "1", programming + `_bucket{le="0.5"}`: "2",
			changes + "_count": "1", changes + "_sum": "0.4", "kubeproxy_sync_proxy_rules_endpoint_changes_total": "4",
		})
		feed.Edit(func(s *model.Snapshot) {
			s.Slices = s.Slices.Without(model.SliceKey{Namespace: "default", Name: "new"})
		})
		apply(nil)
		apply(nil)
		expect("a slice that went, and an apply of nothing new", map[string]string{
			programming + "_count": "2", changes + "_count": "2", "kubeproxy_sync_proxy_rules_endpoint_changes_total": "5",
		})
	})
}
