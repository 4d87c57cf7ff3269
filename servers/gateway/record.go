package gateway

import "time"

// record is what is noted of the request that is under way, if anything is.
type record struct {
	began  int64 // by Server.nanos
	asked  int64 // when it was sent to an endpoint, last
	sent   int64 // bytes of the answer
	head   int   // of those, the head
	status int   // of the answer whose head was written; 0: none
	via    *endpoint
	from   int // the status that via has answered with; 0: it has not
	id     [32]byte
	made   bool // the id was made here
}

// gone is the status of requests whose clients did not wait for the answer, as nginx
// has it.
const gone = 499

// nanos is a precise clock, of which only differences count.
func (s *Server) nanos() int64 { return int64(time.Since(s.watch.began)) }

// begins takes note of a request whose first bytes have come.
func (c *client) begins() {
	c.ask.Meter, c.ask.Quiet, c.ask.Also, c.ask.Client, c.record.made = nil, false, nil, c.remote, false
	if c.server.measures {
		c.record = record{began: c.server.nanos()}
		c.upload.client = nil // its length is that of the request before
	}
}

// write writes to the client.
func (c *client) write(b []byte) error {
	n, err := c.wire.Write(b)
	c.record.sent += int64(n)
	return err
}

// answered takes note of the head of an answer, of some length.
func (c *client) answered(status, head int) {
	c.began = true
	c.record.status, c.record.head = status, head
}

// sends takes note of an endpoint that is asked.
func (c *client) sends(to *endpoint) {
	if c.server.measures {
		c.record.via, c.record.from, c.record.asked = to, 0, c.server.nanos()
	}
}

// ended counts a request that was answered; with 0, one whose answer has not come
// to its end.
func (c *client) ended(status int) {
	c.counts.requests[status/100%6].Add(1)
	if !c.server.measures {
		return
	}
	if status == 0 {
		if status = c.record.status; status == 0 {
			status = gone
		}
	}
	c.measure(status)
}

// measure is ended for what costs some time.
func (c *client) measure(status int) {
	now, r := c.server.nanos(), &c.record
	m := c.ask.Meter
	if m == nil {
		m = &c.server.others
	}
	o := outcome{took: now - r.began, answered: -1, received: c.received(), sent: r.sent}
	if r.from != 0 {
		o.answered = now - r.asked
	}
	m.count(c.request.Method, status, c.core, &o)
	if log := c.server.settings.Log; log != nil && !c.ask.Quiet {
		log.take(c, m, status, now)
	}
}

// received is how many bytes the request has, as far as it is known.
func (c *client) received() int64 {
	n := int64(c.request.Size())
	switch l := &c.upload; {
	case l.client == nil:
		return n
	case c.request.Length > 0:
		return n + c.request.Length
	default:
		return n + max(l.sent.Load(), int64(len(l.have)))
	}
}

// Others counts the requests for which no router has named a Meter: those for hosts
// that nobody knows, and those that are refused as they are.
func (s *Server) Others() *Meter { return &s.others }

// dials returns when a connection to an endpoint begins to be made.
func (c *client) dials() int64 {
	if !c.server.measures {
		return 0
	}
	return c.server.nanos()
}

// dialled takes note of one that was made.
func (c *client) dialled(since int64) {
	if m := c.ask.Meter; m != nil && since != 0 {
		made(&m.connects).count(c.server.nanos() - since)
	}
}

// remembers gives the client's buffer back though its connection goes on, with a
// copy of the head for whoever takes note of it at the end.
func (c *client) remembers() {
	if c.server.measures {
		head := append([]byte(nil), c.in.bytes()[:c.request.Size()]...)
		c.request.Reset()
		_, _ = c.request.Parse(head, &c.server.settings.Limits) // as it was
	}
	c.in.free()
	c.in = nil
}
