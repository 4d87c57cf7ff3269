package dns

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of the TCP connections that there are at one time.
const (
	maxPlaces    = 1024
	clientPlaces = 64 // of one client
)

// places are the TCP connections. Who comes when there is none left gets that of
// the client with most of them, which was not used for the longest time: one
// that opens connections without end closes its own.
type places struct {
	mu  sync.Mutex
	all int
	by  map[netip.Addr]map[*place]struct{}
}

// place is one connection.
type place struct {
	client netip.Addr
	conn   net.Conn
	last   atomic.Int64 // when it was used, as Unix nanoseconds
}

func (p *place) used() { p.last.Store(time.Now().UnixNano()) }

// take gives a connection a place, and so may close another one. Leave has to
// follow.
func (p *places) take(client netip.Addr, conn net.Conn) *place {
	taken := &place{client: client, conn: conn}
	taken.used()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.by == nil {
		p.by = map[netip.Addr]map[*place]struct{}{}
	}
	if len(p.by[client]) >= clientPlaces {
		p.evict(client)
	} else if p.all >= maxPlaces {
		p.evict(p.greediest())
	}
	if p.by[client] == nil {
		p.by[client] = map[*place]struct{}{}
	}
	p.by[client][taken] = struct{}{}
	p.all++
	return taken
}

// leave closes a connection, and gives its place back.
func (p *places) leave(left *place) {
	_ = left.conn.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.remove(left)
}

func (p *places) remove(gone *place) {
	if _, ok := p.by[gone.client][gone]; !ok {
		return
	}
	p.all--
	delete(p.by[gone.client], gone)
	if len(p.by[gone.client]) == 0 {
		delete(p.by, gone.client)
	}
}

// greediest is the client with most connections.
func (p *places) greediest() (client netip.Addr) {
	most := 0
	for addr, places := range p.by {
		if len(places) > most {
			client, most = addr, len(places)
		}
	}
	return client
}

// evict closes the connection of a client that was not used for the longest time.
func (p *places) evict(client netip.Addr) {
	var oldest *place
	for at := range p.by[client] {
		if oldest == nil || at.last.Load() < oldest.last.Load() {
			oldest = at
		}
	}
	if oldest != nil {
		_ = oldest.conn.Close()
		p.remove(oldest)
	}
}
