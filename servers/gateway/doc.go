// Package gateway is a reverse proxy for HTTP: one goroutine for each client
// connection reads a request (http1), asks a Router what becomes of it, and writes
// it straight to a pooled connection of an endpoint. It does not know where routes
// come from, nor Kubernetes. A Server is run once; the Table that it serves may be
// replaced at any time, from anywhere, and no connection that is open notices.
package gateway
