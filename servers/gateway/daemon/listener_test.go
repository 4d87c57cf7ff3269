package daemon

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/servers/gateway"
)

// TestListeners: HTTP/3 is spoken where HTTPS is, while the Network says so.
func TestListeners(t *testing.T) {
	at := netip.MustParseAddrPort("127.0.0.1:8443")
	d := &daemon{Config: Config{HTTPS: []netip.AddrPort{at}}}
	without := []gateway.Listener{{At: at, Secure: true, Port: 443}}
	with := append(slices.Clone(without), gateway.Listener{At: at, Secure: true, HTTP3: true, Port: 443})
	for _, c := range []struct {
		network *model.Network
		want    []gateway.Listener
	}{
		{nil, without},
		{&model.Network{}, without},
		{&model.Network{Ingress: model.IngressOptions{HTTP3: true}}, with},
	} {
		if got := d.listeners(c.network); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %+v", c.network, got)
		}
	}
}
