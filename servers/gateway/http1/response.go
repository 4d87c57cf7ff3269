package http1

// Response is the head of one. It is reused from one to the next, as a Request is.
type Response struct {
	Head
	Status int
	Reason []byte

	reason span
	begun  bool
}

// Reset makes it ready for the next.
func (r *Response) Reset() {
	r.Head.reset()
	*r = Response{Head: r.Head}
}

// Parse goes on reading the head of an answer to a request, as Request.Parse does.
func (r *Response) Parse(text []byte, toHEAD bool, limits *Limits) (bool, *Error) {
	r.text = text
	if !r.begun {
		s, ok, err := r.line()
		if err != nil {
			return false, err
		}
		if !ok {
			if len(text) >= limits.Line {
				return false, errLongLine
			}
			return false, nil
		}
		r.begun = true
		if err := r.first(s); err != nil {
			return false, err
		}
	}
	if done, err := r.more(limits); !done {
		return false, err
	}
	if err := r.Head.finish(); err != nil {
		return false, err
	}
	r.Reason = r.reason.of(text)
	switch {
	case toHEAD || r.Status < 200 || r.Status == 204 || r.Status == 304: // RFC 9112, section 6.3
		r.Length = 0
	case r.lengths == 0 && r.codings == 0:
		r.Length = UntilClose
	}
	return true, nil
}

// first reads the first line. Who has no reason may leave out the space before it.
func (r *Response) first(s span) *Error {
	text := s.of(r.text)
	if len(text) < 12 || string(text[:7]) != "HTTP/1." || text[7] != '0' && text[7] != '1' || text[8] != ' ' || !all(text[9:12], digit) {
		return errStatusLine
	}
	r.Minor = text[7] - '0'
	r.Status = int(text[9]-'0')*100 + int(text[10]-'0')*10 + int(text[11]-'0')
	if r.Status < 100 || len(text) > 12 && text[12] != ' ' || !isValue(text[12:]) {
		return errStatusLine
	}
	r.reason = span{min(s.from+13, s.to), s.to}
	return nil
}
