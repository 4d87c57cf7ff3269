package http2

import "time"

// budget is what a client may do for nothing. What it does spends, what it brings
// earns, and time gives some back.
type budget struct {
	most  int // that may be spent
	each  int // that a second gives back
	spent int
	at    int64 // up to when seconds were given, in nanoseconds
}

// Budgets of a connection.
const (
	// mostResets are streams that ended before their answer, by the client's word or
	// its fault (CVE-2023-44487, CVE-2025-8671). One that is answered earns another.
	mostResets, eachResets = 200, 20
	// mostIdle are frames that bring nothing: PING, SETTINGS, empty DATA, small
	// windows (CVE-2019-9511 to 9518). Requests and bodies earn some.
	mostIdle, eachIdle = 2000, 50
	// earnedByData is what 1 KB of a body earns, either way, and earnedByRequest what a
	// request does.
	earnedByData, earnedByRequest = 1, 8
	// leastWindow is what a window has to be for its updates to cost nothing, in bytes.
	leastWindow = 256
)

// spend takes note of a deed, and returns false if there were too many.
func (b *budget) spend(n int, now int64) bool {
	if seconds := (now - b.at) / int64(time.Second); seconds > 0 {
		b.earn(int(min(seconds, 1000)) * b.each)
		b.at += seconds * int64(time.Second)
	}
	b.spent += n
	return b.spent <= b.most
}

func (b *budget) earn(n int) { b.spent = max(0, b.spent-n) }
