// Package http3 serves connections of HTTP/3 (RFC 9114, QPACK by RFC 9204 without a
// dynamic table) over quic-go's QUIC. It judges frames and fields, and writes each
// request down as one of HTTP/1.1, for the one reader that judges all requests
// (http1); an answer comes as HTTP/1.1 and goes out as frames. It knows no routes.
//
// A Socket is a UDP port. Of each connection one goroutine takes the streams
// (Conn.Serve), one reads each head, and then the Stream is its owner's: it is read by
// one goroutine and written by one at a time. A Socket may be told to stop, and a
// Conn to drain, from anywhere.
//
// There are no WebSockets (RFC 9220), no datagrams and no pushes, and nothing is taken
// before the handshake has ended (0-RTT): what comes so could be sent again by
// anybody.
//
// # What a client can make it hold
//
// Of a connection: connectionWindow bytes of bodies and heads that nobody has read,
// Config.Streams requests. Of a request: a head within Config.Limits, which is paid
// from Config.Hold until it is whole, and a buffer of 2 KB. What QUIC has for a
// connection besides is quic-go's.
//
// # What a client can make it do
//
// Requests that end before their answer are paid from a budget, as those of HTTP/2
// are. Who claims to begin many connections at once has to show first that its address
// is its own (Retry).
package http3
