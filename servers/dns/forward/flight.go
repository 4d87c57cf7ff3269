package forward

import (
	"net/netip"
	"sync"
)

// flights are the questions that upstreams are being asked. Each is asked once,
// however many clients wait for the answer. So a query that comes back here, on
// whatever way, waits for itself, instead of going around.
type flights struct {
	mu      sync.Mutex
	calls   map[string]*flight
	clients map[netip.Addr]int
	waiting int
	renewed int // flights that nobody waits for
	closed  bool
	running sync.WaitGroup
}

// flight is one of them. What came of it may be read when done is closed.
type flight struct {
	done   chan struct{}
	owner  netip.Addr // the client that began it
	renews bool       // there is none
	answer *answer    // nil: err says why
	err    error
}

// maxRenewed is how many answers are renewed at a time before they end.
const maxRenewed = 128

func newFlights() *flights {
	return &flights{calls: map[string]*flight{}, clients: map[netip.Addr]int{}}
}

// join makes a client wait for a question. If it is not under way the client
// leads: start is called. The client is to leave. It is not ok if too many wait.
func (f *flights) join(key []byte, client netip.Addr, o *Options, start func(key string, at *flight)) (at *flight, leads, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.waiting >= o.Waiting || f.clients[client] >= o.WaitingOfOne {
		return nil, false, false
	}
	if at = f.calls[string(key)]; at == nil {
		if len(f.calls) >= o.Waiting+maxRenewed {
			return nil, false, false
		}
		at, leads = f.begin(string(key), &flight{owner: client}, start), true
	}
	f.waiting++
	f.clients[client]++
	return at, leads, true
}

// renew begins a question that nobody waits for, unless there are many.
func (f *flights) renew(key []byte, start func(key string, at *flight)) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.renewed >= maxRenewed || f.calls[string(key)] != nil {
		return false
	}
	f.renewed++
	f.begin(string(key), &flight{renews: true}, start)
	return true
}

func (f *flights) begin(key string, at *flight, start func(string, *flight)) *flight {
	at.done = make(chan struct{})
	f.calls[key] = at
	f.running.Go(func() {
		defer f.end(key, at)
		start(key, at)
	})
	return at
}

func (f *flights) end(key string, at *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.calls, key)
	close(at.done)
	if at.renews {
		f.renewed--
	} else {
		f.release(at.owner)
	}
}

// leave is for who has joined. A question counts as its leader's until it is
// answered, since clients that are given a stale answer do not wait so long.
func (f *flights) leave(client netip.Addr, led bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting--
	if !led {
		f.release(client)
	}
}

func (f *flights) release(client netip.Addr) {
	if f.clients[client]--; f.clients[client] <= 0 {
		delete(f.clients, client)
	}
}

// hold keeps the end of the server waiting, until the function that it returns is
// called. It is not ok if the server has ended.
func (f *flights) hold() (release func(), ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, false
	}
	f.running.Add(1)
	return f.running.Done, true
}

// close lets nothing begin any more.
func (f *flights) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
}

// count is how many questions are under way, and how many clients wait.
func (f *flights) count() (calls, waiting int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.calls), f.waiting
}
