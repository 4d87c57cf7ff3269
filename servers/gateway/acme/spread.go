package acme

import (
	"context"
	"io"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// How long all gateways together have to learn of an answer, and the pause between two
// looks at one. Watches tell it within milliseconds; one that cannot be asked is not
// waited for any longer, since the authority may well come to another.
const (
	spreadTime  = 10 * time.Second
	spreadPause = 50 * time.Millisecond
)

// spread waits until all gateways answer what the authority will ask for.
func (o *Orders) spread(ctx context.Context, a *attempt) {
	ctx, cancel := context.WithTimeout(ctx, spreadTime)
	defer cancel()
	for {
		view, changed := o.Look()
		if view.State.Answer(a.host, a.token) != "" {
			break
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
	view, _ := o.Look()
	var asking sync.WaitGroup
	for _, at := range view.Gateways {
		asking.Go(func() {
			for !answers(ctx, at, a) {
				select {
				case <-ctx.Done():
					o.Log.Warn("a gateway cannot be asked whether it knows what an authority will ask for", "gateway", at, "host", a.host)
					return
				case <-time.After(spreadPause):
				}
			}
		})
	}
	asking.Wait()
}

// answers tells whether a gateway answers as the authority wants.
func answers(ctx context.Context, at netip.AddrPort, a *attempt) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at.String()+Path+a.token, http.NoBody)
	if err != nil {
		return false
	}
	request.Host = a.host
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 4096))
	return err == nil && string(body) == a.answer
}

// Path begins the paths by which authorities ask (RFC 8555, section 8.3).
const Path = "/.well-known/acme-challenge/"
