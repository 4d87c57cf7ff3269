package gateway

// firstHead is how much memory a client has that has sent a part of a head, in
// bytes: those are few who do, and most of them mean no good. It is doubled as more
// comes.
const firstHead = 1 << 10

// waits returns where the rest of a head may be read to; nil if too much is waited
// for already.
func (c *client) waits() []byte {
	n := len(c.in.bytes())
	// The first byte of TLS was waited for alone: the others are there, as a rule, and
	// whoever sends all at once is served whatever others do.
	part := n > 1 || c.plain()
	if part && c.in.pooled() && n <= len(c.in.b)/2 {
		room := firstHead
		for room <= n {
			room *= 2
		}
		small := &buffer{b: make([]byte, room)}
		small.to = copy(small.b, c.in.bytes())
		c.in.free()
		c.in = small
	}
	room := c.in.room()
	if !c.holds(len(c.in.b)) && part {
		return nil
	}
	return room
}

// holds takes note of the memory that the client has for a head which is not whole.
// It returns false if that of all clients is more than Settings.Heads.
func (c *client) holds(bytes int) bool {
	if bytes == c.held {
		return true
	}
	more := bytes - c.held
	c.held = bytes
	return c.server.hold(more) || bytes == 0
}

// hold takes note of bytes more, or fewer, that heads have which are not whole. It
// returns false if those of all clients are more than Settings.Heads.
func (s *Server) hold(bytes int) bool {
	return s.heads.Add(int64(bytes)) <= s.settings.Heads
}
