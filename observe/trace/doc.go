// Package trace follows a packet from node to node: what each node's kernel
// does with it, what its plan says, where the two differ, and where it ends. It
// is pure: whoever calls Walk asks the nodes. Package observe/hop reads a node's
// kernel, and this package says what its plan expects.
//
// Nothing here changes what it is given, and all of it may be called
// concurrently.
package trace
