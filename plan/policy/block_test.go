package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// TestRecut: ranges that follow changes of a few blocks are those that are made
// anew, and each address is in the group of the blocks that it is in.
func TestRecut(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 6))
		prefix := func(in string, bits int) netip.Prefix {
			within := netip.MustParsePrefix(in)
			bytes := within.Addr().AsSlice()
			bytes[len(bytes)-1] = byte(random.IntN(64))
			addr, _ := netip.AddrFromSlice(bytes)
			of, _ := addr.Prefix(within.Addr().BitLen() - bits)
			return of
		}
		c := newCluster(t)
		p := c.compute(nil)
		for step := range 20 {
			var some []model.Peer
			for range random.IntN(6) {
				in := []string{"192.0.2.0/26", "2001:db8:7::/122"}[random.IntN(2)]
				block := addresses(prefix(in, random.IntN(7)).String())
				if random.IntN(20) == 0 {
					block = addresses([]string{"0.0.0.0/0", "::/0"}[random.IntN(2)])
				}
				for range random.IntN(3) {
					block.Except = append(block.Except, prefix(in, random.IntN(5)))
				}
				some = append(some, block)
			}
			c.isolate(fmt.Sprint("web/p", random.IntN(5)), "", model.Egress, allow(nil, some...))
			p = c.compute(p)
			anew := c.compute(nil)
			for change := range model.Diff(anew.Ranges, p.Ranges) {
				t.Errorf("seed %d, step %d: %+v", seed, step, change)
			}
			for change := range model.Diff(anew.Pods, p.Pods) {
				t.Errorf("seed %d, step %d: %+v", seed, step, change)
			}
			for last := range byte(64) {
				addr := netip.AddrFrom4([4]byte{192, 0, 2, last})
				var want []*peers
				for _, of := range p.peers.All() {
					if of.contains(addr) {
						want = append(want, of)
					}
				}
				if got := p.GroupOf(Subject{}, addr); got != groupOfPeers(sorted(want), map[string]Group{}) {
					t.Errorf("seed %d, step %d: %s is of group %q", seed, step, addr, got)
				}
			}
			if t.Failed() {
				t.FailNow()
			}
		}
	}
}
