package agent

import (
	"context"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	counts "runtime/metrics"
	"sync"
	"time"

	"github.com/fairlead-net/fairlead/servers/resident"
)

// rest keeps the memory of the agent small. Reading a large cluster takes a
// multiple of what is kept of it, and most of the program serves the start alone;
// without a word, both would stay resident.
type rest struct {
	began  <-chan struct{}        // closed after the first success
	turned func() <-chan struct{} // closed with the next turn of the loop
	log    *slog.Logger
}

const (
	// garbage is how much may pile up before it is collected, in percent of what
	// lives. The agent allocates little for what it holds, and a part of Go's default
	// costs it nothing that shows, where it is collected after a turn of the loop, when
	// nobody waits. In the middle of one, who allocates has to help: ten times what the
	// turn takes. So that is done only with more of it (GOGC).
	garbage   = 15
	atAnyTime = 30
	// leastAtStart is GOGC until the first plan is applied, where much lives.
	leastAtStart = 20
	// starting is how many bytes of garbage may pile up at least, until the first
	// plan is applied. Most of what is allocated to read a cluster goes at once, and
	// to collect each fifth of little took half the time of a processor that a start
	// takes. What lay between it stays taken afterwards, as holes of the heap.
	starting = 12 << 20
	// most is how much that is at most in percent of what lives; the runtime takes a
	// heap to be no smaller than 4 MiB times as much.
	most = 400
	// weighInterval is between two looks at how much lives.
	weighInterval = 20 * time.Millisecond
	// restInterval is between two times that the program is let go of, which takes
	// 3 ms, and every third time free memory is: a collection takes 30 ms of a core
	// with 50,000 pods.
	restInterval = 10 * time.Second
	collectEvery = 3
	// lookInterval is between two looks at how much garbage there is without a turn.
	lookInterval = time.Second
	// settling is from the first success until then: status and checks come first.
	settling = 5 * time.Second
)

// Run gives back memory until the context ends. GOGC in the environment is
// respected.
func (r *rest) Run(ctx context.Context) error {
	if !r.release() { // what ran before this, which is most of what is registered
		return nil
	}
	may := os.Getenv("GOGC") == ""
	if !r.start(ctx, may) {
		return nil
	}
	var collecting sync.WaitGroup
	defer collecting.Wait()
	if may {
		collecting.Go(func() { r.collect(ctx) })
	}
	wait := settling
	for n := 0; pause(ctx, jitter(wait)); n++ {
		if n%collectEvery == 0 {
			debug.FreeOSMemory()
		}
		if !r.release() {
			return nil
		}
		wait = restInterval
	}
	return nil
}

// start waits for the first success, and tells whether it came. Meanwhile, it
// sets how much garbage may pile up, if it may.
func (r *rest) start(ctx context.Context, may bool) bool {
	weigh := time.NewTicker(weighInterval)
	defer weigh.Stop()
	live := []counts.Sample{{Name: "/gc/heap/live:bytes"}}
	before := 0
	for {
		if may {
			counts.Read(live)
			if now := garbageOf(live[0].Value.Uint64()); now != before {
				debug.SetGCPercent(now)
				before = now
			}
		}
		select {
		case <-ctx.Done():
			return false
		case <-r.began:
			if may {
				debug.SetGCPercent(atAnyTime)
			}
			return true
		case <-weigh.C:
		}
	}
}

// collect collects garbage after turns of the loop, and from time to time what
// others leave, until the context ends.
func (r *rest) collect(ctx context.Context) {
	heap := []counts.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}}
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	for {
		turned := r.turned()
		counts.Read(heap)
		if live, all := heap[0].Value.Uint64(), heap[1].Value.Uint64(); all > live+live*garbage/100 {
			runtime.GC()
		}
		select {
		case <-ctx.Done():
			return
		case <-turned:
		case <-look.C:
		}
	}
}

// garbageOf is how much may pile up at the start, in percent of what lives
// (bytes).
func garbageOf(live uint64) int {
	return int(min(max(starting*100/max(live, 1), leastAtStart), most))
}

// release lets go of the program, and tells whether it could.
func (r *rest) release() bool {
	err := resident.ReleaseProgram()
	if err != nil {
		r.log.Warn("memory is not given back", "error", err)
	}
	return err == nil
}
