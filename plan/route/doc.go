// Package route plans how packets reach pods: the tunnel device of this node
// and the routes, neighbours and forwarding entries towards every pod of the
// cluster. One file for each way between nodes. It is pure; what comes out are
// names and sets, which a data plane turns into numbers.
package route
