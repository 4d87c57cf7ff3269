package multiplex

import "time"

// Budget is what a client may do for nothing. What it does spends, what it brings
// earns, and time gives some back.
type Budget struct {
	Most int   // that may be spent
	Each int   // that a second gives back
	At   int64 // up to when seconds were given, in nanoseconds

	spent int
}

// Spend takes note of a deed, and returns false if there were too many.
func (b *Budget) Spend(n int, now int64) bool {
	if seconds := (now - b.At) / int64(time.Second); seconds > 0 {
		b.Earn(int(min(seconds, 1000)) * b.Each)
		b.At += seconds * int64(time.Second)
	}
	b.spent += n
	return b.spent <= b.Most
}

// Earn takes note of what was brought.
func (b *Budget) Earn(n int) { b.spent = max(0, b.spent-n) }

// Resets are streams that ended before their answer, by the client's word or its
// fault (CVE-2023-44487, CVE-2025-8671), as a connection may have them from some time
// on, in nanoseconds. One that is answered earns another.
func Resets(now int64) Budget { return Budget{Most: MostResets, Each: eachResets, At: now} }

// MostResets is how many a connection may have at once.
const MostResets, eachResets = 200, 20
