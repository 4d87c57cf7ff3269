package gateway

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"
)

// TestHeads: who has sent a part of a head has about as much memory as that, and all
// together no more than the bound; then others are refused, and whole requests are
// answered.
func TestHeads(t *testing.T) {
	server, at := start(t, Settings{Heads: 64 << 10}, one(&Route{Answer: &Answer{Status: 200}}))
	part := "GET / HTTP/1.1\r\nHost: a\r\n"
	for range 64 {
		dial(t, at).send(part)
	}
	for deadline := time.Now().Add(5 * time.Second); server.heads.Load() != 64<<10; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("64 clients hold %d bytes", server.heads.Load())
		}
	}
	p := dial(t, at)
	p.send(part)
	if response, body := p.answer("GET"); response.StatusCode != 503 || !strings.Contains(body, "parts of a head") {
		t.Errorf("%s %s", response.Status, body)
	}
	p = dial(t, at)
	p.send(get)
	if response, _ := p.answer("GET"); response.StatusCode != 200 {
		t.Errorf("of a whole request: %s", response.Status)
	}
}

// TestTickets: keys change, and those that are old are gone.
func TestTickets(t *testing.T) {
	k := tickets{config: &tls.Config{}}
	k.rotate()
	first := k.keys[0]
	for range ticketKeys - 1 {
		k.rotate()
	}
	if len(k.keys) != ticketKeys || k.keys[0] == first || k.keys[ticketKeys-1] != first {
		t.Error("the first key is not the last one that is taken")
	}
	if k.rotate(); len(k.keys) != ticketKeys || k.keys[ticketKeys-1] == first {
		t.Error("the first key is taken for ever")
	}
}

// TestSlowStart: a new endpoint beside an old one has few requests at first, and as
// many later.
func TestSlowStart(t *testing.T) {
	const slow, n = int64(time.Minute), 2000
	old, fresh := &endpoint{}, &endpoint{}
	fresh.born.Store(slow * 10)
	b := &Backend{}
	share := func(now int64) float64 {
		count := 0
		for range n {
			if b.choose([]*endpoint{old, fresh}, 0, nil, now, slow) == fresh {
				count++
			}
		}
		return float64(count) / n
	}
	if at, half, after := share(slow*10), share(slow*10+slow/2), share(slow*11); at > 0.1 || at == 0 || half < 0.18 || half > 0.32 || after != 0.5 {
		t.Errorf("it has %v, %v and then %v of all requests", at, half, after)
	}
}
