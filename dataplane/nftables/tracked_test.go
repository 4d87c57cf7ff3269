package nftables

import (
	"net"
	"testing"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
)

// TestKernelSelectsProtocol: of a node with a hundred thousand connections, those
// of UDP alone are told of by the kernel, and their ends are read.
func TestKernelSelectsProtocol(t *testing.T) {
	namespace := netnstest.New(t)
	namespace.Do(func() {
		track(t)
		server, err := net.ListenPacket("udp", "127.0.0.1:5300")
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		listener, err := net.Listen("tcp", "127.0.0.1:8000")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		for _, call := range [][2]string{{"udp", "127.0.0.1:5300"}, {"tcp", "127.0.0.1:8000"}} {
			conn, err := net.Dial(call[0], call[1])
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		kernel, err := openTracker()
		if err != nil {
			t.Fatal(err)
		}
		defer kernel.close()
		for _, test := range []struct {
			of   model.Protocol
			told map[model.Protocol]int
		}{
			{0, map[model.Protocol]int{model.TCP: 1, model.UDP: 1}},
			{model.UDP, map[model.Protocol]int{model.UDP: 1}},
		} {
			told := map[model.Protocol]int{}
			err := kernel.tell(model.IPv4, test.of, func(c *tracked) {
				told[c.protocol]++
				want := map[model.Protocol]uint16{model.UDP: 5300, model.TCP: 8000}[c.protocol]
				if c.forward.to.Port() != want || c.called().Port() != want || c.reverse.to != c.forward.from {
					t.Errorf("%s: %v and %v", c.protocol, c.forward, c.reverse)
				}
			})
			if err != nil || told[model.TCP] != test.told[model.TCP] || told[model.UDP] != test.told[model.UDP] {
				t.Errorf("asked for protocol %d, the kernel tells of %v: %v", test.of, told, err)
			}
		}
	})
}

// track makes the kernel track connections in the namespace of the calling
// thread.
func track(t *testing.T) {
	t.Helper()
	conn, err := nft.New()
	if err != nil {
		t.Fatal(err)
	}
	table := conn.AddTable(&nft.Table{Name: "track", Family: nft.TableFamilyINet})
	chain := conn.AddChain(&nft.Chain{
		Table: table, Name: "output", Type: nft.ChainTypeFilter,
		Hooknum: nft.ChainHookOutput, Priority: nft.ChainPriorityFilter,
	})
	conn.AddRule(&nft.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
	}})
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
}
