// Package multiplex is what connections with many requests at once have in common,
// those of HTTP/2 and of HTTP/3: how the fields of a request become the one text of
// HTTP/1.1 that is judged (Head), and what a client may do for nothing (Budget). It
// does no I/O. A value is used by one goroutine at a time.
package multiplex
