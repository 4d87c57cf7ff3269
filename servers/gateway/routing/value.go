package routing

import (
	"bytes"
	"net/url"
	"strconv"
	"strings"

	"github.com/fairlead-net/fairlead/servers/gateway"
)

func scheme(r *gateway.Request) string {
	if r.Secure {
		return "https"
	}
	return "http"
}

func appendQuery(into []byte, r *gateway.Request) []byte {
	if r.Asked {
		into = append(append(into, '?'), r.Query...)
	}
	return into
}

// appendHost appends the host, with the port that the client wrote.
func appendHost(into []byte, r *gateway.Request) []byte {
	into = append(into, r.Host...)
	if port := r.Request.Port; len(port) > 0 {
		into = append(append(into, ':'), port...)
	}
	return into
}

// appendOrigin appends scheme and host.
func appendOrigin(into []byte, r *gateway.Request) []byte {
	return appendHost(append(append(into, scheme(r)...), "://"...), r)
}

// appendTarget appends path and query.
func appendTarget(into []byte, r *gateway.Request) []byte {
	return appendQuery(append(into, r.Path...), r)
}

// value appends variables of templates, as nginx has them.
func (of *route) value(r *gateway.Request) func(variable string, into []byte) []byte {
	return func(variable string, into []byte) []byte {
		switch variable {
		case "namespace":
			return append(into, of.From.Namespace...)
		case "ingress_name":
			return append(into, of.From.Name...)
		case "service_name":
			return append(into, of.Backend.Service.Name...)
		}
		if name, ok := strings.CutPrefix(variable, "http_"); ok && name != "host" {
			v, _ := r.Get(strings.ReplaceAll(name, "_", "-"))
			return append(into, v...)
		}
		if name, ok := strings.CutPrefix(variable, "cookie_"); ok {
			return append(into, cookie(r, name)...)
		}
		if name, ok := strings.CutPrefix(variable, "arg_"); ok {
			return append(into, argument(r.Query, name)...)
		}
		switch variable {
		case "host", "server_name":
			return append(into, r.Host...)
		case "best_http_host", "http_host":
			return appendHost(into, r)
		case "uri":
			return append(into, r.Path...)
		case "request_uri":
			return appendTarget(into, r)
		case "escaped_request_uri":
			return append(into, url.QueryEscape(string(appendTarget(nil, r)))...)
		case "args", "query_string":
			return append(into, r.Query...)
		case "is_args":
			if r.Asked {
				return append(into, '?')
			}
		case "scheme":
			return append(into, scheme(r)...)
		case "https":
			if r.Secure {
				return append(into, "on"...)
			}
		case "request_method":
			return append(into, r.Method...)
		case "remote_addr":
			return append(into, r.Client.String()...)
		case "server_port":
			return strconv.AppendUint(into, uint64(r.Port), 10)
		}
		return into
	}
}

// cookie is the value of the first of a name (RFC 6265, section 5.4).
func cookie(r *gateway.Request, name string) []byte {
	all, _ := r.Get("cookie")
	for one := range bytes.SplitSeq(all, []byte(";")) {
		key, v, ok := bytes.Cut(bytes.TrimLeft(one, " "), []byte("="))
		if ok && string(key) == name {
			return v
		}
	}
	return nil
}

// argument is that of a query, as it was written.
func argument(query []byte, name string) []byte {
	for one := range bytes.SplitSeq(query, []byte("&")) {
		if key, v, _ := bytes.Cut(one, []byte("=")); string(key) == name {
			return v
		}
	}
	return nil
}
