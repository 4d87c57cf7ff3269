package forward

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// doh asks by HTTPS (RFC 8484), HTTP/2 if the server knows it. Its connections
// go to the address that it was given: no name is looked up.
type doh struct {
	url    string
	client http.Client

	hits, misses atomic.Uint64
}

const messageType = "application/dns-message"

func newDoH(to model.Upstream, dial func(context.Context) (net.Conn, error), config *tls.Config) *doh {
	host := to.ServerName
	if host == "" {
		host = to.At.Addr().WithZone("").String()
	}
	path := to.Path
	if path == "" {
		path = "/dns-query"
	}
	http2 := &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 2 * time.Second}
	return &doh{
		url: "https://" + net.JoinHostPort(host, fmt.Sprint(to.At.Port())) + path,
		client: http.Client{
			// What is asked goes to this upstream, and nowhere else.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
				TLSClientConfig: config, ForceAttemptHTTP2: true, HTTP2: http2, DisableCompression: true,
				MaxConnsPerHost: maxPipes * fullPipe, MaxIdleConnsPerHost: maxPipes, IdleConnTimeout: idle,
			},
		},
	}
}

func (d *doh) exchange(ctx context.Context, a *ask) ([]byte, error) {
	// The identifier is 0 (RFC 8484, section 4.1): TLS says who answers what.
	message := a.pack(0, form{pad: true})
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(conn httptrace.GotConnInfo) {
		if conn.Reused {
			d.hits.Add(1)
		} else {
			d.misses.Add(1)
		}
	}})
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url, bytes.NewReader(message))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", messageType)
	request.Header.Set("Accept", messageType)
	request.Header.Set("User-Agent", "") // none: it is nobody's business
	response, err := d.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the server answers %s", response.Status)
	}
	if got := response.Header.Get("Content-Type"); got != messageType {
		return nil, fmt.Errorf("the server answers with %.40q instead of %s", got, messageType)
	}
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxMessage+1))
	if err != nil {
		return nil, err
	}
	if len(answer) > maxMessage {
		return nil, errNotWhole
	}
	if err := verify(message, answer); err != nil {
		return nil, err
	}
	return answer, nil
}

func (d *doh) reused() (hits, misses uint64) { return d.hits.Load(), d.misses.Load() }

func (d *doh) close() { d.client.CloseIdleConnections() }
