package cli

import (
	"bytes"
	"regexp"
	"slices"
)

// takenOut stands where a secret was.
const takenOut = "[taken out]"

// scrub takes out what looks like a secret. Nothing that a bundle is made of is
// meant to have one; but a log has what went wrong, and the configuration of a
// CNI plugin what its author thought of. It rather takes too much.
func scrub(text []byte) []byte {
	text = scrubKeys(text)
	patterns := secrets()
	var clean bytes.Buffer
	for line := range bytes.Lines(text) {
		// Few lines have a word that a pattern needs, and patterns take their time.
		lower := bytes.ToLower(line)
		for _, p := range patterns {
			if slices.ContainsFunc(p.words, func(word []byte) bool { return bytes.Contains(lower, word) }) {
				line = p.pattern.ReplaceAll(line, []byte("${1}"+takenOut+"${2}"))
			}
		}
		clean.Write(scrubBootstrap(line))
	}
	return clean.Bytes()
}

// largestKey in bytes is more than a private key in PEM has.
const largestKey = 16 << 10

// scrubKeys takes out private keys in PEM, also those of which the beginning or
// the end was cut off.
func scrubKeys(text []byte) []byte {
	begin, name, end := []byte("-----BEGIN "), []byte("PRIVATE KEY-----"), []byte("-----END ")
	var clean []byte
	for {
		at := bytes.Index(text, name)
		if at < 0 {
			return append(clean, text...)
		}
		first, rest := bytes.LastIndex(text[:at], begin), text[at+len(name):]
		if bytes.LastIndex(text[:at], end) > first { // of one that began before
			first = max(0, at-largestKey)
		} else {
			first = max(0, first)
			stop := bytes.Index(rest, end)
			if stop < 0 || stop > largestKey {
				stop = min(len(rest), largestKey)
			}
			rest = rest[stop:]
			if after, ok := bytes.CutPrefix(rest, end); ok {
				if stop := bytes.Index(after[:min(len(after), 100)], name); stop >= 0 {
					rest = after[stop+len(name):]
				}
			}
		}
		clean = append(append(clean, text[:first]...), takenOut...)
		text = rest
	}
}

// secret is how one looks in a line. What its first group has stays, as what its
// second has.
type secret struct {
	words   [][]byte // in lower case, of which the line has one
	pattern *regexp.Regexp
}

func secrets() []secret {
	words := func(words ...string) (all [][]byte) {
		for _, word := range words {
			all = append(all, []byte(word))
		}
		return all
	}
	return []secret{
		// JSON web tokens, such as those of service accounts.
		{words("eyj"), regexp.MustCompile(`()\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?()`)},
		{words("bearer", "basic"), regexp.MustCompile(`(?i)(\b(?:bearer|basic)\s+)[A-Za-z0-9+/=._~-]{8,}()`)},
		{words("://"), regexp.MustCompile(`(?i)([a-z][a-z0-9+.-]*://[^\s/:@"']*:)[^\s/@"']+(@)`)},
		// A name that says so, and its value: in YAML, JSON, flags and environments.
		{words("token", "passw", "secret", "credential", "private", "psk", "key", "certificate"), regexp.MustCompile(
			`(?i)((?:token|passwd|password|passwort|secret|credential|private[_-]?key|psk|api[_-]?key|access[_-]?key|key[_-]data|certificate-data)` +
				`[a-z0-9_.-]*\\?["']?\s*[:=]\s*\\?["']?)[^\s"',}\\]+()`)},
	}
}

// scrubBootstrap takes out the tokens by which kubeadm lets nodes join: six
// letters or digits, a dot, and sixteen.
func scrubBootstrap(line []byte) []byte {
	const before, after = 6, 16
	plain := func(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }
	part := func(c byte) bool { return plain(c) || c >= 'A' && c <= 'Z' || c == '_' }
	for at := 0; at < len(line); at++ {
		first, last := at-before, at+1+after // of the token, and what follows it
		if line[at] != '.' || first < 0 || last > len(line) ||
			first > 0 && part(line[first-1]) || last < len(line) && part(line[last]) {
			continue
		}
		no := func(c byte) bool { return !plain(c) }
		if slices.ContainsFunc(line[first:at], no) || slices.ContainsFunc(line[at+1:last], no) {
			continue
		}
		line = slices.Concat(line[:first], []byte(takenOut), line[last:])
		at = first + len(takenOut)
	}
	return line
}
