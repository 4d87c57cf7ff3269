package http1

// Known is a name of a field that a gateway treats apart.
type Known uint8

// The names. X-Original-* and X-Rewrite-* are what some applications take in the
// place of the path.
const (
	Other Known = iota
	Host
	Connection
	ContentLength
	TransferEncoding
	Upgrade
	Expect
	TE
	Trailer
	KeepAlive
	ProxyConnection
	ProxyAuthenticate
	ProxyAuthorization
	Proxy
	Forwarded
	XForwardedFor
	XForwardedHost
	XForwardedPort
	XForwardedProto
	XForwarded // all others of the name
	XOriginal
	XRealIP
	XRequestID
)

// known finds a name, by its length and then by its letters.
func known(name []byte) Known {
	switch len(name) {
	case 2:
		return which(name, "te", TE)
	case 4:
		return which(name, "host", Host)
	case 5:
		return which(name, "proxy", Proxy)
	case 6:
		return which(name, "expect", Expect)
	case 7:
		return which(name, "upgrade", Upgrade) | which(name, "trailer", Trailer)
	case 9:
		return which(name, "x-real-ip", XRealIP) | which(name, "forwarded", Forwarded)
	case 10:
		return which(name, "connection", Connection) | which(name, "keep-alive", KeepAlive)
	case 14:
		if k := which(name, "content-length", ContentLength); k != Other {
			return k
		}
	case 17:
		if k := which(name, "transfer-encoding", TransferEncoding); k != Other {
			return k
		}
	case 18:
		if k := which(name, "proxy-authenticate", ProxyAuthenticate); k != Other {
			return k
		}
	case 19:
		if k := which(name, "proxy-authorization", ProxyAuthorization); k != Other {
			return k
		}
	}
	switch lower(name[0]) {
	case 'x':
		return knownX(name)
	case 'p':
		return which(name, "proxy-connection", ProxyConnection)
	}
	return Other
}

// knownX finds names that begin with an X.
func knownX(name []byte) Known {
	const forwarded, original, rewrite = "x-forwarded-", "x-original-", "x-rewrite-"
	switch {
	case len(name) == 12 && isName(name, "x-request-id"):
		return XRequestID
	case len(name) > len(forwarded) && isName(name[:len(forwarded)], forwarded):
		rest := name[len(forwarded):]
		if k := which(rest, "for", XForwardedFor) | which(rest, "host", XForwardedHost) | which(rest, "port", XForwardedPort) | which(rest, "proto", XForwardedProto); k != Other {
			return k
		}
		return XForwarded
	case len(name) > len(original) && isName(name[:len(original)], original),
		len(name) > len(rewrite) && isName(name[:len(rewrite)], rewrite):
		return XOriginal
	}
	return Other
}

func which(name []byte, is string, k Known) Known {
	if lower(name[0]) == is[0] && isName(name, is) {
		return k
	}
	return Other
}

// hop tells whether a field is for one connection only (RFC 9110, section 7.6.1),
// or for a proxy that the client has chosen.
func (k Known) hop() bool {
	switch k {
	case Connection, TransferEncoding, Upgrade, TE, KeepAlive, ProxyConnection, ProxyAuthenticate, ProxyAuthorization, Proxy:
		return true
	}
	return false
}
