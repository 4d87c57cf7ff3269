package routing

import (
	"net/netip"
	"sync"
)

// crowd counts the requests of each client that are under way, of one Ingress. It
// lasts from table to table, as what it counts does.
type crowd struct {
	mu   sync.Mutex
	open map[netip.Addr]int // none is 0
}

// enter counts one more of a client, unless most are there.
func (c *crowd) enter(client netip.Addr, most int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[client] >= most {
		return false
	}
	if c.open == nil {
		c.open = map[netip.Addr]int{}
	}
	c.open[client]++
	return true
}

func (c *crowd) leave(client netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[client]--; c.open[client] <= 0 {
		delete(c.open, client)
	}
}
