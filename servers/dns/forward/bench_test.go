package forward

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/servers/dns"
)

// BenchmarkCached: an answer that is kept.
func BenchmarkCached(b *testing.B) {
	f, names := ready(1000)
	var questions []dns.Question
	for _, name := range names {
		questions = append(questions, question(name, typeA))
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		into := make([]byte, 0, 512)
		for i := 0; pb.Next(); i++ {
			if _, ok := f.Cached(questions[i%len(questions)], into); !ok {
				b.Fatal("not kept")
			}
		}
	})
}

// BenchmarkUpstream: a name that has to be asked for, of a server on this machine,
// by UDP. It includes the server's own work.
func BenchmarkUpstream(b *testing.B) {
	s := newSite(b, "127.0.0.59", addresses(2), nothing)
	f := New(Options{Upstreams: []model.Upstream{{At: s.at}}, MaxTTL: -1, MaxNegativeTTL: -1}, func(...model.Problem) {}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	var next atomic.Int64
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			q := question(fmt.Sprintf("w%d.example", next.Add(1)), typeA)
			q.Client = netip.AddrFrom4([4]byte{10, 0, 0, byte(next.Load())})
			if wire, _ := f.Answer(ctx, q, nil); rcodeOf(wire) != 0 {
				b.Errorf("rcode %d", rcodeOf(wire))
			}
		}
	})
	cancel()
	<-ended
}
