package agent

import (
	"log/slog"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// TestTransition: tunnels are there, then used, then those of before go.
func TestTransition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed, path := &model.Feed{}, filepath.Join(t.TempDir(), "routing.json")
		log := slog.New(slog.DiscardHandler)
		go func() { _ = (&transition{feed, path, log}).Run(t.Context()) }()
		follow := func(backend model.Backend) {
			feed.Edit(func(s *model.Snapshot) {
				network := model.DefaultNetwork()
				network.Backend = backend
				s.Follow(network)
			})
			synctest.Wait()
		}
		expect := func(backend model.Backend, former, coming bool) {
			t.Helper()
			now, _ := feed.Latest()
			if now.Network.Backend != backend || (now.Former != nil) != former || (now.Coming != nil) != coming {
				t.Errorf("the backend is %s, former %+v, coming %+v", now.Network.Backend, now.Former, now.Coming)
			}
		}
		sleep := func(d time.Duration) { time.Sleep(d); synctest.Wait() }

		follow(model.BackendVXLAN)
		expect(model.BackendVXLAN, false, false)
		follow(model.BackendIPIP)
		sleep(comingTime - time.Second)
		expect(model.BackendVXLAN, false, true)
		follow(model.BackendUDP) // another one: its time begins now, and others may use the one before
		sleep(comingTime - time.Second)
		expect(model.BackendVXLAN, true, true)
		sleep(2 * time.Second)
		expect(model.BackendUDP, true, false)
		sleep(formerTime - 2*time.Second)
		expect(model.BackendUDP, true, false)
		sleep(2 * time.Second)
		expect(model.BackendUDP, false, false)

		// The next process receives by it, should it be otherwise by then.
		next := &model.Feed{}
		(&transition{next, path, log}).recall()
		if now, _ := next.Latest(); now.Former == nil || now.Former.Backend != model.BackendUDP {
			t.Errorf("the next process recalls %+v", now.Former)
		}
	})
}
