package daemon

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/fairlead-net/fairlead/servers/resident"
)

// What is collected at which garbage, in percent of what lives. A request makes none,
// a change of routes some: little that lives may have much beside it, which costs less
// to collect; much may not, or memory would be a multiple of the routes.
const (
	usualGarbage = 8 << 20 // bytes
	mostPercent  = 200
	leastPercent = 25
)

// collector sets when garbage is collected.
type collector struct{ percent int }

func (c *collector) set(percent int) {
	c.percent = percent
	debug.SetGCPercent(percent)
}

// follow goes by what lives now.
func (c *collector) follow() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	if live[0].Value.Kind() != metrics.KindUint64 {
		return
	}
	percent := percentOf(live[0].Value.Uint64())
	if percent*4 < c.percent*3 || percent*3 > c.percent*4 { // to set it stops the world
		c.set(percent)
	}
}

func percentOf(live uint64) int {
	return int(min(max(usualGarbage*100/max(live, 1), leastPercent), mostPercent))
}

// restInterval is between two times that the program is let go of, which takes 3 ms.
// Each third time what changes have left behind is given back as well: the runtime
// would keep a good part of it.
const (
	restInterval = 10 * time.Second
	restsPerFree = 3
)

// rest gives back, now and then, the pages of the program's file that were needed for
// a moment, those of the start first, and memory that nothing lives in any more.
func (d *daemon) rest(ctx context.Context) error {
	again := time.NewTicker(restInterval)
	defer again.Stop()
	began := d.began
	for n := 1; ; n++ {
		if err := resident.ReleaseProgram(); err != nil {
			d.Log.Warn("memory is not given back", "error", err)
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
			if n%restsPerFree == 0 {
				debug.FreeOSMemory()
			}
		case <-began: // the lists took much
			began = nil
			debug.FreeOSMemory()
		}
	}
}
