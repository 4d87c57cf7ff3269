package routing

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

const sticky = `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: cookie
  annotations:
    nginx.ingress.kubernetes.io/affinity: cookie
    nginx.ingress.kubernetes.io/session-cookie-name: stay
    nginx.ingress.kubernetes.io/session-cookie-max-age: "600"
    nginx.ingress.kubernetes.io/session-cookie-samesite: Lax
spec:
  ingressClassName: nginx
  rules:
  - host: cookie.example.org
    http: {paths: [{path: /app, pathType: Prefix, backend: {service: {name: many, port: {number: 80}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: canary
  annotations:
    nginx.ingress.kubernetes.io/canary: "true"
    nginx.ingress.kubernetes.io/canary-weight: "50"
    nginx.ingress.kubernetes.io/canary-by-header: X-New
spec:
  ingressClassName: nginx
  rules:
  - host: cookie.example.org
    http: {paths: [{path: /app, pathType: Prefix, backend: {service: {name: new, port: {number: 80}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: hash
  annotations: {nginx.ingress.kubernetes.io/upstream-hash-by: $arg_user}
spec:
  ingressClassName: nginx
  rules:
  - host: hash.example.org
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: many, port: {number: 80}}}}]}
`

// call returns which endpoint answers, and the cookie that it sets.
func (s *stage) call(url string, fields ...string) (at string, cookie *http.Cookie) {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, field := range fields {
		name, value, _ := strings.Cut(field, ": ")
		request.Header.Add(name, value)
	}
	response, err := s.send(request)
	if err != nil {
		s.t.Fatal(err)
	}
	_ = response.Body.Close()
	if err := s.asked.ended(); err != nil {
		s.t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: status %d", url, response.StatusCode)
	}
	for _, c := range response.Cookies() {
		cookie = c
	}
	return response.Header.Get("Seen-At"), cookie
}

// TestAffinity: a client stays at its endpoint, that of a canary too, and one whose
// endpoint is gone gets another.
func TestAffinity(t *testing.T) {
	s := start(t, []txtar.File{{Name: "sticky.yaml", Data: []byte(sticky)}})
	const url = "http://cookie.example.org/app/x"
	seen := map[string]bool{}
	for n := 0; n < 40 || len(seen) < 4 && n < 400; n++ { // they are chosen at random
		first, cookie := s.call(url)
		if cookie == nil || cookie.Name != "stay" || cookie.Path != "/app" || cookie.MaxAge != 600 || !cookie.HttpOnly || cookie.Secure || cookie.SameSite != http.SameSiteLaxMode {
			t.Fatalf("the cookie is %+v", cookie)
		}
		seen[first] = true
		for range 3 {
			if at, again := s.call(url, "Cookie: a=b; stay="+cookie.Value); at != first || again != nil {
				t.Fatalf("with its cookie a client comes to %s, and gets %v; first it came to %s", at, again, first)
			}
		}
	}
	if len(seen) != 4 {
		t.Errorf("clients without a cookie came to %d endpoints, want three and the canary's", len(seen))
	}
	if _, cookie := s.call(url, "Cookie: stay=1234"); cookie == nil {
		t.Error("a client whose endpoint is gone has no new one")
	}
	at, cookie := s.call(url, "X-New: never")
	if other, again := s.call(url, "X-New: always", "Cookie: stay="+cookie.Value); other == at || again == nil {
		t.Error("who asks for the canary does not get it, or no cookie of it")
	}
	if _, cookie := s.call("https://cookie.example.org/app"); cookie == nil || !cookie.Secure {
		t.Errorf("by TLS, the cookie is %v", cookie)
	}
}

// TestHashBy: the same goes to the same endpoint, and not all to one.
func TestHashBy(t *testing.T) {
	s := start(t, []txtar.File{{Name: "sticky.yaml", Data: []byte(sticky)}})
	seen := map[string]bool{}
	for user := range 30 {
		url := fmt.Sprintf("http://hash.example.org/?user=%d", user)
		first, cookie := s.call(url)
		if at, _ := s.call(url + "&more"); at != first || cookie != nil {
			t.Fatalf("user %d comes to %s and to %s", user, first, at)
		}
		seen[first] = true
	}
	if len(seen) != 3 {
		t.Errorf("30 users come to %d endpoints", len(seen))
	}
}

// TestNearest: when an endpoint goes, all but those who were there stay.
func TestNearest(t *testing.T) {
	var at []netip.AddrPort
	for n := range 10 {
		at = append(at, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), 80))
	}
	all, fewer := newBackend(at), newBackend(at[1:])
	moved, counts := 0, map[int]int{}
	for key := range 10000 {
		of := hash(fmt.Append(nil, key))
		was, is := all.nearest(of), fewer.nearest(of)
		counts[was]++
		if was != 1 && is != was-1 {
			moved++
		}
	}
	if moved > 0 {
		t.Errorf("%d of 10000 moved though theirs is there", moved)
	}
	for place, count := range counts {
		if count < 800 || count > 1200 {
			t.Errorf("endpoint %d has %d of 10000", place, count)
		}
	}
}

// TestNearestGrows: while endpoints come one by one, as early in the start of a gateway
// or of what it leads to, a client moves to none but the one that has just come; and in
// which order they are known does not matter, so that all gateways choose the same.
func TestNearestGrows(t *testing.T) {
	var at []netip.AddrPort
	for n := range 20 {
		at = append(at, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), 80))
	}
	random := rand.New(rand.NewPCG(1, 2))
	was := map[int]netip.AddrPort{}
	for n := 1; n <= len(at); n++ {
		known := slices.Clone(at[:n])
		random.Shuffle(n, func(i, j int) { known[i], known[j] = known[j], known[i] })
		b := newBackend(known)
		moved := 0
		for key := range 2000 {
			is := known[b.nearest(hash(fmt.Append(nil, key)))-1]
			if before, had := was[key]; had && is != before {
				if moved++; is != at[n-1] {
					t.Fatalf("with endpoint %d, client %d moves from %s to %s", n, key, before, is)
				}
			}
			was[key] = is
		}
		if most := 3 * 2000 / n; n > 1 && moved > most {
			t.Errorf("with endpoint %d, %d of 2000 move", n, moved)
		}
	}
}
