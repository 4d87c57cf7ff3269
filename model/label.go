package model

import (
	"iter"
	"slices"
	"strings"
	"unique"
)

// Labels are those of an object: immutable, comparable and as small as a
// pointer, since most pods share theirs with others. The zero value has none.
type Labels struct{ text unique.Handle[string] }

// LabelsOf makes labels of a map.
func LabelsOf(from map[string]string) Labels {
	if len(from) == 0 {
		return Labels{}
	}
	keys, length := make([]string, 0, 16), 0
	for key, value := range from {
		keys, length = append(keys, key), length+len(key)+len("=,")+len(value)
	}
	slices.Sort(keys)
	var text strings.Builder
	text.Grow(length)
	for _, key := range keys {
		if text.Len() > 0 {
			text.WriteByte(',')
		}
		text.WriteString(key)
		text.WriteByte('=')
		text.WriteString(from[key])
	}
	return Labels{unique.Make(text.String())}
}

// String is as kubectl shows them, sorted: a=b,c=d. Neither keys nor values
// have a comma or an equals sign in them (the API server sees to that).
func (l Labels) String() string {
	if l == (Labels{}) {
		return ""
	}
	return l.text.Value()
}

// All iterates over keys and values, sorted.
func (l Labels) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for rest := l.String(); rest != ""; {
			var label string
			label, rest, _ = strings.Cut(rest, ",")
			if key, value, _ := strings.Cut(label, "="); !yield(key, value) {
				return
			}
		}
	}
}

// Get returns the value of a key, and whether there is one. It is asked of all pods of
// a namespace when a policy comes, so it looks for the key in the text.
func (l Labels) Get(key string) (value string, ok bool) {
	text := l.String()
	for at := 0; ; {
		next := strings.Index(text[at:], key)
		if next < 0 {
			return "", false
		}
		begins := at + next
		at = begins + len(key)
		if (begins == 0 || text[begins-1] == ',') && strings.HasPrefix(text[at:], "=") {
			value, _, _ = strings.Cut(text[at+1:], ",")
			return value, true
		}
		if at = begins + 1; at > len(text) {
			return "", false
		}
	}
}

// Selector chooses objects by their labels: all of its requirements have to
// hold. The empty selector chooses every object; a nil pointer to one stands
// for a selector that was not given.
type Selector struct{ Requirements []Requirement }

// Requirement is on the value of one label (LabelSelectorRequirement of
// apimachinery). An object without the label meets NotIn and DoesNotExist.
type Requirement struct {
	Key      string
	Operator Operator
	Values   []string // of In and NotIn; sorted
}

// Operator is how a label is compared.
type Operator uint8

// The operators. Never is ours, for what is not understood: it holds for no
// object.
const (
	In Operator = iota
	NotIn
	Exists
	DoesNotExist
	Never
)

func (o Operator) String() string {
	return [...]string{"In", "NotIn", "Exists", "DoesNotExist", "Never"}[o]
}

// Matches tells whether the labels are chosen.
func (s *Selector) Matches(labels Labels) bool {
	for i := range s.Requirements {
		if !s.Requirements[i].matches(labels) {
			return false
		}
	}
	return true
}

func (r *Requirement) matches(labels Labels) bool {
	value, ok := labels.Get(r.Key)
	switch r.Operator {
	case In:
		return ok && slices.Contains(r.Values, value)
	case NotIn:
		return !ok || !slices.Contains(r.Values, value)
	case Exists:
		return ok
	case DoesNotExist:
		return !ok
	default:
		return false
	}
}

// String is as kubectl takes it (-l), for people and as a name: equal texts
// choose equally. The empty selector is "*", which is no label, and one that was
// not given "".
func (s *Selector) String() string {
	switch {
	case s == nil:
		return ""
	case len(s.Requirements) == 0:
		return "*"
	}
	texts := make([]string, len(s.Requirements))
	for i := range s.Requirements {
		texts[i] = s.Requirements[i].String()
	}
	return strings.Join(texts, ",")
}

func (r *Requirement) String() string {
	values := strings.Join(r.Values, ",")
	switch {
	case r.Operator == In && len(r.Values) == 1:
		return r.Key + "=" + values
	case r.Operator == NotIn && len(r.Values) == 1:
		return r.Key + "!=" + values
	case r.Operator == In:
		return r.Key + " in (" + values + ")"
	case r.Operator == NotIn:
		return r.Key + " notin (" + values + ")"
	case r.Operator == Exists:
		return r.Key
	case r.Operator == DoesNotExist:
		return "!" + r.Key
	}
	return "never " + r.Key
}

// Equal tells whether two selectors are the same; one that was not given is
// equal to none that was.
func (s *Selector) Equal(other *Selector) bool {
	return (s == nil) == (other == nil) && s.String() == other.String()
}
