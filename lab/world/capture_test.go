package world

import (
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// TestCapture follows a ping and its answer from hop to hop.
func TestCapture(t *testing.T) {
	w := boot(t)
	pingCount(t, w, "n1", "10.2.0.13", 1) // neighbours are known from here on
	pingCount(t, w, "n1", "fd00:2::13", 1)
	for _, to := range []string{"10.2.0.13", "fd00:2::13"} {
		c, err := w.Capture(t.Context(), []string{"n1", "router", "n3"})
		if err != nil {
			t.Fatal(err)
		}
		if got := pingCount(t, w, "n1", to, 1); got != 1 {
			t.Errorf("ping to %s: no answer", to)
		}
		var way []string
		for _, p := range c.Close() {
			h, ok := p.Headers()
			if !ok || h.Echo == "" {
				continue
			}
			way = append(way, strings.Join([]string{p.Machine, p.Interface, string(p.Direction), h.Echo}, " "))
			if p.Time.IsZero() || p.Length < 14+28 || h.Destination != netip.MustParseAddr(to) && h.Source != netip.MustParseAddr(to) {
				t.Errorf("packet %s", p.Summary())
			}
		}
		want := []string{
			"n1 eth0 out request", "router a in request", "router b out request", "n3 eth0 in request",
			"n3 eth0 out reply", "router b in reply", "router a out reply", "n1 eth0 in reply",
		}
		if !slices.Equal(way, want) {
			t.Errorf("the way to %s and back is\n%s\nwant\n%s", to, strings.Join(way, "\n"), strings.Join(want, "\n"))
		}
		if c.Lost() != 0 {
			t.Errorf("lost %d packets", c.Lost())
		}
	}
}

func TestSummary(t *testing.T) {
	const (
		ethernet4 = "020000000002020000000001" + "0800"
		ethernet6 = "020000000002020000000001" + "86dd"
		echo4     = "4500001c000040004001" + "0000" + "0af40002" + "0af40103" + "0800000000070001"
		udp4      = "45000000000040004011" + "0000" + "0a01000b" + "0a02000d" + "04d22118" + "00000000"
		vxlan     = "0800000000000100"
		tcp6      = "6000000000140640" + "fd000001000000000000000000000011" + "fd000001000000000000000000000012" + "d4310050" + "0000000000000000" + "5002000000000000"
		laterFrag = "45000018000000b94011" + "0000" + "0a01000b" + "0a02000d" + "04d2211800000000"
	)
	for _, c := range []struct{ raw, want string }{
		{ethernet4 + echo4, "10.244.0.2 > 10.244.1.3 icmp echo request 7/1"},
		{ethernet4 + udp4 + vxlan + ethernet4 + echo4, "10.1.0.11:1234 > 10.2.0.13:8472 udp, vxlan 1: 10.244.0.2 > 10.244.1.3 icmp echo request 7/1"},
		{ethernet6 + tcp6, "[fd00:1::11]:54321 > [fd00:1::12]:80 tcp"},
		{ethernet4 + laterFrag, "10.1.0.11:0 > 10.2.0.13:0 udp"},
		{ethernet4 + strings.Replace(echo4, "4500001c000040004001", "45000030000040004004", 1)[:40] + echo4, "10.244.0.2 > 10.244.1.3 protocol 4, in IP: 10.244.0.2 > 10.244.1.3 icmp echo request 7/1"},
		{"020000000002020000000001" + "0806" + "0001", "arp"},
		{ethernet4 + "45", "ethertype 0x0800"},
		{"", "not IP"},
	} {
		raw, err := hex.DecodeString(c.raw)
		if err != nil {
			t.Fatal(err)
		}
		p := Packet{Machine: "m", Interface: "i", Direction: In, Length: len(raw), Raw: raw, ethernet: true}
		_, got, _ := strings.Cut(p.Summary(), "bytes: ")
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.raw, got, c.want)
		}
	}
}

// FuzzHeaders looks for a packet that the decoder stumbles over.
func FuzzHeaders(f *testing.F) {
	f.Add([]byte("\x45"), true)
	f.Fuzz(func(_ *testing.T, raw []byte, ethernet bool) {
		_ = Packet{Raw: raw, ethernet: ethernet}.Summary()
	})
}
