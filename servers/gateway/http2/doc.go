// Package http2 serves connections of HTTP/2 (RFC 9113, HPACK by RFC 7541). It
// judges frames and fields, and writes each request down as one of HTTP/1.1, for the
// one reader that judges all requests (http1); an answer comes as HTTP/1.1 and goes
// out as frames. It makes no connection, and knows neither TLS nor routes.
//
// Of each connection one goroutine reads (Conn.Serve), one writes, and each Stream
// is served by a goroutine of its owner. A Stream is read by one goroutine and
// written by one at a time; a Conn may be told to drain from anywhere.
//
// # What a client can make it hold
//
// Of a connection: while a frame comes, an input (inputSizes); the frames that wait to
// be written (outputRoom, and answers to one read of frames), connectionWindow bytes of
// bodies, one head within Config.Limits, and HPACK's two tables of 4096 bytes. Of a
// stream: a head, and streamWindow bytes of the connection's. What waits for the rest of
// a head is told to Config.Hold, which bounds it for all connections.
//
// # What a client can make it do
//
// Resets, and frames that ask for work and bring none, are paid from budgets that
// requests and bodies fill again (multiplex.Budget). Who has spent them is told so
// (ENHANCE_YOUR_CALM), and the connection ends. That includes the resets that a
// client provokes by breaking rules. A stream that was reset counts for as long as it
// is served.
package http2
