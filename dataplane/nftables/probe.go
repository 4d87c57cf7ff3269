package nftables

// Missing names the first feature that our table is made of and the kernel does
// not know, with the version that brought it; it is empty if there is none. It
// needs CAP_NET_ADMIN, and leaves nothing.
func Missing() string { return missingFeature() }
