// Package model has the words of Fairlead: what the cluster and this node look
// like at one moment, as one immutable Snapshot, and the persistent Map that it
// is made of. It decides nothing and reads nothing from outside.
//
// Everything published here is immutable and may be read concurrently; Feed,
// where the sources of a node meet, has its own lock.
package model
