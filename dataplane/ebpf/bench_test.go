package ebpf

import (
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// BenchmarkAgainstRouting compares with plain routes between the same pods, in
// turns: plain, ipip, ipip, plain. The ratio is the median over all rounds; 1 is
// as fast. -benchtime=15x makes fifteen.
func BenchmarkAgainstRouting(b *testing.B) {
	c := newCluster(b, 1500)
	from, to := c.nodes[0], c.nodes[1]
	plain := [2]netip.Addr{netip.MustParseAddr("10.245.1.2"), netip.MustParseAddr("10.245.2.2")}
	for i, n := range c.nodes {
		own := netip.PrefixFrom(plain[i], 32)
		c.in(n.pod, func() {
			c.address("eth0", own)
			c.check(rtnl.RouteAdd(&rtnl.Route{
				LinkIndex: c.link("eth0").Attrs().Index, Dst: ipNet(netip.PrefixFrom(plain[1-i], 32)),
				Gw: []byte{169, 254, 1, 1}, Flags: unix.RTNH_F_ONLINK, Src: plain[i].AsSlice(),
			}))
		})
		c.in(n.Namespace, func() { c.route("pod0", own, netip.Addr{}, 0) })
		c.in(c.router, func() { c.route([]string{"node1", "node2"}[i], own, n.address, 0) })
	}
	for name, measure := range map[string]func(client, server net.Conn) time.Duration{
		"stream": stream, "requests": requests,
	} {
		b.Run(name, func(b *testing.B) {
			var ratios []float64
			for b.Loop() {
				var sums [2]float64 // plain, ipip
				for _, way := range []int{0, 1, 1, 0} {
					client, server := c.connect(from.pod, to.pod, "tcp4", []netip.Addr{plain[1], to.podAddr}[way])
					sums[way] += measure(client, server).Seconds()
					_, _ = client.Close(), server.Close()
				}
				ratios = append(ratios, sums[0]/sums[1])
			}
			slices.Sort(ratios)
			b.ReportMetric(ratios[len(ratios)/2], "ratio")
			b.ReportMetric(ratios[len(ratios)/10], "ratio-p10")
			b.ReportMetric(ratios[len(ratios)-1-len(ratios)/10], "ratio-p90")
		})
	}
}

// stream is how long a large transfer takes.
func stream(client, server net.Conn) time.Duration {
	const size = 1 << 30
	begin := time.Now()
	go func() {
		buffer := make([]byte, 1<<17)
		for range size / len(buffer) {
			if _, err := client.Write(buffer); err != nil {
				return
			}
		}
	}()
	buffer := make([]byte, 1<<17)
	for left := size; left > 0; {
		n, err := server.Read(buffer)
		if err != nil {
			return 0
		}
		left -= n
	}
	return time.Since(begin)
}

// requests is how long many questions of one byte take, one after the other.
func requests(client, server net.Conn) time.Duration {
	go func() { _, _ = io.Copy(server, server) }()
	begin := time.Now()
	buffer := make([]byte, 1)
	for range 10_000 {
		if _, err := client.Write(buffer); err != nil {
			return 0
		}
		if _, err := client.Read(buffer); err != nil {
			return 0
		}
	}
	return time.Since(begin)
}
