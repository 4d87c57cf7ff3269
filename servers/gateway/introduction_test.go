package gateway

import (
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// v2 is an introduction of version 2.
func v2(command, family byte, rest string) string {
	return signature2 + string([]byte{command, family, byte(len(rest) >> 8), byte(len(rest))}) + rest
}

// TestReadIntroduction: what is no introduction, to the letter, is refused, and not a
// byte is read beyond one.
func TestReadIntroduction(t *testing.T) {
	const wrong = "refused"
	tcp4 := "\xc0\x00\x02\x07\xc0\x00\x02\x08\x00\x50\x01\xbb"
	for text, want := range map[string]string{
		"PROXY TCP4 192.0.2.7 192.0.2.8 80 443\r\n":       "192.0.2.7",
		"PROXY TCP6 2001:db8::7 2001:db8::8 80 443\r\n":   "2001:db8::7",
		"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::8 1 2\r\n": "192.0.2.7",
		"PROXY UNKNOWN\r\n":                               "",
		"PROXY UNKNOWN what ever\r\n":                     "",
		v2(0x21, 0x11, tcp4):                              "192.0.2.7",
		v2(0x21, 0x11, tcp4+"\x04\x00\x01x"):              "192.0.2.7",
		v2(0x20, 0x00, ""):                                "",
		v2(0x21, 0x00, "abc"):                             "",
		v2(0x21, 0x21, "\x20\x01\x0d\xb8"+strings.Repeat("\x00", 11)+"\x07"+strings.Repeat("\x00", 20)): "2001:db8::7",

		"PROXY TCP4 192.0.2.7 192.0.2.8 80\r\n":              wrong,
		"PROXY TCP4 192.0.2.7 192.0.2.8 080 443\r\n":         wrong,
		"PROXY TCP4 192.0.2.7 192.0.2.8 80 65536\r\n":        wrong,
		"PROXY TCP4 2001:db8::7 192.0.2.8 80 443\r\n":        wrong,
		"PROXY TCP6 fe80::1%eth0 2001:db8::8 80 443\r\n":     wrong,
		"PROXY TCP4  192.0.2.7 192.0.2.8 80 443\r\n":         wrong,
		"PROXY UDP4 192.0.2.7 192.0.2.8 80 443\r\n":          wrong,
		"PROXY TCP4 192.0.2.7 192.0.2.8 80 443\n":            wrong,
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n":                  wrong,
		"PROXY UNKNOWN " + strings.Repeat("x", 200) + "\r\n": wrong,
		v2(0x11, 0x11, tcp4):                                 wrong, // version 1 of version 2
		v2(0x21, 0x12, tcp4):                                 wrong, // UDP
		v2(0x21, 0x11, tcp4[:11]):                            wrong,
		v2(0x21, 0x11, strings.Repeat("x", maxRest2+1)):      wrong,
		"PROXY TCP4 192.0.2.7":                               wrong,
	} {
		r := strings.NewReader(text + "rest")
		who, err := readIntroduction(r)
		switch {
		case want == wrong && err == nil:
			t.Errorf("%q is taken for one of %v", text, who)
		case want == wrong:
		case err != nil:
			t.Errorf("%q: %v", text, err)
		default:
			rest, _ := io.ReadAll(r)
			if got := who; want == "" && got.IsValid() || want != "" && got != netip.MustParseAddr(want) || string(rest) != "rest" {
				t.Errorf("%q is of %v, want %s; then comes %q", text, got, want, rest)
			}
		}
	}
}

// TestIntroduced: who is a load balancer says who its client is, or is not served;
// of all others what it says is no request.
func TestIntroduced(t *testing.T) {
	up := backend(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("X-Real-IP")+" "+r.Header.Get("X-Forwarded-For"))
	})
	table := one(&Route{}, up)
	table.Introduced = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	server, at := start(t, Settings{Header: 300 * time.Millisecond}, table)
	const intro = "PROXY TCP4 192.0.2.7 192.0.2.8 80 443\r\n"
	p := dial(t, at)
	p.send(intro + get + get)
	for range 2 {
		if response, body := p.answer("GET"); response.StatusCode != 200 || body != "192.0.2.7 192.0.2.7" {
			t.Errorf("%s %q", response.Status, body)
		}
	}
	for _, text := range []string{get, "PROXY TCP4 192.0.2"} { // the latter waits, and is given up
		p := dial(t, at)
		p.send(text)
		if b, err := p.ReadByte(); err == nil {
			t.Errorf("%q is answered with %q", text, b)
		}
	}
	if n := server.Counts().Nameless; n != 2 {
		t.Errorf("%d were not introduced", n)
	}
	server.Serve(one(&Route{}, up))
	p = dial(t, at)
	p.send(intro + get)
	if response, _ := p.answer("GET"); response.StatusCode != 400 {
		t.Errorf("of somebody else: %s", response.Status)
	}
}
