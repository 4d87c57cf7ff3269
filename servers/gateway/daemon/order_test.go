package daemon

import (
	"log/slog"
	"testing"

	"github.com/fairlead-net/fairlead/model"
	plan "github.com/fairlead-net/fairlead/plan/gateway"
	"github.com/fairlead-net/fairlead/servers/gateway"
)

// TestTroubleStays: what keeps certificates from being ordered is still known when
// something else is served.
func TestTroubleStays(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	d := &daemon{
		Config: Config{Log: log, Source: &cluster{changed: make(chan struct{})}}, endpoints: &plan.Endpoints{}, said: map[model.Problem]bool{},
		server: gateway.New(gateway.Settings{}, log),
	}
	if err := d.certificates.begin(model.SecretKey{}); err != nil {
		t.Fatal(err)
	}
	snapshot := &model.Snapshot{}
	d.table, _ = plan.Compute(nil, snapshot)
	want := trouble{"secrets is forbidden", "let them"}
	d.orders().Trouble(want.what, want.remedy)
	d.serve(snapshot, nil, model.Map[model.SecretKey, *model.Secret]{})
	if is, _ := d.serving.latest(); is.trouble != want || is.table != d.table {
		t.Errorf("known is %+v", is.trouble)
	}
}
