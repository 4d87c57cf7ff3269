// Package asker says who asks the DNS servers of the nodes most, and for what. It
// is pure: the servers count, and whoever wants to know asks them.
//
// Nothing here changes what it is given, and all of it may be called
// concurrently.
package asker
