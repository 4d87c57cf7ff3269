package http2

// Budgets of a connection.
const (
	// mostIdle are frames that bring nothing: PING, SETTINGS, empty DATA, small
	// windows (CVE-2019-9511 to 9518). Requests and bodies earn some.
	mostIdle, eachIdle = 2000, 50
	// earnedByData is what 1 KB of a body earns, either way, and earnedByRequest what a
	// request does.
	earnedByData, earnedByRequest = 1, 8
	// leastWindow is what a window has to be for its updates to cost nothing, in bytes.
	leastWindow = 256
)
