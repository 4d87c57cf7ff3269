package gateway

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// readSnippet understands the few directives of a configuration-snippet that are
// mere data: headers that are set, added or removed, and an answer with another
// URL. All else is nginx's own language, in which its worst holes were
// (CVE-2021-25742).
func readSnippet(s *settings, text string) error {
	statements, err := statementsOf(text)
	if err != nil {
		return err
	}
	for _, words := range statements {
		if err := s.directive(words); err != nil {
			return fmt.Errorf("directive %s: %w", words[0], err)
		}
	}
	return nil
}

func (s *settings) directive(words []string) error {
	args := words[1:]
	switch words[0] {
	case "more_set_headers", "more_clear_headers":
		for _, arg := range args {
			if strings.HasPrefix(arg, "-") {
				return errors.New("its options are not understood")
			}
			if err := s.moreHeader(words[0] == "more_clear_headers", arg); err != nil {
				return err
			}
		}
		return nil
	case "add_header":
		always := len(args) == 3 && args[2] == "always"
		if len(args) != 2 && !always {
			return errors.New("want a name, a value, and perhaps always")
		}
		return addHeader(&s.ResponseHeaders, args[0], args[1], HeaderEdit{Add: true, Always: always})
	case "proxy_set_header":
		if len(args) != 2 {
			return errors.New("want a name and a value")
		}
		return addHeader(&s.RequestHeaders, args[0], args[1], HeaderEdit{})
	case "proxy_hide_header":
		if len(args) != 1 {
			return errors.New("want a name")
		}
		return s.moreHeader(true, args[0])
	case "return":
		return s.answer(args)
	case "rewrite":
		return s.rewritten(args)
	}
	return errors.New("text of nginx's configuration is run by nobody here; there are more_set_headers, more_clear_headers, add_header, proxy_set_header, proxy_hide_header, return CODE URL, and rewrite ^ URL redirect or permanent")
}

func (s *settings) moreHeader(remove bool, arg string) error {
	name, value, ok := strings.Cut(arg, ":")
	if remove || !ok {
		if !isToken(name) {
			return fmt.Errorf("%q is not the name of a header", name)
		}
		if isFraming(name) {
			return fmt.Errorf("header %s is not for snippets to remove", name)
		}
		s.ResponseHeaders = append(s.ResponseHeaders, HeaderEdit{Name: name, Always: true})
		return nil
	}
	return addHeader(&s.ResponseHeaders, name, strings.TrimSpace(value), HeaderEdit{Always: true})
}

// framing are headers that say where a message ends or who sent it: who sets them
// changes what a request is.
var framing = []string{"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}

func isFraming(name string) bool {
	return slices.ContainsFunc(framing, func(one string) bool { return strings.EqualFold(one, name) })
}

func addHeader(to *[]HeaderEdit, name, value string, edit HeaderEdit) error {
	if !isToken(name) {
		return fmt.Errorf("%q is not the name of a header", name)
	}
	if isFraming(name) {
		return fmt.Errorf("header %s is not for snippets to set", name)
	}
	t, err := ParseTemplate(value)
	if err != nil {
		return err
	}
	edit.Name = name
	if edit.Value = t; value == "" {
		edit.Value = nil // nginx sends none that is empty
	}
	*to = append(*to, edit)
	return nil
}

func (s *settings) answer(args []string) error {
	codes := map[string]int{"301": 301, "302": 302, "303": 303, "307": 307, "308": 308}
	if len(args) != 2 || codes[args[0]] == 0 {
		return errors.New("want 301, 302, 303, 307 or 308, and a URL")
	}
	to, err := readTarget(args[1])
	if err == nil {
		s.Redirect = &Redirect{To: to, Code: codes[args[0]]}
	}
	return err
}

func (s *settings) rewritten(args []string) error {
	codes := map[string]int{"permanent": 301, "redirect": 302}
	if len(args) != 3 || codes[args[2]] == 0 || args[0] != "^" && args[0] != "^(.*)$" && args[0] != "^.*$" {
		return errors.New("want ^, a URL, and redirect or permanent; for others there is rewrite-target")
	}
	to, err := readTarget(args[1])
	if err == nil {
		s.Redirect = &Redirect{To: to, Code: codes[args[2]]}
	}
	return err
}

// statementsOf splits nginx's text into directives and their words. Blocks are an
// error.
func statementsOf(text string) (all [][]string, err error) {
	var words []string
	for rest := text; ; {
		rest = strings.TrimLeft(rest, " \t\r\n")
		if rest == "" {
			break
		}
		switch rest[0] {
		case '#':
			_, rest, _ = strings.Cut(rest, "\n")
			continue
		case ';':
			if len(words) > 0 {
				all, words = append(all, words), nil
			}
			rest = rest[1:]
			continue
		case '{', '}':
			return nil, errors.New("blocks such as if and location are nginx's own language, which is run by nobody here")
		}
		var word string
		if word, rest, err = wordOf(rest); err != nil {
			return nil, err
		}
		words = append(words, word)
	}
	if len(words) > 0 {
		return nil, fmt.Errorf("directive %s: its semicolon is missing", words[0])
	}
	return all, nil
}

// wordOf reads a word, which may be quoted.
func wordOf(text string) (word, rest string, err error) {
	if quote := text[0]; quote == '"' || quote == '\'' {
		var b strings.Builder
		for i := 1; i < len(text); i++ {
			switch {
			case text[i] == '\\' && i+1 < len(text):
				i++
				b.WriteByte(text[i])
			case text[i] == quote:
				return b.String(), text[i+1:], nil
			default:
				b.WriteByte(text[i])
			}
		}
		return "", "", errors.New("a quote is not closed")
	}
	end := strings.IndexAny(text, " \t\r\n;")
	if end < 0 {
		end = len(text)
	}
	if at := strings.IndexAny(text[:end], "{}"); at >= 0 && !strings.Contains(text[:end], "${") {
		end = at
		if end == 0 {
			return "", "", errors.New("a block begins")
		}
	}
	return text[:end], text[end:], nil
}
