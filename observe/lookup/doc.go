// Package lookup follows what a program in a pod does to find a name: the domains
// that its resolver tries, what the DNS server of the node says to each, and who
// has said it. It is pure: whoever calls Walk asks the server. It knows the
// resolver of glibc; others ask the same, and differ in when they give up.
//
// Nothing here changes what it is given, and all of it may be called
// concurrently.
package lookup
