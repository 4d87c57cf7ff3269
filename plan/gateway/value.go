package gateway

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
	"time"
)

// Readers of values of annotations. What they refuse they say in words that end a
// sentence about the value.

func readBool(text string) (bool, error) {
	switch text {
	case "true", "yes", "on", "1":
		return true, nil
	case "false", "no", "off", "0", "":
		return false, nil
	}
	return false, errors.New(`want "true" or "false"`)
}

func readNumber(least, most int) func(string) (int, error) {
	return func(text string) (int, error) {
		n, err := strconv.Atoi(text)
		if err != nil || n < least || n > most {
			return 0, fmt.Errorf("want a number from %d to %d", least, most)
		}
		return n, nil
	}
}

// readSeconds reads what nginx takes: a number of seconds, or with a unit.
func readSeconds(text string) (time.Duration, error) {
	units := map[string]time.Duration{"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "": time.Second}
	number := strings.TrimRight(text, "smhd")
	unit, ok := units[text[len(number):]]
	n, err := strconv.Atoi(number)
	if !ok || err != nil || n < 0 || time.Duration(n) > 365*24*time.Hour/unit {
		return 0, errors.New("want seconds, such as 60 or 60s")
	}
	return time.Duration(n) * unit, nil
}

// readSize reads bytes, such as 8m. 0 is any.
func readSize(text string) (int64, error) {
	shift := 0
	if len(text) > 0 {
		switch text[len(text)-1] {
		case 'k', 'K':
			shift = 10
		case 'm', 'M':
			shift = 20
		case 'g', 'G':
			shift = 30
		}
	}
	digits := text
	if shift > 0 {
		digits = text[:len(text)-1]
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > (1<<62)>>shift {
		return 0, errors.New("want bytes, such as 1048576, 1024k or 1m; 0 is no limit")
	}
	return n << shift, nil
}

// readRanges reads addresses and ranges, separated by commas.
func readRanges(text string) (all []netip.Prefix, err error) {
	for one := range strings.SplitSeq(text, ",") {
		one = strings.TrimSpace(one)
		if one == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(one)
		if addr, other := netip.ParseAddr(one); other == nil {
			prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("%q is neither an address nor a range such as 10.0.0.0/8", one)
		}
		if bits := prefix.Bits() - 96; prefix.Addr().Is4In6() && bits >= 0 {
			prefix = netip.PrefixFrom(prefix.Addr().Unmap(), bits)
		}
		all = append(all, prefix.Masked())
	}
	return all, nil
}

// readList reads words, separated by commas.
func readList(text string) (all []string, err error) {
	for one := range strings.SplitSeq(text, ",") {
		if one = strings.TrimSpace(one); one != "" {
			all = append(all, one)
		}
	}
	return all, nil
}

// readHeaders reads names of headers, separated by commas.
func readHeaders(text string) ([]string, error) {
	all, _ := readList(text)
	for _, name := range all {
		if !isToken(name) {
			return nil, fmt.Errorf("%q is not the name of a header", name)
		}
		if isFraming(name) {
			return nil, fmt.Errorf("header %s says where a message ends or whose it is, and is not for others to set", name)
		}
	}
	return all, nil
}

func readToken(text string) (string, error) {
	if !isToken(text) {
		return "", errors.New("want the name of a header, cookie or method: letters, digits and -")
	}
	return text, nil
}

// isToken tells whether a text is one of RFC 9110, section 5.6.2.
func isToken(text string) bool {
	return text != "" && strings.IndexFunc(text, func(r rune) bool {
		return !isWord(r) && !strings.ContainsRune("!#$%&'*+-.^`|~", r)
	}) < 0
}

// readText reads what ends up in a header as it is.
func readText(text string) (string, error) {
	if at := strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }); at >= 0 {
		return "", fmt.Errorf("a control character is at byte %d", at)
	}
	return text, nil
}

func readPath(text string) (string, error) {
	if _, err := readText(text); err != nil || !strings.HasPrefix(text, "/") {
		return "", errors.New("want a path that begins with /")
	}
	return text, nil
}

// readURL reads a URL of HTTP, which may have variables.
func readURL(text string) (*Template, error) {
	t, err := ParseTemplate(text)
	if err != nil {
		return nil, err
	}
	plain := t.Expand(nil, example)
	parsed, err := url.Parse(string(plain))
	if err != nil || parsed.Scheme != "http" && parsed.Scheme != "https" && !strings.HasPrefix(text, "$scheme:") || parsed.Host == "" {
		return nil, errors.New("want a URL of http or https, such as https://auth.example.org/check")
	}
	return t, nil
}

// example appends what a variable may be.
func example(variable string, into []byte) []byte {
	switch variable {
	case "uri", "request_uri":
		return append(into, '/')
	case "server_port":
		return append(into, "80"...)
	}
	return append(into, 'x')
}

// readRegex reads an expression of RE2, which takes time in proportion to what it
// is matched with, whatever it is.
func readRegex(text string) (*regexp.Regexp, error) {
	const most = 4096
	if len(text) > most {
		return nil, fmt.Errorf("the expression has more than %d bytes", most)
	}
	expression, err := regexp.Compile(text)
	if err == nil {
		err = bounded(text)
	}
	if err != nil {
		return nil, fmt.Errorf("it is not an expression of RE2, which has neither look-around nor back-references: %w", err)
	}
	return expression, nil
}

// mostInstructions is how large an expression may be once it is compiled: what is
// matched costs so much for each byte.
const mostInstructions = 2000

func bounded(text string) error {
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return err
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err == nil && len(program.Inst) > mostInstructions {
		err = fmt.Errorf("it has %d instructions, and %d is the most: repetitions such as {999} count as often", len(program.Inst), mostInstructions)
	}
	return err
}

func oneOf(words ...string) func(string) (string, error) {
	return func(text string) (string, error) {
		for _, word := range words {
			if strings.EqualFold(word, text) {
				return word, nil
			}
		}
		return "", fmt.Errorf("want one of %s", strings.Join(words, ", "))
	}
}
