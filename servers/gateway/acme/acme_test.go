package acme

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/certificate"
)

const host = "shop.example.org"

// pairOf is a certificate of a name, by an authority.
func pairOf(t *testing.T, name, server string) *model.Secret {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(1e9, 0), NotAfter: time.Unix(2e9, 0), DNSNames: []string{name}}
	made, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &model.Secret{SecretKey: model.CertificateOf(host), Content: map[string][]byte{
		hostKey: []byte(host), serverKey: []byte(server),
		certificateKey: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made}),
		privateKey:     pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}),
	}}
}

// TestRead: what Secrets say, as they come and go; what is none of ours says nothing.
func TestRead(t *testing.T) {
	var secrets model.Map[model.SecretKey, *model.Secret]
	var state *State
	put := func(secret *model.Secret) {
		secrets = secrets.With(secret.SecretKey, secret)
		state = Read(state, secrets)
	}
	tried := &attempt{host: host, url: "u", token: "t", answer: "t.a", Attempt: certificate.Attempt{
		Server: "s", Failures: 2, After: time.Unix(1e9, 0).UTC(), Kind: "dns", Error: "no name",
	}}
	put(tried.secret())
	if state.Answer(host, "t") != "t.a" || state.Answer("other.example.org", "t") != "" || state.Attempts[host] != tried.Attempt {
		t.Errorf("got %+v", state)
	}
	next := *tried
	next.token, next.answer = "n", "n.a"
	put(next.secret())
	if state.Answer(host, "t") != "" || state.Answer(host, "n") != "n.a" {
		t.Errorf("got %+v", state)
	}
	before := state
	secrets = secrets.Without(model.AttemptOf(host))
	if state = Read(state, secrets); len(state.Attempts) > 0 || state.Asked() || !before.Asked() {
		t.Errorf("got %+v", state)
	}
	put(pairOf(t, host, "s"))
	if got := state.Held[host]; got.Server != "s" || !got.Until.Equal(time.Unix(2e9, 0)) {
		t.Errorf("got %+v", got)
	}
	before = state
	put(&model.Secret{SecretKey: model.SecretKey{Namespace: "shop", Name: "order.x"}, Content: tried.secret().Content})
	if len(state.Attempts) > 0 || fmt.Sprintf("%p", state.Held) != fmt.Sprintf("%p", before.Held) {
		t.Error("a Secret of another namespace was read, or maps were made anew for it")
	}
	for name, secret := range map[string]*model.Secret{
		"another's":       pairOf(t, "other.example.org", "s"),
		"no pair":         {SecretKey: model.CertificateOf(host), Content: map[string][]byte{hostKey: []byte(host), certificateKey: []byte("x")}},
		"of another host": {SecretKey: model.CertificateOf(host), Content: map[string][]byte{hostKey: []byte("other.example.org")}},
	} {
		put(pairOf(t, host, "s"))
		if put(secret); len(state.Held) > 0 {
			t.Errorf("%s: got %+v", name, state.Held)
		}
	}
}

// TestFailureOf: the words of the authority, and for how long it wants to be left alone.
func TestFailureOf(t *testing.T) {
	now := time.Unix(1e9, 0)
	said := func(kind, detail, after string) *acme.Error {
		return &acme.Error{StatusCode: 400, ProblemType: "urn:ietf:params:acme:error:" + kind, Detail: detail, Header: http.Header{"Retry-After": {after}}}
	}
	for name, test := range map[string]struct {
		err  error
		want failure
	}{
		"an authorization": {&acme.AuthorizationError{URI: "https://differs", Errors: []error{said("dns", "no such name", "")}}, failure{kind: "dns", text: "no such name (dns)"}},
		"an order":         {&acme.OrderError{OrderURL: "https://differs", Problem: said("caa", "CAA\n forbids", "")}, failure{kind: "caa", text: "CAA forbids (caa)"}},
		"no reason":        {&acme.OrderError{OrderURL: "https://differs", Status: "invalid"}, failure{text: "the order is invalid, and the authority does not say why"}},
		"a limit":          {said("rateLimited", "too many", "7200"), failure{kind: "rateLimited", text: "too many (rateLimited)", pause: 2 * time.Hour}},
		"a limit until":    {said("rateLimited", "too many", now.Add(time.Minute).UTC().Format(http.TimeFormat)), failure{kind: "rateLimited", text: "too many (rateLimited)", pause: time.Minute}},
		"a limit without":  {said("rateLimited", "too many", ""), failure{kind: "rateLimited", text: "too many (rateLimited)", pause: time.Hour}},
		"for ever":         {said("serverInternal", "later", "999999999"), failure{kind: "serverInternal", text: "later (serverInternal)", pause: mostPause}},
		"in the past":      {said("serverInternal", "later", "-5"), failure{kind: "serverInternal", text: "later (serverInternal)"}},
		"no authority":     {&accountError{fmt.Errorf("make an account: %w", errors.New("refused"))}, failure{kind: certificate.OfServer, text: "make an account: refused", ofAll: true, unheard: true}},
		"no way":           {&url.Error{Op: "Post", URL: "https://differs", Err: context.DeadlineExceeded}, failure{kind: certificate.OfServer, text: "the authority cannot be asked: context deadline exceeded", ofAll: true, unheard: true}},
		"a fault":          {&acme.Error{StatusCode: 503, Detail: "down"}, failure{kind: certificate.OfServer, text: "down", ofAll: true}},
		"a fault by name":  {&acme.Error{StatusCode: 500, ProblemType: "urn:ietf:params:acme:error:serverInternal", Detail: "oops"}, failure{kind: "serverInternal", text: "oops (serverInternal)", ofAll: true}},
		"a fault of one":   {&acme.AuthorizationError{Errors: []error{&acme.Error{StatusCode: 500, ProblemType: "urn:ietf:params:acme:error:serverInternal", Detail: "oops"}}}, failure{kind: "serverInternal", text: "oops (serverInternal)"}},
		"too late":         {context.DeadlineExceeded, failure{text: "the authority did not get done in time", late: true}},
	} {
		if got := failureOf(test.err, now); got != test.want {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
	if got := failureOf(errors.New(strings.Repeat("long ", 1000)), now); len(got.text) > mostText+len("…") {
		t.Errorf("a text has %d bytes", len(got.text))
	}
}

// errName says that no Secret can have a name.
var errName = errors.New("invalid name")

// shelf is a Store.
type shelf struct {
	mu      sync.Mutex
	secrets map[model.SecretKey]*model.Secret
}

func (s *shelf) ReadSecret(_ context.Context, key model.SecretKey) (*model.Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.secrets[key], nil
}

func (s *shelf) WriteSecret(_ context.Context, secret *model.Secret) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if strings.Contains(secret.Name, "_") {
		return errName
	}
	s.secrets[secret.SecretKey] = secret
	return nil
}

func (s *shelf) DeleteSecret(_ context.Context, key model.SecretKey) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.secrets, key)
	return nil
}

// replies are what an authority says to one who makes an account, or an order.
type replies map[string]http.HandlerFunc

// refuse answers with a problem.
func refuse(status int, kind, after string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		if after != "" {
			w.Header().Set("Retry-After", after)
		}
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `{"type": "urn:ietf:params:acme:error:%s", "detail": "no"}`, kind)
	}
}

// bench is Orders with an authority that makes accounts, and says what a test has it.
type bench struct {
	*Orders
	store   *shelf
	view    View
	mu      sync.Mutex
	results [Limited + 1]int
}

func newBench(t *testing.T, says replies) *bench {
	t.Helper()
	mux := http.NewServeMux()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Replay-Nonce", "n")
		mux.ServeHTTP(w, r)
	}))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // clients leave in the midst of handshakes
	server.StartTLS()
	t.Cleanup(server.Close)
	mux.HandleFunc("/dir", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"newNonce": "%[1]s/nonce", "newAccount": "%[1]s/account", "newOrder": "%[1]s/order"}`, server.URL)
	})
	mux.HandleFunc("/nonce", func(http.ResponseWriter, *http.Request) {})
	if says["/account"] == nil {
		mux.HandleFunc("/account", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", server.URL+"/account/1")
			w.WriteHeader(http.StatusCreated)
			_, _ = fmt.Fprint(w, `{"status": "valid"}`)
		})
	}
	for path, answer := range says {
		mux.HandleFunc(path, answer)
	}
	b := &bench{store: &shelf{secrets: map[model.SecretKey]*model.Secret{}}}
	b.view = View{Options: model.ACMEOptions{
		Server: server.URL + "/dir", CABundle: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})),
	}, State: Read(nil, model.Map[model.SecretKey, *model.Secret]{})}
	b.Orders = &Orders{
		Store: b.store, Log: slog.New(slog.DiscardHandler), OfOne: func(err error) bool { return errors.Is(err, errName) },
		Look: func() (View, <-chan struct{}) { return b.view, nil },
		Done: func(r Result) { b.mu.Lock(); b.results[r]++; b.mu.Unlock() },
	}
	return b
}

// order has it order for hosts, and returns how many were tried.
func (b *bench) order(t *testing.T, hosts ...string) (tried int, more bool) {
	t.Helper()
	before := b.results
	more, err := b.orderAll(t.Context(), &b.view, hosts)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b.results {
		tried += b.results[i] - before[i]
	}
	return tried, more
}

func (b *bench) kept(host string) *attempt {
	if secret := b.store.secrets[model.AttemptOf(host)]; secret != nil {
		return readAttempt(secret)
	}
	return nil
}

func hosts(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("h%d.example.org", i))
	}
	return all
}

// TestLimited: an authority that wants to be left alone by a host is soon asked for
// those of other domains; if it limits those, too, by nobody until it may be.
func TestLimited(t *testing.T) {
	b := newBench(t, replies{"/order": refuse(http.StatusTooManyRequests, "rateLimited", "1800")})
	began := time.Now()
	tried, _ := b.order(t, hosts(20)...)
	if tried > mostAtOnce+1 || tried == 0 || b.results[Limited] != tried {
		t.Errorf("%d were tried, and the results are %v", tried, b.results)
	}
	if b.rested(&b.view, began.Add(leastRest-time.Second)) || !b.rested(&b.view, time.Now().Add(leastRest)) {
		t.Errorf("it rests until %v", b.resting())
	}
	a := b.kept(hosts(1)[0])
	if a == nil || a.Failures != 1 || a.Kind != "rateLimited" || a.Error != "no (rateLimited)" || a.After.Before(began.Add(29*time.Minute)) {
		t.Errorf("kept is %+v", a)
	}
	b.rest.until = time.Time{}
	b.order(t, "shop.example.com")
	if b.rested(&b.view, began.Add(14*time.Minute)) || !b.rested(&b.view, time.Now().Add(mostRest)) {
		t.Errorf("after another domain it rests until %v", b.resting())
	}
	other := b.view
	other.Options.Server = "https://other.example/dir"
	if !b.rested(&other, began) {
		t.Error("another authority rests, too")
	}
}

// TestNoAccount: that there is no account is no failure of any host; it is said of all,
// and tried ever more rarely until it is mended.
func TestNoAccount(t *testing.T) {
	well := false
	b := newBench(t, replies{
		"/account": func(w http.ResponseWriter, r *http.Request) {
			if !well {
				refuse(http.StatusBadRequest, "invalidContact", "")(w, r)
				return
			}
			w.Header().Set("Location", "https://"+r.Host+"/account/1")
			w.WriteHeader(http.StatusCreated)
			_, _ = fmt.Fprint(w, `{"status": "valid"}`)
		},
		"/order": refuse(http.StatusForbidden, "rejectedIdentifier", ""),
	})
	last := time.Duration(0)
	for range 10 {
		began := time.Now()
		if tried, _ := b.order(t, hosts(20)...); tried > mostAtOnce+1 || tried == 0 {
			t.Fatalf("%d were tried", tried)
		}
		for _, host := range hosts(20) {
			if b.kept(host) != nil {
				t.Fatalf("kept is %+v", b.kept(host))
			}
		}
		rests := b.resting().Sub(began).Round(time.Second)
		if rests < last || rests < leastRest || rests > mostRest {
			t.Errorf("it rests for %v after %v", rests, last)
		}
		last, b.rest.until = rests, time.Time{}
	}
	if last != mostRest {
		t.Errorf("at last it rests for %v", last)
	}
	if trouble, remedy := b.troubled(); trouble != "no (invalidContact)" || !strings.Contains(remedy, "spec.ingress.acme.email") {
		t.Errorf("the trouble is %q, and to do is %q", trouble, remedy)
	}
	well = true
	b.order(t, hosts(1)...)
	if trouble, _ := b.troubled(); trouble != "" || b.kept(hosts(1)[0]) == nil || !b.resting().IsZero() {
		t.Errorf("it rests until %v for %q", b.resting(), trouble)
	}
}

// TestFault: an authority that has a fault is left alone for a while, by all hosts.
func TestFault(t *testing.T) {
	b := newBench(t, replies{"/order": refuse(http.StatusBadGateway, "", "0")})
	began := time.Now()
	if tried, _ := b.order(t, hosts(20)...); tried > mostAtOnce+1 || b.results[Failed] != tried {
		t.Errorf("%d were tried, and the results are %v", tried, b.results)
	}
	if b.rested(&b.view, began.Add(leastRest-time.Second)) || b.kept(hosts(1)[0]) == nil {
		t.Errorf("it rests until %v, and kept is %v", b.resting(), b.kept(hosts(1)[0]))
	}
}

// TestUnkept: a host that no Secret can be named by keeps others from nothing, and is
// tried again as rarely as if there were one.
func TestUnkept(t *testing.T) {
	b := newBench(t, replies{"/order": refuse(http.StatusForbidden, "rejectedIdentifier", "")})
	for failures := 1; failures < 3; failures++ {
		b.order(t, append([]string{"a_b.example.org"}, hosts(8)...)...)
		for _, host := range hosts(8) {
			if b.kept(host) == nil {
				t.Errorf("%s was not tried", host)
			}
		}
		known := b.known(&b.view.State.State).Attempts["a_b.example.org"]
		if known.Failures != failures || !known.After.After(time.Now()) || known.Server != b.view.Options.Server {
			t.Errorf("known is %+v", known)
		}
	}
	if err := b.clear(t.Context(), &certificate.Plan{Vain: []string{"a_b.example.org"}}); err != nil || len(b.unkept) > 0 {
		t.Errorf("nobody wants it, and known is %v; %v", b.unkept, err)
	}
}

// TestPass: after some hosts it is looked at anew what is due, and at once if the
// authority is to be another one; those that are not due any more do not count.
func TestPass(t *testing.T) {
	b := newBench(t, replies{"/order": refuse(http.StatusForbidden, "rejectedIdentifier", "")})
	all := 0
	for more := true; more; {
		var tried int
		if tried, more = b.order(t, hosts(50)...); tried > mostOfPass+mostAtOnce || more && tried < mostOfPass {
			t.Fatalf("%d were tried, and there are more: %v", tried, more)
		}
		all += tried
	}
	if all != 50 {
		t.Errorf("%d were tried", all)
	}
	now := b.view
	now.Options.Email = "other@example.org"
	b.Look = func() (View, <-chan struct{}) { return now, nil }
	if tried, more := b.order(t, "new.example.org"); tried != 0 || !more {
		t.Errorf("%d were tried at the authority of before, and there are more: %v", tried, more)
	}
}

// TestLate: an order that is not done in time is gone on with.
func TestLate(t *testing.T) {
	b := newBench(t, nil)
	a := &attempt{host: host, url: "https://ca.example/order/1", token: "t", answer: "t.a", key: []byte("k")}
	if err := b.fail(t.Context(), &b.view, a, fmt.Errorf("wait: %w", context.DeadlineExceeded)); err != nil {
		t.Fatal(err)
	}
	if got := b.kept(host); got.url != a.url || string(got.key) != "k" || got.answer != "t.a" || got.Failures != 1 || !got.After.After(time.Now()) {
		t.Errorf("kept is %+v", got)
	}
	if err := b.fail(t.Context(), &b.view, a, errors.New("no")); err != nil {
		t.Fatal(err)
	}
	if got := b.kept(host); got.url != "" || got.key != nil {
		t.Errorf("kept is %+v", got)
	}
}

// TestEndsSoon: a certificate that is due again as it comes is a failure.
func TestEndsSoon(t *testing.T) {
	clock := (*clockError)(nil)
	err := endsSoon(&attempt{host: host, Attempt: certificate.Attempt{Server: "s"}}, pairOf(t, host, "s").Content)
	if !errors.As(err, &clock) || failureOf(err, time.Now()).kind != certificate.OfClock {
		t.Errorf("of one of which most is over: %v", err)
	}
}

// TestRun: all that are due are tried, a pass after the other, and what is wrong with
// the account is said for as long as it is.
func TestRun(t *testing.T) {
	var mu sync.Mutex
	well, said := false, ""
	b := newBench(t, replies{
		"/account": func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			if !well {
				refuse(http.StatusUnauthorized, "externalAccountRequired", "")(w, r)
				return
			}
			w.Header().Set("Location", "https://"+r.Host+"/account/1")
			w.WriteHeader(http.StatusCreated)
			_, _ = fmt.Fprint(w, `{"status": "valid"}`)
		},
		"/order": refuse(http.StatusForbidden, "rejectedIdentifier", ""),
	})
	for _, host := range hosts(2 * mostOfPass) {
		b.view.Wanted = append(b.view.Wanted, certificate.Wanted{Host: host})
	}
	changed, first := make(chan struct{}), b.view
	b.Look = func() (View, <-chan struct{}) { mu.Lock(); defer mu.Unlock(); return first, changed }
	b.Trouble = func(trouble, _ string) { mu.Lock(); said = trouble; mu.Unlock() }
	is := func(what string, is func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			mu.Lock()
			done := is()
			mu.Unlock()
			if done {
				return
			}
		}
		t.Fatalf("not seen: %s", what)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = b.Run(ctx) }) // it returns nil
	defer func() { cancel(); running.Wait() }()
	is("the trouble", func() bool { return said == "no (externalAccountRequired)" })
	mu.Lock()
	well, first.Options.Email = true, "other@example.org"
	close(changed)
	changed = make(chan struct{})
	mu.Unlock()
	is("no trouble", func() bool { return said == "" })
	is("all tried", func() bool {
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		tried := 0
		for key := range b.store.secrets {
			if strings.HasPrefix(key.Name, model.AttemptPrefix) {
				tried++
			}
		}
		return tried == 2*mostOfPass
	})
}
