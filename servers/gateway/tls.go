package gateway

// handshake makes the connection one of TLS. It is done in tls.go's next version.
func (c *client) handshake() bool { return false }
