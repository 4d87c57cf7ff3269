package lab

import (
	"io"
	"testing"
)

// explained tells whether full queues may be all that lost more than is allowed: a packet
// of theirs costs a ping, a connection, or some that a stream sends again, and ends none.
func (a allowance) explained(results []result, full int) bool {
	const again = 20 // packets, by a stream for one that is lost
	more := 0
	for _, r := range results {
		switch {
		case a.excess(r) == "":
		case r.broken != nil || r.sent == 0:
			return false
		case r.stream:
			more += (max(0, r.lost-a.lost) + again - 1) / again
		default:
			more += max(0, r.lost-a.lost)
		}
	}
	return full > 0 && more <= full
}

// TestExplained: what full queues excuse, and what not.
func TestExplained(t *testing.T) {
	for _, test := range []struct {
		allowed allowance
		full    int
		results []result
		want    bool
	}{
		{allowance{}, 0, []result{{sent: 9, lost: 1}}, false},
		{allowance{}, 3, []result{{sent: 9, lost: 1}, {sent: 9, lost: 1, tcp: true}, {sent: 9, lost: 20, tcp: true, stream: true}}, true},
		{allowance{}, 2, []result{{sent: 9, lost: 2}, {sent: 9, lost: 1, tcp: true}}, false},
		{allowance{lost: 5}, 2, []result{{sent: 9, lost: 5}, {sent: 9, lost: 7}}, true},
		{allowance{}, 100, []result{{sent: 9, tcp: true, stream: true, broken: io.ErrUnexpectedEOF}}, false},
		{allowance{}, 100, []result{{}}, false},
	} {
		if got := test.allowed.explained(test.results, test.full); got != test.want {
			t.Errorf("%d packets, %v: %t", test.full, test.results, got)
		}
	}
}
