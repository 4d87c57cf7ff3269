package gateway

import (
	"fmt"
	"slices"
	"strings"
)

// Template is text with variables of a request, such as
// https://$host$request_uri. It is immutable.
type Template struct {
	parts []part
	text  string
}

type part struct{ literal, variable string } // one of them is empty

// variables are the names of nginx that a Template may have. Those of headers,
// cookies and parameters (http_, cookie_, arg_) come beside them.
var variables = []string{
	"args", "best_http_host", "escaped_request_uri", "host", "http_host", "https", "is_args", "namespace",
	"ingress_name", "query_string", "remote_addr", "request_method", "request_uri", "scheme", "server_name", "server_port", "service_name",
	"uri",
}

// families are the beginnings of names of variables that anything may follow.
var families = []string{"http_", "cookie_", "arg_"}

// ParseTemplate reads one. A variable is $name or ${name}. What nginx would run as
// another variable is an error, as are control characters: a value ends up in a
// header.
func ParseTemplate(text string) (*Template, error) {
	if at := strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }); at >= 0 {
		return nil, fmt.Errorf("a control character is at byte %d", at)
	}
	t := &Template{text: text}
	for rest := text; rest != ""; {
		literal, after, found := strings.Cut(rest, "$")
		if literal != "" {
			t.parts = append(t.parts, part{literal: literal})
		}
		if !found {
			break
		}
		name, left, err := variableOf(after)
		if err != nil {
			return nil, err
		}
		t.parts = append(t.parts, part{variable: name})
		rest = left
	}
	return t, nil
}

// variableOf reads the name of a variable behind its $.
func variableOf(text string) (name, rest string, err error) {
	if inner, ok := strings.CutPrefix(text, "{"); ok {
		name, rest, ok = strings.Cut(inner, "}")
		if !ok {
			return "", "", fmt.Errorf("${%s is not closed", inner)
		}
	} else {
		end := strings.IndexFunc(text, func(r rune) bool { return !isWord(r) })
		if end < 0 {
			end = len(text)
		}
		name, rest = text[:end], text[end:]
	}
	if slices.Contains(variables, name) || slices.ContainsFunc(families, func(family string) bool {
		return len(name) > len(family) && strings.HasPrefix(name, family)
	}) {
		return name, rest, nil
	}
	return "", "", fmt.Errorf("there is no variable $%s here; there are $%s, and those of headers, cookies and parameters: $http_NAME, $cookie_NAME, $arg_NAME",
		name, strings.Join(variables, ", $"))
}

func isWord(r rune) bool {
	return r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}

// Expand appends the text, each variable as value says it.
func (t *Template) Expand(into []byte, value func(variable string, into []byte) []byte) []byte {
	for _, p := range t.parts {
		if p.variable != "" {
			into = value(p.variable, into)
		} else {
			into = append(into, p.literal...)
		}
	}
	return into
}

// Plain tells whether it is the same for all requests.
func (t *Template) Plain() bool {
	return t == nil || len(t.parts) == 0 || len(t.parts) == 1 && t.parts[0].variable == ""
}

// String is what it was parsed from.
func (t *Template) String() string {
	if t == nil {
		return ""
	}
	return t.text
}
