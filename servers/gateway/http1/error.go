package http1

import "net/http"

// Error is why a message is refused. It is answered with the status; a reason
// names the rule that was broken, and never what the client has sent.
type Error struct {
	Status int
	Reason string
}

func (e *Error) Error() string { return e.Reason }

func bad(reason string) *Error { return &Error{http.StatusBadRequest, reason} }

// Why messages are refused. None is ever changed.
var (
	errLineEnd    = bad("a line of the head does not end in CR LF")
	errFold       = bad("a header field is continued on a second line")
	errName       = bad("the name of a header field is not a token that a colon follows at once")
	errValue      = bad("the value of a header field has a control character")
	errRequest    = bad("the first line is not METHOD TARGET HTTP/1.1")
	errTarget     = bad("the target of the request is no path, URL or *")
	errPath       = bad("the path has a character that belongs into no URL, or a broken escape")
	errAboveRoot  = bad("the path leaves the root")
	errHiddenDots = bad("the path hides a dot segment behind an escaped separator or a semicolon")
	errHost       = bad("Host is no name or address")
	errNoHost     = bad("Host is missing")
	errTwoHosts   = bad("there is more than one Host")
	errOtherHost  = bad("Host is not the host of the URL that is asked for")
	errLength     = bad("Content-Length is not one number")
	errTwoLengths = bad("there is more than one Content-Length")
	errBoth       = bad("there are both a Content-Length and a Transfer-Encoding")
	errCodingIn10 = bad("HTTP/1.0 has no Transfer-Encoding")
	errTwoCodings = bad("there is more than one Transfer-Encoding")
	errConnection = bad("Connection names a field that the message cannot do without")
	errTrailer    = bad("Trailer names a field that says how long the body is")
	errChunk      = bad("a chunk of the body is not SIZE CR LF DATA CR LF")
	errChunkSize  = bad("the size of a chunk is too large")
	errStatusLine = bad("the first line is not HTTP/1.1 STATUS REASON")
	errUpgrade    = bad("there is more than one Upgrade")
	errExpect     = &Error{http.StatusExpectationFailed, "what Expect asks for is not known here"}
	errCoding     = &Error{http.StatusNotImplemented, "a Transfer-Encoding other than chunked is not known here"}
	errVersion    = &Error{http.StatusHTTPVersionNotSupported, "this is spoken here: HTTP/1.1, HTTP/1.0, and HTTP/2 by TLS"}
	errLongLine   = &Error{http.StatusRequestURITooLong, "the first line is too long"}
	errLongHead   = &Error{http.StatusRequestHeaderFieldsTooLarge, "the header fields are too long"}
	errManyFields = &Error{http.StatusRequestHeaderFieldsTooLarge, "there are too many header fields"}
)
