package gateway

import (
	"cmp"
	"slices"
	"strings"
)

// index finds the route of a path.
type index struct {
	exact  map[string]*Route
	levels []level  // longest first; none if expressions holds all
	regex  []*Route // in their order; if there is one, all are
}

// level are the paths of one length.
type level struct {
	length   int
	elements map[string]*Route // of MatchPrefix, without a slash at the end
	bytes    map[string]*Route // of MatchText
}

// Find returns the host that a name means, in lower case and without a port, and
// nil if there is none: then nobody takes its requests.
func (t *Table) Find(name string) *Host {
	if host, ok := t.Hosts.Get(name); ok && !host.absent {
		return host
	}
	if _, parent, ok := strings.Cut(name, "."); ok && parent != "" {
		if host, ok := t.Hosts.Get("*." + parent); ok && !host.absent {
			return host
		}
	}
	if host, ok := t.Hosts.Get(""); ok && !host.absent {
		return host
	}
	return nil
}

// Route returns who takes a path of a host, which is normalised, and nil if nobody
// does. Where there is something below the path alone, redirect is that path, with
// a slash at its end (as nginx does for location /a/ and the request /a).
func (t *Table) Route(host *Host, path string) (route *Route, redirect bool) {
	if host != nil {
		if route, redirect = host.index.find(path); route != nil {
			return route, redirect
		}
		if host.Default != nil {
			return host.Default, false
		}
	}
	// Whose clients have to show a certificate is judged by their host, and this is another.
	if all, ok := t.Hosts.Get(""); ok && all != host && all.ClientCert == nil {
		return all.Default, false
	}
	return nil, false
}

func (x *index) find(path string) (route *Route, redirect bool) {
	for _, route := range x.regex {
		if route.Match.matches(path) {
			return route, false
		}
	}
	if route := x.exact[path]; route != nil {
		return route, false
	}
	for _, level := range x.levels {
		if level.length == len(path)+1 && !strings.HasSuffix(path, "/") && !x.has(path) {
			if route := level.bytes[path+"/"]; route != nil {
				return route, true
			}
		}
		if level.length > len(path) {
			continue
		}
		begin := path[:level.length]
		if len(path) == level.length || path[level.length] == '/' {
			if route := level.elements[begin]; route != nil {
				return route, false
			}
		}
		if route := level.bytes[begin]; route != nil {
			return route, false
		}
	}
	return nil, false
}

// has tells whether a path itself is one of a rule.
func (x *index) has(path string) bool {
	return slices.ContainsFunc(x.levels, func(l level) bool {
		return l.length == len(path) && (l.elements[path] != nil || l.bytes[path] != nil)
	})
}

// matches is of MatchRegex.
func (m *Match) matches(path string) bool {
	return len(path) >= len(m.literal) && strings.EqualFold(path[:len(m.literal)], m.literal) && m.Expression.MatchString(path)
}

// regexMatch makes the match of a path that is an expression: from the beginning,
// and without regard to case. A dot means any character: a line break that was
// escaped leads nowhere else than what is before it.
func regexMatch(path string) (Match, error) {
	expression, err := readRegex("(?is)^" + path)
	return Match{Type: MatchRegex, Path: path, Expression: expression, literal: literalOf(path)}, err
}

// literalOf is what every path begins with that an expression matches.
func literalOf(expression string) string {
	if strings.Contains(expression, "|") {
		return ""
	}
	end := strings.IndexAny(expression, `\.+*?()[]{}^$`)
	if end < 0 {
		end = len(expression)
	} else if end > 0 && strings.IndexByte("*?{", expression[end]) >= 0 {
		end-- // the byte before may be missing
	}
	literal := expression[:end]
	if at := strings.IndexFunc(literal, func(r rune) bool { return r >= 0x80 }); at >= 0 {
		literal = literal[:at] // letters whose other case has another length
	}
	return strings.ToLower(literal)
}

// newIndex makes one of routes that are in their order.
func newIndex(routes []*Route) *index {
	x := &index{exact: map[string]*Route{}}
	levels := map[int]*level{}
	at := func(length int) *level {
		if levels[length] == nil {
			levels[length] = &level{length: length, elements: map[string]*Route{}, bytes: map[string]*Route{}}
		}
		return levels[length]
	}
	for _, route := range routes {
		switch path := route.Match.Path; route.Match.Type {
		case MatchRegex:
			x.regex = append(x.regex, route)
		case MatchExact:
			x.exact[path] = route
		case MatchPrefix:
			path = strings.TrimRight(path, "/")
			at(len(path)).elements[path] = route
		case MatchText:
			at(len(path)).bytes[path] = route
		}
	}
	for _, level := range levels {
		x.levels = append(x.levels, *level)
	}
	slices.SortFunc(x.levels, func(a, b level) int { return cmp.Compare(b.length, a.length) })
	return x
}

// sortRoutes brings routes into the order in which they are tried.
func sortRoutes(routes []*Route) {
	slices.SortStableFunc(routes, func(a, b *Route) int {
		return cmp.Or(
			cmp.Compare(b2i(a.Match.Type != MatchExact), b2i(b.Match.Type != MatchExact)),
			cmp.Compare(len(b.Match.Path), len(a.Match.Path)),
			cmp.Compare(a.Match.Type, b.Match.Type),
			cmp.Compare(b.Match.Path, a.Match.Path), // as ingress-nginx, where expressions are as long
		)
	})
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
