// Package hop reads from the kernel of this node what becomes of one packet
// here: by which interface it comes, which route it takes, through which tunnel
// and to which neighbour. It changes nothing, sends nothing and decides nothing:
// observe/trace does.
//
// Answer is for the network namespace of the calling thread, and may be called
// concurrently.
package hop
