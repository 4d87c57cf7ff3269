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
	block := -1 // where the name of a secret begins that is in the lines below; -1: in none
	for line := range bytes.Lines(text) {
		if block >= 0 && indented(line, block) {
			continue
		}
		block = -1
		if bytes.ContainsAny(line, "|>") {
			if name := secretBlock.FindSubmatch(line); name != nil {
				block = len(name[1])
			}
		}
		// Few lines have a word that a pattern needs, and patterns take their time.
		lower := bytes.ToLower(line)
		for _, p := range patterns {
			if slices.ContainsFunc(p.words, func(word []byte) bool { return bytes.Contains(lower, word) }) {
				line = p.pattern.ReplaceAll(line, []byte(p.with))
			}
		}
		clean.Write(scrubBootstrap(line))
	}
	return clean.Bytes()
}

// indented tells whether a line of YAML begins further to the right, or has nothing.
func indented(line []byte, than int) bool {
	bare := bytes.TrimLeft(line, " ")
	return len(bytes.TrimSpace(bare)) == 0 || len(line)-len(bare) > than
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

// secret is how one looks in a line.
type secret struct {
	words   [][]byte // in lower case, of which the line has one
	pattern *regexp.Regexp
	with    string // what takes its place, with the groups of the pattern that stay
}

// secretName is a name that says that its value is a secret. Of pass, pwd and auth, with
// which other words begin or end, it has to be the last part: DB_PASS, dbPass, not bypass.
const secretName = `(?:(?:token|passwd|password|passwort|passphrase|secret|credential|private[_-]?key|psk|api[_-]?key|access[_-]?key|key[_-]data|certificate-data)` +
	`[a-z0-9_.-]*|(?:\b|_)(?:pass|pwd|auth)|(?-i:[a-z](?:Pass|Pwd|Auth)))`

// secretValue is what such a name has: all to the quote that ends it, also of JSON in a
// string, or a word. The quote before it stays.
const secretValue = `(?:(\\")(?:[^"\\\n]|\\\\\\"|\\[^"\n])+|(")(?:[^"\\\n]|\\[^\n])+|(')[^'\n]+|[^\s"',}\\]+)`

func secrets() []secret {
	words := func(words ...string) (all [][]byte) {
		for _, word := range words {
			all = append(all, []byte(word))
		}
		return all
	}
	const plain = "${1}" + takenOut + "${2}"
	return []secret{
		// JSON web tokens, such as those of service accounts.
		{words("eyj"), regexp.MustCompile(`()\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?()`), plain},
		{words("bearer", "basic"), regexp.MustCompile(`(?i)(\b(?:bearer|basic)\s+)[A-Za-z0-9+/=._~-]{8,}()`), plain},
		{words("://"), regexp.MustCompile(`(?i)([a-z][a-z0-9+.-]*://[^\s/:@"']*:)[^\s/@"']+(@)`), plain},
		// A name that says so, and its value: in YAML, JSON, flags and environments.
		{
			words("token", "pass", "pwd", "auth", "secret", "credential", "private", "psk", "key", "certificate"),
			regexp.MustCompile(`(?i)(` + secretName + `\\?["']?\s*[:=]+\s*)` + secretValue), "${1}${2}${3}${4}" + takenOut,
		},
	}
}

// secretBlock is such a name in YAML if its value is in the lines below, which begin
// further to the right than it.
var secretBlock = regexp.MustCompile(`(?i)^((?:- | )*)["']?[a-z0-9_.-]*` + secretName + `["']?\s*:\s*[|>][0-9+-]*\s*(?:#.*)?$`)

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
