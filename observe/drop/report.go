package drop

// Report is what one node says of its drops. As JSON its fields only grow.
type Report struct {
	Node    string    `json:"node"`
	Reading bool      `json:"reading"` // the kernel's log is read
	Trouble string    `json:"trouble,omitempty"`
	Counts  Counts    `json:"counts"`
	Records []*Record `json:"records"`
}

// Counts are packets since the agent has begun.
type Counts struct {
	Read       uint64 `json:"read"`       // of the log
	Lost       uint64 `json:"lost"`       // of the log, since they came too fast
	Suppressed uint64 `json:"suppressed"` // denied, and not logged: the kernel limits how many are
	Unwritten  uint64 `json:"unwritten"`  // read, and not written to the file
}
