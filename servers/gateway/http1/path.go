package http1

import "bytes"

// plain tells whether a path is in its normal form already, as most are. It may
// say no to one that is.
func plain(path []byte) bool {
	if len(path) == 0 {
		return false
	}
	last := byte(0)
	for _, c := range path {
		if c == '/' {
			if last == '/' {
				return false
			}
		} else if octets[c]&inPath == 0 || c == ';' || c == '.' && last == '/' {
			return false
		}
		last = c
	}
	return true
}

// Rewritten checks a target that was made of pieces of a request, and returns it
// with its path in the normal form again: pieces that are harmless by themselves may
// not be together, as "/a../b" without its "/a" is not.
func Rewritten(target []byte) ([]byte, *Error) {
	if len(target) == 0 || target[0] != '/' {
		return nil, errTarget
	}
	if !all(target, inTarget) {
		return nil, errPath
	}
	path, query, asked := bytes.Cut(target, []byte{'?'})
	if plain(path) {
		return target, nil
	}
	made, _, err := normal(nil, path)
	if err != nil {
		return nil, err
	}
	if asked {
		made = append(append(made, '?'), query...)
	}
	return made, nil
}

// normal makes the normal form of a path in a buffer. The path begins with a slash
// or is empty.
func normal(into, path []byte) (made []byte, encoded bool, err *Error) {
	into = append(into[:0], '/')
	for i := 0; i < len(path); i++ {
		c := path[i]
		switch {
		case c == '/':
			if into, err = endSegment(into, false); err != nil {
				return into, false, err
			}
		case c == '%':
			if i+2 >= len(path) || octets[path[i+1]]&octets[path[i+2]]&hexadecimal == 0 {
				return into, false, errPath
			}
			c = unhex(path[i+1])<<4 | unhex(path[i+2])
			i += 2
			switch {
			case c == 0:
				return into, false, errPath
			case octets[c]&unreserved != 0:
				into = append(into, c)
			default:
				encoded = encoded || c == '/' || c == '\\'
				into = escape(into, c)
			}
		case octets[c]&inPath != 0:
			into = append(into, c)
		case octets[c]&escaped != 0:
			into = escape(into, c)
		default:
			return into, false, errPath
		}
	}
	into, err = endSegment(into, true)
	return into, encoded, err
}

// appendDecoded appends a path of the normal form without its escapes, and without a slash
// after a slash. There are no dot segments in it: normal refuses those that are
// hidden.
func appendDecoded(into, path []byte) []byte {
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' {
			c = unhex(path[i+1])<<4 | unhex(path[i+2])
			i += 2
		}
		if c == '/' && len(into) > 0 && into[len(into)-1] == '/' {
			continue
		}
		into = append(into, c)
	}
	return into
}

func escape(into []byte, c byte) []byte {
	const digits = "0123456789ABCDEF"
	return append(into, '%', digits[c>>4], digits[c&15])
}

// endSegment resolves the last segment of a path, and opens the next one unless it
// is the last.
func endSegment(path []byte, last bool) ([]byte, *Error) {
	slash := bytes.LastIndexByte(path, '/')
	segment := path[slash+1:]
	switch string(segment) {
	case "": // of a slash after a slash
		return path, nil
	case ".":
		return path[:slash+1], nil
	case "..":
		if slash == 0 {
			return path, errAboveRoot
		}
		before := bytes.LastIndexByte(path[:slash], '/') + 1
		if hasSeparator(path[before:slash]) { // of which others leave a part
			return path, errHiddenDots
		}
		return path[:before], nil
	}
	if hidesDots(segment) {
		return path, errHiddenDots
	}
	if !last {
		path = append(path, '/')
	}
	return path, nil
}

// hidesDots tells whether a segment has a dot segment in it for who takes an
// escaped slash or backslash for a separator, or cuts off what follows a semicolon.
func hidesDots(segment []byte) bool {
	for len(segment) > 0 {
		dots := 0
		for dots < len(segment) && segment[dots] == '.' {
			dots++
		}
		rest := segment[dots:]
		if (dots == 1 || dots == 2) && (len(rest) == 0 || rest[0] == ';' || isEscape(rest, "3B") || isSeparator(rest)) {
			return true
		}
		for len(rest) > 0 && !isSeparator(rest) {
			rest = rest[1:]
		}
		if len(rest) == 0 {
			return false
		}
		segment = rest[3:]
	}
	return false
}

func hasSeparator(segment []byte) bool {
	return bytes.Contains(segment, []byte("%2F")) || bytes.Contains(segment, []byte("%5C"))
}

func isSeparator(text []byte) bool { return isEscape(text, "2F") || isEscape(text, "5C") }

func isEscape(text []byte, digits string) bool {
	return len(text) >= 3 && text[0] == '%' && string(text[1:3]) == digits
}
