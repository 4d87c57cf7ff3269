// Package ingress says what becomes of requests from outside of the cluster, for
// fairlead ingress: what each manifest will do here, which names lead where, and
// who takes a URL and why. It is pure; the cluster is read by others. Its functions
// may be called concurrently.
package ingress

import (
	"strings"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/gateway"
)

// Untold is why a question has no answer.
type Untold struct {
	What string
	Next string // what to do then
}

func (u *Untold) Error() string { return u.What }

// compute makes the table of a snapshot.
func compute(snapshot *model.Snapshot) (*gateway.Table, []model.Problem) {
	return gateway.Compute(nil, snapshot)
}

// Style is how texts mark what they say. The zero value writes no colours.
type Style struct {
	Colour bool // of an ANSI terminal (ECMA-48)
}

const (
	red    = "31"
	green  = "32"
	yellow = "33"
)

func (s Style) paint(colour, text string) string {
	if !s.Colour {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// columns aligns rows of cells.
func columns(b *strings.Builder, rows [][]string) {
	width := map[int]int{}
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], len([]rune(cell)))
		}
	}
	for _, row := range rows {
		line := ""
		for i, cell := range row {
			line += cell + strings.Repeat(" ", width[i]-len([]rune(cell))+2)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}
