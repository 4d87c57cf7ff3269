// Package http1 reads the heads and bodies of HTTP/1.1 messages, strictly, in
// bytes that its caller has read from a connection: RFC 9112, and nothing that two
// implementations could read in two ways. It does no I/O and keeps no copy: a head
// is a list of offsets into the caller's bytes, and reading the usual one costs no
// memory. A value is used by one goroutine at a time.
//
// # Lines and fields
//
// A line ends in CRLF. A CR or LF elsewhere is refused, and so are folded lines,
// whitespace before a colon, empty names, names that are no tokens, and control
// characters in values.
//
// # How long a body is
//
// One Content-Length of digits, or one Transfer-Encoding that is "chunked", in
// HTTP/1.1 only. Both, a list, a duplicate even of the same value, or any other
// coding is refused: what one reader ignores, another one believes, and the
// difference is a request smuggled (RFC 9112, section 6.3).
//
// # Which fields are passed on
//
// Those that Connection names are for this connection. They are struck out while
// the head is read, so that nobody decides by a field that is not passed on. Host
// and the fields that say how long a body is cannot be named.
//
// # The path
//
// Match, authorise and forward use the same bytes: Request.Path, which is made
// once, of the target's path, in this manner:
//
//   - Escapes of unreserved characters are resolved (%41, %2e, %7E). Others stay,
//     in upper case. One that is broken, or is of NUL, is refused.
//   - Then "." and ".." are resolved. A path that leaves the root is refused.
//   - Several slashes are one.
//   - %2F and %5C stay as they are, and Request.Encoded tells of them. A path in
//     which they, or a ";", hide a dot segment from this reader but not from every
//     other (/a%2f..%2fb, /a/..;/b) is refused.
//   - A backslash, a control character, a space and "#" are refused.
//   - Characters that no URI has (RFC 3986), and bytes that are not ASCII, are
//     escaped.
//
// That is what is passed on. Rules are compared with Request.Decoded, which is the
// same without any escape, as nginx compares them: /a%3Ab and /a:b, /admin%2Fx and
// /admin/x are one path to them, whatever a backend makes of the difference. It is a
// function of Path, and Path of itself is Path again: who reads what is passed on
// judges as it was judged here.
//
// The query is passed on as it came, if no byte of it is refused above.
//
// # The host
//
// Request.Host is in lower case, without a last dot and without the port. A Host
// that is no name or address, that is missing from HTTP/1.1 or there twice, or that
// is not the one of an absolute target, is refused.
package http1
