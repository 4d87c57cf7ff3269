package dataplane

// Counter is how much a rule of a data plane has met. It begins anew with the
// rule.
type Counter struct {
	Rule           string // what it is for, in words; rules of the same words count together
	Packets, Bytes uint64
}

// Counted is a Dataplane whose rules count. Counters reads them from the kernel,
// and may be called concurrently with Apply. It is for people who look on now
// and then, not for every event.
type Counted interface {
	Counters() ([]Counter, error)
}
