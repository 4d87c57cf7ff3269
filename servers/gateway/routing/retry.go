package routing

import (
	"strconv"
	"strings"

	plan "github.com/fairlead-net/fairlead/plan/gateway"
	"github.com/fairlead-net/fairlead/servers/gateway"
)

// newRetry says in the engine's words when another endpoint is asked.
func newRetry(of *plan.Retry) *gateway.Retry {
	r := &gateway.Retry{Tries: of.Tries, Time: of.Time}
	for _, word := range of.On {
		switch word {
		case "error":
			r.Error = true
		case "timeout":
			r.Timeout = true
		case "invalid_header":
			r.Invalid = true
		case "non_idempotent":
			r.Unsafe = true
		default:
			if code, ok := strings.CutPrefix(word, "http_"); ok {
				status, _ := strconv.Atoi(code) // the plan has looked
				r.Statuses = append(r.Statuses, status)
			}
		}
	}
	return r
}
