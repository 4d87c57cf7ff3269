package gateway

import "strings"

// Rewrite is the path that the backend sees instead of one, which is a NormalPath:
// that of rewrite-target, with what the path's expression found in the place of $1 to
// $9, escaped: what was found is never a query, or an escape of its own. What it did
// not find is nothing.
func (r *Route) Rewrite(path string) string {
	to := r.Policy.Rewrite
	if to == "" {
		return path
	}
	if r.Match.Expression == nil || strings.IndexByte(to, '$') < 0 {
		return to
	}
	found := r.Match.Expression.FindStringSubmatchIndex(path)
	var b strings.Builder
	for {
		at := strings.IndexByte(to, '$')
		if at < 0 {
			break
		}
		b.WriteString(to[:at])
		if n := 2 * int(to[at+1]-'0'); n+1 < len(found) && found[n] >= 0 {
			b.WriteString(EscapePath(path[found[n]:found[n+1]]))
		}
		to = to[at+2:]
	}
	b.WriteString(to)
	return b.String()
}
