package gateway

import (
	"bufio"
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
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

// TestHeadsHTTP2: the bound is of those who speak HTTP/2, too; whoever sends all at
// once is served beyond it, by any version over TLS.
func TestHeadsHTTP2(t *testing.T) {
	server, at := start(t, Settings{Heads: 64 << 10}, securedBy(t, one(&Route{Answer: &Answer{Status: 200}})))
	part := func() *framer {
		f := dialHTTP2(t, at)
		_ = f.next(http2.FrameSettings)
		_, _ = f.conn.Write([]byte{0, 0, 100, 1, 5, 0, 0, 0, 1, 0x82, 0x87}) // of a HEADERS frame
		return f
	}
	var all []*framer
	for range 64 {
		all = append(all, part())
	}
	until(t, "64 clients hold all there is", func() bool { return server.heads.Load() == 64<<10 })
	if away, ok := part().next(http2.FrameGoAway).(*http2.GoAwayFrame); !ok || away.ErrCode != http2.ErrCodeEnhanceYourCalm {
		t.Errorf("one more has %v", away)
	}
	f := dialHTTP2(t, at)
	f.ask(1, true, getA...)
	if head, ok := f.next(http2.FrameHeaders).(*http2.MetaHeadersFrame); !ok || head.PseudoValue("status") != "200" {
		t.Errorf("a whole request by HTTP/2 has %v", head)
	}
	conn, err := tls.Dial("tcp", at, &tls.Config{ServerName: "a", InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p := &peer{conn, bufio.NewReader(conn), t}
	p.send(get)
	if response, _ := p.answer("GET"); response.StatusCode != 200 {
		t.Errorf("a whole request by HTTP/1.1 has %s", response.Status)
	}
	for _, f := range all {
		_ = f.conn.Close()
	}
	until(t, "nothing is held", func() bool { return server.heads.Load() == 0 })
}

// TestTicketKeys: keys change, and those that are old are gone.
func TestTicketKeys(t *testing.T) {
	k := tickets{configs: []*tls.Config{{}}}
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
