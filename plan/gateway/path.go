package gateway

import (
	"errors"
	"strings"
)

var errAboveRoot = errors.New("the path leaves the root")

// NormalPath is a path as requests are compared with it: escapes are resolved, once;
// several slashes are one; then "." and ".." are resolved. What is no escape is text,
// as in /100%. A path of a rule and that of a request have one form so, however
// either was written.
func NormalPath(path string) (string, error) {
	if !strings.HasPrefix(path, "/") || !strings.ContainsAny(path, "%.") && !strings.Contains(path, "//") {
		return path, nil
	}
	made := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' && i+2 < len(path) && isHex(path[i+1]) && isHex(path[i+2]) {
			c = unhex(path[i+1])<<4 | unhex(path[i+2])
			i += 2
		}
		made = append(made, c)
	}
	var segments []string
	all := strings.Split(string(made[1:]), "/")
	for i, segment := range all {
		last := i == len(all)-1
		switch segment {
		case "", ".":
		case "..":
			if len(segments) == 0 {
				return "", errAboveRoot
			}
			segments = segments[:len(segments)-1]
		default:
			segments = append(segments, segment)
			continue
		}
		if last {
			segments = append(segments, "") // the slash at the end
		}
	}
	return "/" + strings.Join(segments, "/"), nil
}

func isHex(c byte) bool {
	return c-'0' < 10 || c|0x20-'a' < 6
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}

// EscapePath writes a path that has no escapes as one of a URL (RFC 3986, section
// 3.3).
func EscapePath(path string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(path) {
		if c := path[i]; c < 0x80 && (c|0x20-'a' < 26 || c-'0' < 10 || strings.IndexByte("-._~!$&'()*+,;=:@/", c) >= 0) {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', digits[c>>4], digits[c&15]})
		}
	}
	return b.String()
}
