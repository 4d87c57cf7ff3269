package gateway

import "testing"

func TestNormalPath(t *testing.T) {
	for in, want := range map[string]string{
		"":                  "",
		"/":                 "/",
		"/a/b.html":         "/a/b.html",
		"/a%3Ab":            "/a:b",
		"/a%3ab":            "/a:b",
		"/caf%C3%A9":        "/café",
		"/a b":              "/a b",
		"/a//b///":          "/a/b/",
		"/a%2Fb":            "/a/b",
		"/a/%2F/b":          "/a/b",
		"/a/./b/../c":       "/a/c",
		"/a/..":             "/",
		"/a/.":              "/a/",
		"/a/%2e%2e/b":       "/b",
		"/100%":             "/100%",
		"/100%2":            "/100%2",
		"/100%zz":           "/100%zz",
		"/100%25":           "/100%",
		"/%252e%252e/a":     "/%2e%2e/a",
		"/..a/b..":          "/..a/b..",
		"a//b":              "a//b",
		"/api/v1/namespace": "/api/v1/namespace",
	} {
		if got, err := NormalPath(in); got != want || err != nil {
			t.Errorf("%q: %q, not %q, %v", in, got, want, err)
		}
	}
	for _, in := range []string{"/..", "/a/../..", "/%2e%2e/a", "/a/..%2f.."} {
		if got, err := NormalPath(in); err == nil {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func TestEscapePath(t *testing.T) {
	for in, want := range map[string]string{
		"/a/b-1.0~_x":   "/a/b-1.0~_x",
		"/a b":          "/a%20b",
		"/a?b#c%d":      "/a%3Fb%23c%25d",
		"/café\r\n\x00": "/caf%C3%A9%0D%0A%00",
		"/a:b@c;d=e,f":  "/a:b@c;d=e,f",
		`/a\b"<>`:       "/a%5Cb%22%3C%3E",
	} {
		if got := EscapePath(in); got != want {
			t.Errorf("%q: %q, not %q", in, got, want)
		}
	}
}
