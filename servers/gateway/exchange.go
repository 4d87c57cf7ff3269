package gateway

import (
	"bytes"
	"errors"
	"net/http"
	"slices"

	"github.com/fairlead-net/fairlead/servers/gateway/http1"
)

// exchange answers one request, and returns whether the connection goes on.
func (c *client) exchange() bool {
	table := c.server.table.Load()
	c.learn(table)
	c.ask = Request{Request: &c.request, Client: c.remote, Remote: c.remote, Port: c.at.port(), Secure: c.at.Secure, ServerName: c.name, Peer: c.peer}
	if c.ask.Trusted = c.trusted; c.trusted {
		c.ask.Client = c.client()
		if proto, ok := c.request.Get("x-forwarded-proto"); ok {
			c.ask.Secure = string(proto) == "https"
		}
	}
	if err := c.upload.begin(c); err != nil {
		c.refuse(err.Status, err.Reason)
		return false
	}
	switch {
	case string(c.request.Method) == http.MethodConnect || string(c.request.Method) == http.MethodTrace:
		return c.fixed(&Answer{Status: http.StatusMethodNotAllowed, Body: page(http.StatusMethodNotAllowed, "this method is for no gateway")})
	case c.request.Form == http1.Asterisk:
		return c.fixed(&Answer{Status: http.StatusOK})
	case table.Router == nil:
		return c.fail(http.StatusNotFound, "there is no route yet")
	}
	route, backend := table.Router.Route(&c.ask)
	if c.ask.Ended != nil {
		defer c.ask.Ended()
	}
	switch {
	case route == nil:
		return c.fail(http.StatusNotFound, "no route is for this host and path")
	case route.Answer != nil:
		return c.fixed(route.Answer)
	case backend == nil || backend.size() == 0:
		return c.fail(http.StatusServiceUnavailable, "the backend has no endpoint that is ready")
	case route.MaxBody > 0 && c.upload.exceeds(route.MaxBody):
		return c.fail(http.StatusRequestEntityTooLarge, "the body is longer than this route takes")
	}
	return c.proxy(route, backend)
}

// fixed answers without a backend. The connection goes on if the body has come.
func (c *client) fixed(a *Answer) bool {
	if !c.upload.whole {
		c.linger = true
		c.answer(a, false)
		return false
	}
	keep := c.answer(a, c.request.Persist)
	c.in.take(c.upload.used)
	return keep
}

func (c *client) fail(status int, reason string) bool {
	a := &Answer{Status: status, Body: page(status, reason)}
	if kind, _ := c.request.Get("content-type"); bytes.HasPrefix(kind, []byte("application/grpc")) {
		a.Fields = []Field{{Name: "Grpc-Status", Value: grpcStatus(status)}, {Name: "Grpc-Message", Value: reason}}
	}
	return c.fixed(a)
}

// grpcStatus is what clients of gRPC take a status of HTTP for.
func grpcStatus(status int) string {
	switch status {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return "14" // unavailable
	case http.StatusNotFound:
		return "12" // unimplemented
	}
	return "2" // unknown
}

// attempt is a request on its way to endpoints.
type attempt struct {
	route    *Route
	backend  *Backend
	timeouts Timeouts
	retry    *Retry
	tries    int     // endpoints that may be asked
	began    int64   // when, by the clock
	out      *buffer // of message
	message  []byte  // what is written: the head, and what fits of the body
	rest     []byte  // what is written then, of the body
	upgrade  []byte
	safe     bool // it may be sent twice
	fresh    bool // no connection of a pool is used
}

// proxy has a backend answer.
func (c *client) proxy(route *Route, backend *Backend) bool {
	a := &c.attempt // which is used again: it costs no memory
	*a = attempt{route: route, backend: backend, timeouts: route.Timeouts.or(DefaultTimeouts()), retry: route.Retry, began: c.clock.now()}
	if a.retry == nil {
		a.retry = defaultRetry
	}
	if a.tries = backend.size(); a.retry.Tries > 0 {
		a.tries = min(a.tries, a.retry.Tries)
	}
	bare := route.Method != "" // it has no body, and asks for no other protocol
	if bare && !c.upload.whole {
		// Behind a head without a body the rest of this one would be another request.
		return c.fail(http.StatusServiceUnavailable, "the backend has no endpoint that is ready")
	}
	if to := c.request.UpgradeTo(); to != nil && !bare && c.request.Length == 0 && c.request.Minor == 1 && !backend.HTTP2 && !bytes.EqualFold(to, []byte("h2c")) {
		a.upgrade = to
	}
	a.safe = c.upload.whole && (a.retry.Unsafe || c.request.Idempotent())
	length := c.upload.length
	if bare {
		length = 0
	}
	a.out = bufferOf(c.request.Size() + len(c.upload.have) + editRoom)
	defer a.free()
	message, refused := c.appendRequest(a.out.b[:0], route, length, a.upgrade)
	if refused != nil {
		return c.fail(refused.Status, refused.Reason)
	}
	if route.Mirror != nil {
		c.mirror(route.Mirror)
	}
	if a.message = message; !bare {
		a.message, a.rest = c.upload.append(message)
	}
	c.tried = c.tried[:0]
	for {
		u, status, reason := c.connect(a)
		if u == nil {
			return c.fail(status, reason)
		}
		keep, again := c.over(u, a)
		if !again {
			return keep
		}
		c.counts.retries.Add(1)
	}
}

// editRoom is how much longer heads become on their way, in most cases.
const editRoom = 1 << 10

// free gives up what was sent, once it is not sent again.
func (a *attempt) free() {
	a.out.free()
	a.out, a.message = nil, nil
}

// connect finds an endpoint that can be reached.
func (c *client) connect(a *attempt) (u *upstream, status int, reason string) {
	status, reason = http.StatusBadGateway, "no endpoint of the backend can be reached"
	for len(c.tried) == 0 || c.more(a) {
		now := c.clock.now()
		p := c.server.endpoints.pick(a.backend, c.ask.Prefer, c.tried, now)
		if p == nil {
			break
		}
		if !a.fresh {
			if u = c.server.pooled(p, c.core); u != nil {
				return u, 0, ""
			}
		}
		c.counts.dials.Add(1)
		began := c.dials()
		u, err := c.server.dial(p, c.core, a.timeouts.Connect)
		if err == nil {
			c.dialled(began)
			return u, 0, ""
		}
		c.counts.unreached.Add(1)
		p.failed(now)
		c.tried = append(c.tried, p)
		again := a.retry.Error
		status, reason = http.StatusBadGateway, "no endpoint of the backend can be reached"
		var timeout interface{ Timeout() bool }
		if errors.As(err, &timeout) && timeout.Timeout() {
			again = a.retry.Timeout
			status, reason = http.StatusGatewayTimeout, "no endpoint of the backend took a connection in time"
		}
		if !again {
			break
		}
	}
	return nil, status, reason
}

// more tells whether another endpoint may be asked.
func (c *client) more(a *attempt) bool {
	return len(c.tried) < a.tries && (a.retry.Time == 0 || c.clock.now()-a.began < int64(a.retry.Time))
}

// over sends the request over a connection, and the answer to the client. again
// tells that it failed, did no harm, and may be tried once more.
func (c *client) over(u *upstream, a *attempt) (keep, again bool) {
	u.endpoint.active.Add(1)
	defer u.endpoint.active.Add(-1)
	u.sock.out.bear(a.timeouts.Send)
	u.sock.in.bear(a.timeouts.Response)
	c.sends(u.endpoint)
	n, err := u.Write(a.message)
	if err == nil && len(a.rest) > 0 {
		_, err = u.Write(a.rest)
	}
	if err != nil && n == 0 { // nothing was sent
		return c.again(u, a, a.retry.Error, http.StatusBadGateway, "the endpoint closed the connection")
	}
	if !c.upload.whole {
		c.upload.start(u, a, err)
		a.free()
	}
	toHEAD := string(c.request.Method) == http.MethodHead
	c.awaits(u)
	for {
		if err := u.head(toHEAD, &c.server.settings.Limits); err != nil {
			return c.headless(u, a, err)
		}
		if u.response.Status >= 200 || u.response.Status == http.StatusSwitchingProtocols {
			break
		}
		if u.response.Status == http.StatusEarlyHints && c.request.Minor == 1 {
			if err := c.write(append(c.appendFields(appendStatus(nil, http.StatusEarlyHints, u.response.Reason), u, a.route, asItIs), "\r\n"...)); err != nil {
				return c.broken(u), false
			}
		}
	}
	if c.left() {
		return c.broken(u), false
	}
	u.sock.in.bear(a.timeouts.Response)
	u.endpoint.works(c.clock.now())
	c.record.from = u.response.Status
	if len(c.tried) > 0 {
		c.ask.Moved = u.endpoint.at
	}
	if a.safe && slices.Contains(a.retry.Statuses, u.response.Status) {
		if c.tried = append(c.tried, u.endpoint); c.more(a) {
			c.server.end(u) // with what it had to say
			return false, true
		}
	}
	if other := a.route.Instead; other != nil && c.upload.whole && slices.Contains(other.Codes, u.response.Status) && other.Backend.size() > 0 {
		c.ask.Status, c.ask.Prefer = u.response.Status, 0
		c.server.end(u) // with what it had to say
		a.free()
		return c.proxy(other.Route, other.Backend), false
	}
	if u.response.Status == http.StatusSwitchingProtocols {
		return c.switched(u, a), false
	}
	a.free()
	return c.relay(u, a), false
}

// again ends a connection, and decides whether another one is tried: if it may be,
// and an endpoint is left.
func (c *client) again(u *upstream, a *attempt, may bool, status int, reason string) (keep, again bool) {
	c.server.end(u)
	if u.reused && status == http.StatusBadGateway { // it may have been closed for its age: that says nothing of the endpoint
		a.fresh = true
		return false, true
	}
	c.tried = append(c.tried, u.endpoint)
	u.endpoint.failed(c.clock.now())
	if !may || !c.more(a) {
		return c.fail(status, reason), false
	}
	return false, true
}

// headless decides what becomes of a request whose answer has no head.
func (c *client) headless(u *upstream, a *attempt, err error) (keep, again bool) {
	left := c.left()
	if !c.upload.whole {
		if refused, gone := c.upload.stop(u); gone {
			return c.broken(u), false
		} else if refused != nil {
			c.server.end(u)
			c.refuse(refused.Status, refused.Reason)
			return false, false
		}
	}
	if left {
		return c.broken(u), false
	}
	status, reason, may := http.StatusBadGateway, "the endpoint ended the connection without an answer", a.retry.Error
	stale := u.reused && (u.in == nil || len(u.in.bytes()) == 0)
	var refused *http1.Error
	switch {
	case errors.As(err, &refused):
		reason, may, stale = "the endpoint's answer is no HTTP: "+refused.Reason, a.retry.Invalid, false
	case errors.Is(err, errDeadline):
		status, reason, may = http.StatusGatewayTimeout, "the endpoint did not answer in time", a.retry.Timeout
	}
	if !a.safe {
		c.server.end(u)
		return c.fail(status, reason), false
	}
	u.reused = stale
	return c.again(u, a, may, status, reason)
}

// broken ends both connections: what has begun cannot be finished.
func (c *client) broken(u *upstream) bool {
	c.server.end(u)
	c.abort()
	c.ended(0)
	return false
}

// awaits has the watch look whether the client waits still, while its answer is
// awaited. A stream of HTTP/2 hears of it.
func (c *client) awaits(u *upstream) {
	if c.stream != nil {
		c.stream.await(u.sock)
		return
	}
	c.sock.awaits.Store(u.sock)
}

// left ends that, and tells whether the client was gone.
func (c *client) left() bool {
	if c.stream != nil {
		return c.stream.awaits.Swap(nil) == nil
	}
	return c.sock.awaits.Swap(nil) == nil
}
