package gateway

import "strings"

// Rewrite is the path that the backend sees instead of one: that of rewrite-target,
// with what the path's expression found in the place of $1 to $9. What it did not
// find, or where there is no expression, is nothing. Behind a question mark what was
// found is one value, whatever is in it.
func (r *Route) Rewrite(path string) string {
	to := r.Policy.Rewrite
	if to == "" {
		return path
	}
	if strings.IndexByte(to, '$') < 0 {
		return to
	}
	var found []int
	if r.Match.Expression != nil {
		found = r.Match.Expression.FindStringSubmatchIndex(path)
	}
	var b strings.Builder
	asked := false
	for {
		at := strings.IndexByte(to, '$')
		if at < 0 {
			break
		}
		b.WriteString(to[:at])
		asked = asked || strings.IndexByte(to[:at], '?') >= 0
		if n := 2 * int(to[at+1]-'0'); n+1 < len(found) && found[n] >= 0 {
			is := path[found[n]:found[n+1]]
			if asked {
				is = inQuery.Replace(is)
			}
			b.WriteString(is)
		}
		to = to[at+2:]
	}
	b.WriteString(to)
	return b.String()
}

// inQuery escapes what a path may have as it is and a query gives a meaning to.
var inQuery = strings.NewReplacer("&", "%26", "+", "%2B", ";", "%3B", "=", "%3D", "?", "%3F")

// Away tells whether rewrite-target is a URL: then clients are sent there, as nginx
// does.
func (p *Policy) Away() bool {
	return strings.HasPrefix(p.Rewrite, "http://") || strings.HasPrefix(p.Rewrite, "https://")
}
