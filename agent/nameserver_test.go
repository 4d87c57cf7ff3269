package agent

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/model"
)

// TestAskNameServer asks servers of each kind.
func TestAskNameServer(t *testing.T) {
	needNode(t)
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
	const serverFailed = 2
	for name, c := range map[string]struct {
		answer func(query []byte) []byte // nil: none
		want   model.NameServer
	}{
		"answers": {func(query []byte) []byte { query[2] |= 0x80; return query }, model.NameServerWell},
		"knows nothing yet": {func(query []byte) []byte {
			query[2], query[3] = query[2]|0x80, serverFailed
			return query
		}, model.NameServerHung},
		"answers another question": {func(query []byte) []byte { query[0]++; return query }, model.NameServerHung},
		"is silent":                {func([]byte) []byte { return nil }, model.NameServerHung},
	} {
		server, err := net.ListenPacket("udp", "127.0.0.9:0")
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for buffer := make([]byte, 512); ; {
				n, from, err := server.ReadFrom(buffer)
				if err != nil {
					return
				}
				if answer := c.answer(buffer[:n]); answer != nil {
					_, _ = server.WriteTo(answer, from)
				}
			}
		}()
		at := netip.MustParseAddrPort(server.LocalAddr().String())
		if got, err := askOnce(query("cluster.local"), at); got != c.want {
			t.Errorf("a server that %s is %s (%v), want %s", name, got, err, c.want)
		}
		_ = server.Close()
		<-ended
		if got, err := askOnce(query("cluster.local"), at); got != model.NameServerAbsent {
			t.Errorf("where nobody listens, a server is %s (%v)", got, err)
		}
	}
}
