package gateway

import (
	"cmp"
	"math"
	"slices"
	"strings"
)

// index finds the route of a path.
type index struct {
	next   *index // of another namespace, if expressions are not to reach beyond theirs
	exact  byPath
	levels []level  // longest first; none if expressions holds all
	regex  []*Route // in their order; if there is one, all are
}

// level are the paths of one length.
type level struct {
	length   int
	elements byPath // of MatchPrefix, without a slash at the end
	bytes    byPath // of MatchText
}

// byPath are routes by their path. Most hosts have one or two, for which a map would
// take a multiple of their memory.
type byPath struct {
	few  []pathRoute
	many map[string]*Route // if they are more than mostFew: all
}

type pathRoute struct {
	path  string
	route *Route
}

const mostFew = 8

func (p *byPath) get(path string) *Route {
	if p.many != nil {
		return p.many[path]
	}
	for i := range p.few {
		if p.few[i].path == path {
			return p.few[i].route
		}
	}
	return nil
}

// add adds one, in the place of another of its path.
func (p *byPath) add(path string, route *Route) {
	for i := range p.few {
		if p.few[i].path == path {
			p.few[i].route = route
			return
		}
	}
	if p.many == nil && len(p.few) < mostFew {
		p.few = append(p.few, pathRoute{path, route})
		return
	}
	if p.many == nil {
		p.many = make(map[string]*Route, 2*mostFew)
		for _, f := range p.few {
			p.many[f.path] = f.route
		}
		p.few = nil
	}
	p.many[path] = route
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
	route, redirect = x.own(path)
	for other := x.next; other != nil; other = other.next {
		if found, slash := other.own(path); found != nil && (route == nil || found.before(route)) {
			route, redirect = found, slash
		}
	}
	return route, redirect
}

// before tells which of two routes of different namespaces takes a path that both
// match: as always, who names more of it, and of an expression that is what it begins
// with. So nobody reaches by an expression what a plain path of his would not.
func (r *Route) before(other *Route) bool {
	mine, others := r.Match.reach(), other.Match.reach()
	return mine > others || mine == others && r.rank < other.rank
}

// reach is how many bytes a match names of each path that it matches. A slash at the
// end says nothing.
func (m *Match) reach() int {
	switch m.Type {
	case MatchExact:
		return math.MaxInt
	case MatchRegex:
		return len(strings.TrimRight(m.literal, "/"))
	default:
		return len(strings.TrimRight(m.Path, "/"))
	}
}

func (x *index) own(path string) (route *Route, redirect bool) {
	for _, route := range x.regex {
		if route.Match.matches(path) {
			return route, false
		}
	}
	if route := x.exact.get(path); route != nil {
		return route, false
	}
	for _, level := range x.levels {
		if level.length == len(path)+1 && !strings.HasSuffix(path, "/") && !x.has(path) {
			if route := level.bytes.get(path + "/"); route != nil {
				return route, true
			}
		}
		if level.length > len(path) {
			continue
		}
		begin := path[:level.length]
		if len(path) == level.length || path[level.length] == '/' {
			if route := level.elements.get(begin); route != nil {
				return route, false
			}
		}
		if route := level.bytes.get(begin); route != nil {
			return route, false
		}
	}
	return nil, false
}

// has tells whether a path itself is one of a rule.
func (x *index) has(path string) bool {
	return slices.ContainsFunc(x.levels, func(l level) bool {
		return l.length == len(path) && (l.elements.get(path) != nil || l.bytes.get(path) != nil)
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
	if alternates(expression) {
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

// alternates tells whether an expression is one of several, which need not begin
// alike. What it cannot tell may be.
func alternates(expression string) bool {
	if !strings.Contains(expression, "|") {
		return false
	}
	depth := 0
	for i := 0; i < len(expression); i++ {
		switch expression[i] {
		case '\\':
			if i++; i == len(expression) || expression[i] == 'Q' {
				return true
			}
		case '[':
			end := strings.IndexByte(expression[i:], ']')
			if end < 0 || strings.ContainsAny(expression[i:i+end], `|()\`) || end < 2 || strings.HasPrefix(expression[i:], "[^]") || strings.Contains(expression[i:i+end], "[:") {
				return true
			}
			i += end
		case '(':
			depth++
		case ')':
			depth--
		case '|':
			if depth == 0 {
				return true
			}
		}
		if depth < 0 {
			return true
		}
	}
	return depth != 0
}

// newIndexes makes one index of the routes of each namespace.
func newIndexes(routes []*Route) (first *index) {
	by, order := map[string][]*Route{}, []string(nil)
	for _, route := range routes {
		of := route.From.Namespace
		if by[of] == nil {
			order = append(order, of)
		}
		by[of] = append(by[of], route)
	}
	slices.Sort(order)
	for _, of := range order {
		made := newIndex(by[of])
		made.next, first = first, made
	}
	return first
}

// newIndex makes one of routes that are in their order.
func newIndex(routes []*Route) *index {
	x := &index{}
	levels := map[int]*level{}
	at := func(length int) *level {
		if levels[length] == nil {
			levels[length] = &level{length: length}
		}
		return levels[length]
	}
	for _, route := range routes {
		switch path := route.Match.Path; route.Match.Type {
		case MatchRegex:
			x.regex = append(x.regex, route)
		case MatchExact:
			x.exact.add(path, route)
		case MatchPrefix:
			path = strings.TrimRight(path, "/")
			at(len(path)).elements.add(path, route)
		case MatchText:
			at(len(path)).bytes.add(path, route)
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
