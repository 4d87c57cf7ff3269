// Package traffic says what goes through the gateways of the nodes, and how well. It
// is pure: the gateways count, and whoever wants to know asks them.
//
// Nothing here changes what it is given, and all of it may be called
// concurrently.
package traffic
