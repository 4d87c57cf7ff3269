// Package routing leads the requests of a server by a plan: it makes a
// gateway.Router of a table of plan/gateway. It holds no state but what a table
// shares with the last: the backends, so that they go on where they were, and what
// clients have used of their limits.
//
// A Router is immutable, and asked concurrently.
package routing
