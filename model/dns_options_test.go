package model

import "testing"

func TestParseUpstream(t *testing.T) {
	for text, want := range map[string]string{ // empty: refused
		"192.0.2.1":                         "192.0.2.1:53",
		"192.0.2.1:5353":                    "192.0.2.1:5353",
		"::ffff:192.0.2.1":                  "192.0.2.1:53",
		"2001:db8::1":                       "[2001:db8::1]:53",
		"[2001:db8::1]":                     "[2001:db8::1]:53",
		"[2001:db8::1]:5353":                "[2001:db8::1]:5353",
		"fe80::1%eth0":                      "[fe80::1%eth0]:53",
		"tls://192.0.2.1":                   "tls://192.0.2.1:853",
		"tls://192.0.2.1:8853#dns.example":  "tls://192.0.2.1:8853#dns.example",
		"tls://[2001:db8::1]#dns.example":   "tls://[2001:db8::1]:853#dns.example",
		"https://192.0.2.1":                 "https://192.0.2.1:443/dns-query",
		"https://192.0.2.1/x/y#dns.example": "https://192.0.2.1:443/x/y#dns.example",
		"https://[2001:db8::1]:8443/":       "https://[2001:db8::1]:8443/",
		"":                                  "",
		"dns.example":                       "",
		"dns.example:53":                    "",
		"192.0.2.1:0":                       "",
		"192.0.2.1:65536":                   "",
		"0.0.0.0":                           "",
		"224.0.0.251":                       "",
		"192.0.2.1/24":                      "",
		"192.0.2.1#dns.example":             "",
		"tls://192.0.2.1#":                  "",
		"tls://192.0.2.1#a b":               "",
		"tls://dns.example":                 "",
		"tls://192.0.2.1/path":              "",
		"https://192.0.2.1/x?y":             "",
		"quic://192.0.2.1":                  "",
		"://192.0.2.1":                      "",
		"[192.0.2.1":                        "",
	} {
		upstream, err := ParseUpstream(text)
		if err != nil {
			if want != "" {
				t.Errorf("%q: %v", text, err)
			}
			continue
		}
		if got := upstream.String(); got != want {
			t.Errorf("%q is %s, want %q", text, got, want)
		}
		if again, err := ParseUpstream(upstream.String()); err != nil || again != upstream {
			t.Errorf("%q, written as %s, is read as %+v: %v", text, upstream, again, err)
		}
	}
}
