package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// site is a cluster with two gateways, of which one leads, and an authority that comes
// to them by turns.
type site struct {
	*authority
	*vault
	t     *testing.T
	posts [2]*post
	https [2]netip.AddrPort
	feeds [2]*model.Feed
	log   [2]*lockedBuffer
}

func newSite(t *testing.T, a *authority, edit func(*model.Snapshot)) *site {
	t.Helper()
	s := &site{authority: a, vault: newVault(), t: t}
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "backend") }))
	t.Cleanup(backend.Close)
	for range gatewayAddresses { // all of them before one may write
		s.clusters = append(s.clusters, &cluster{feed: make(chan *model.Feed, 1), synced: make(chan struct{}), changed: make(chan struct{})})
	}
	for i, addr := range gatewayAddresses {
		c := s.clusters[i]
		s.posts[i], s.log[i] = &post{vault: s.vault, uid: "u"}, &lockedBuffer{}
		s.https[i] = netip.AddrPortFrom(addr, freePort(t).Port())
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- Run(ctx, Config{
				Source: c, Register: s.posts[i], HTTP: []netip.AddrPort{netip.AddrPortFrom(addr, a.port)}, HTTPS: []netip.AddrPort{s.https[i]},
				Log: slog.New(slog.NewTextHandler(s.log[i], nil)),
			})
		}()
		t.Cleanup(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if t.Failed() {
				t.Log(s.log[i].String())
			}
		})
		s.feeds[i] = <-c.feed
		s.feeds[i].Edit(func(snapshot *model.Snapshot) {
			addShop(snapshot, netip.MustParseAddrPort(backend.Listener.Addr().String()))
			slice := &model.EndpointSlice{SliceKey: model.SliceKey(ownService), Service: ownService.Name, Ports: []model.EndpointPort{{Name: "http", Protocol: model.TCP, Port: a.port}}}
			for _, addr := range gatewayAddresses {
				slice.Endpoints = append(slice.Endpoints, model.Endpoint{Address: addr, Ready: true, Serving: true})
			}
			snapshot.Slices = snapshot.Slices.With(slice.SliceKey, slice)
			snapshot.Network.Ingress.ACME = a.options
			edit(snapshot)
		})
		close(c.synced)
	}
	return s
}

// asking has an Ingress of the shop ask for certificates.
func asking(s *model.Snapshot) {
	ingress, _ := s.Ingresses.Get(model.IngressKey{Namespace: "shop", Name: "web"})
	next := *ingress
	next.TLS, next.Annotations = nil, []model.Annotation{{Key: "fairlead.io/acme", Value: "true"}}
	s.Ingresses = s.Ingresses.With(next.IngressKey, &next)
}

// trusts asks for a host at one of the gateways, with a certificate that the authority
// has signed.
func (s *site) trusts(host string, i int) string {
	leaf, err := s.leaf(host, i)
	if err != nil {
		return err.Error()
	}
	return leaf.DNSNames[0]
}

func (s *site) leaf(host string, i int) (*x509.Certificate, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", s.https[i].String(), &tls.Config{ServerName: host, RootCAs: s.roots})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0], nil
}

// within is eventually, of what takes an authority longer.
func within(t *testing.T, most time.Duration, want string, is func() string) {
	t.Helper()
	got := ""
	for deadline := time.Now().Add(most); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if got = is(); got == want {
			return
		}
	}
	t.Fatalf("%s, want %s", got, want)
}

const shop = "shop.example.org"

// TestACME: a host that asks for a certificate gets one, which all gateways serve.
func TestACME(t *testing.T) {
	s := newSite(t, newAuthority(t, authorityOptions{}), asking)
	s.resolver.set(shop, gatewayAddresses...)
	for i := range s.https {
		within(t, 30*time.Second, shop, func() string { return s.trusts(shop, i) })
	}
	if s.has(model.AttemptOf(shop)) {
		t.Error("the attempt is still there")
	}
}

// TestACMESpreads: the authority comes when all gateways know what it will ask for.
func TestACMESpreads(t *testing.T) {
	a := newAuthority(t, authorityOptions{})
	a.resolver.set(shop, gatewayAddresses[1])
	s := newSite(t, a, func(s *model.Snapshot) { s.Network.Ingress.ACME = model.ACMEOptions{} })
	s.vault.mu.Lock()
	s.vault.late = 2 * time.Second
	s.vault.mu.Unlock()
	s.tell(func(snapshot *model.Snapshot) {
		network := *snapshot.Network
		network.Ingress.ACME = a.options
		snapshot.Network = &network
		asking(snapshot)
	})
	within(t, 30*time.Second, shop, func() string { return s.trusts(shop, 1) })
	if times := s.wroteTimes(model.CertificateOf(shop).Name); times != 1 {
		t.Errorf("the certificate was kept %d times", times)
	}
}

// tell has all gateways see something else.
func (s *site) tell(edit func(*model.Snapshot)) {
	for _, feed := range s.feeds {
		feed.Edit(edit)
	}
}

// alsoOther has another Ingress ask, for hosts of its own.
func alsoOther(hosts ...string) func(*model.Snapshot) {
	return func(s *model.Snapshot) {
		asking(s)
		ingress, _ := s.Ingresses.Get(model.IngressKey{Namespace: "shop", Name: "web"})
		other := *ingress
		other.Name, other.Rules = "other", nil
		for _, host := range hosts {
			other.Rules = append(other.Rules, model.IngressRule{Host: host, Paths: ingress.Rules[0].Paths})
		}
		s.Ingresses = s.Ingresses.With(other.IngressKey, &other)
	}
}

// TestACMEFails: what the authority says is told, in its words, with what to do, and
// once; the host is served as before, others have their certificates, and it is tried
// again when somebody says so.
func TestACMEFails(t *testing.T) {
	const other, blocked = "other.example.org", "blocked.example.org"
	s := newSite(t, newAuthority(t, authorityOptions{blocked: []string{blocked}}), alsoOther(other, blocked))
	s.resolver.set(other, gatewayAddresses...)
	for i := range s.https {
		within(t, 30*time.Second, other, func() string { return s.trusts(other, i) })
	}
	leader := s.leader()
	leader.says(t, "Ingress/shop/web", "CertificateNotOrdered", "no certificate could be ordered for shop.example.org by localhost", "could not resolve", "(connection)", "addresses of the gateways")
	leader.says(t, "Ingress/shop/other", "CertificateNotOrdered", blocked, "(rejectedIdentifier)", "use a name that the authority gives certificates for")
	if got := ask(s.https[0]); got != "200 backend fairlead.invalid" {
		t.Errorf("the host answers %s", got)
	}
	s.resolver.set(shop, gatewayAddresses...)
	if err := s.DeleteSecret(t.Context(), model.AttemptOf(shop)); err != nil {
		t.Fatal(err)
	}
	within(t, 30*time.Second, shop, func() string { return s.trusts(shop, 1) })
	if times := s.wroteTimes(model.AttemptOf(blocked).Name); times != 1 {
		t.Errorf("a host that the authority refuses was tried %d times", times)
	}
	// Nobody wants it any more.
	s.tell(alsoOther(other))
	within(t, 10*time.Second, "false", func() string { return fmt.Sprint(s.has(model.AttemptOf(blocked))) })
	if !s.has(model.CertificateOf(other)) || s.wroteTimes(model.CertificateOf(other).Name) != 1 {
		t.Error("the certificate of the other host was touched")
	}
}

// leader is the gateway that leads.
func (s *site) leader() *post {
	s.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		for _, p := range s.posts {
			p.mu.Lock()
			leads := p.leads
			p.mu.Unlock()
			if leads {
				return p
			}
		}
	}
	s.t.Fatal("nobody leads")
	return nil
}

// TestACMERenews: before a certificate ends there is another one.
func TestACMERenews(t *testing.T) {
	const life = 12 * time.Second
	s := newSite(t, newAuthority(t, authorityOptions{life: life}), asking)
	s.resolver.set(shop, gatewayAddresses...)
	within(t, 30*time.Second, shop, func() string { return s.trusts(shop, 0) })
	first, err := s.leaf(shop, 0)
	if err != nil {
		t.Fatal(err)
	}
	var next *x509.Certificate
	within(t, life, "another", func() string {
		if next, err = s.leaf(shop, 0); err != nil {
			t.Fatalf("there is a time without a certificate: %v", err)
		}
		if next.SerialNumber.Cmp(first.SerialNumber) == 0 {
			return "the same"
		}
		return "another"
	})
	if after := next.NotBefore.Sub(first.NotBefore); after < life/2 {
		t.Errorf("it is renewed after %v", after)
	}
}

// TestACMEClock: a certificate that is due again as it comes, as for a gateway whose
// clock is ahead, is served, and not followed by another one each second.
func TestACMEClock(t *testing.T) {
	s := newSite(t, newAuthority(t, authorityOptions{life: time.Second}), asking)
	s.resolver.set(shop, gatewayAddresses...)
	s.leader().says(t, "Ingress/shop/web", "CertificateNotOrdered", "has to be renewed at once", "set the clocks")
	if times := s.wroteTimes(model.CertificateOf(shop).Name); times != 1 {
		t.Errorf("it was ordered %d times", times)
	}
}

// TestACMETakeover: who leads is gone in the middle of an order, and the other goes on
// with the same one.
func TestACMETakeover(t *testing.T) {
	for name, when := range map[string]func(*model.Secret) bool{
		"before it is asked":   func(s *model.Secret) bool { return s.Content["token"] != nil },
		"before it is fetched": func(s *model.Secret) bool { return s.Content["tls.key"] != nil },
		"before it is kept":    func(s *model.Secret) bool { return s.Name == model.CertificateOf(shop).Name },
	} {
		t.Run(name, func(t *testing.T) {
			a := newAuthority(t, authorityOptions{})
			a.resolver.set(shop, gatewayAddresses...)
			var deposed sync.Once
			var s *site
			urls := map[string]bool{}
			ready := make(chan struct{})
			s = newSite(t, a, func(snapshot *model.Snapshot) { snapshot.Network.Ingress.ACME = model.ACMEOptions{} })
			s.vault.hold = func(secret *model.Secret) {
				<-ready
				if url := string(secret.Content["url"]); secret.Name == model.AttemptOf(shop).Name && url != "" {
					urls[url] = true
				}
				if secret.Name != model.AttemptOf(shop).Name && secret.Name != model.CertificateOf(shop).Name {
					return
				}
				if when(secret) {
					deposed.Do(func() { s.leader().depose() })
				}
			}
			first := s.leader()
			close(ready)
			s.tell(func(snapshot *model.Snapshot) {
				network := *snapshot.Network
				network.Ingress.ACME = a.options
				snapshot.Network = &network
				asking(snapshot)
			})
			for i := range s.https {
				within(t, 40*time.Second, shop, func() string { return s.trusts(shop, i) })
			}
			if s.leader() == first {
				t.Error("the same one still leads")
			}
			if len(urls) != 1 {
				t.Errorf("there were %d orders", len(urls))
			}
			if s.wroteTimes(model.CertificateOf(shop).Name) != 1 {
				t.Error("the certificate was kept more than once")
			}
		})
	}
}

// TestACMEOwn: a certificate that somebody has put where the Ingress says wins, and
// none is ordered as long as it is good.
func TestACMEOwn(t *testing.T) {
	a := newAuthority(t, authorityOptions{external: map[string]string{"kid": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"}})
	a.options.KeyID, a.options.KeySecret = "kid", "external"
	a.resolver.set(shop, gatewayAddresses...)
	s := newSite(t, a, func(s *model.Snapshot) {
		ingress, _ := s.Ingresses.Get(model.IngressKey{Namespace: "shop", Name: "web"})
		next := *ingress // which names Secret pair
		next.Annotations = []model.Annotation{{Key: "kubernetes.io/tls-acme", Value: "true"}}
		s.Ingresses = s.Ingresses.With(next.IngressKey, &next)
	})
	leader := s.leader()
	leader.says(t, "CertificateNotOrdered", "there is no Secret fairlead-certificates/external")
	pair := model.SecretKey{Namespace: "shop", Name: "pair"}
	s.put(&model.Secret{SecretKey: pair, Content: pemPair(t, shop, time.Now().Add(time.Hour))})
	within(t, 10*time.Second, "200 backend "+shop, func() string { return ask(s.https[1]) })
	s.put(&model.Secret{SecretKey: model.SecretKey{Namespace: model.CertificateNamespace, Name: "external"}, Content: map[string][]byte{
		"key": []byte("zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W\n"),
	}})
	within(t, 10*time.Second, "false", func() string { return fmt.Sprint(s.has(model.AttemptOf(shop))) })
	if s.has(model.CertificateOf(shop)) {
		t.Error("one was ordered though there is one")
	}
	s.put(&model.Secret{SecretKey: pair, Content: pemPair(t, "elsewhere.example.org", time.Now().Add(time.Hour))})
	within(t, 30*time.Second, shop, func() string { return s.trusts(shop, 0) })
}

// put has somebody else write a Secret.
func (v *vault) put(secret *model.Secret) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.secrets[secret.SecretKey] = secret
	for _, c := range v.clusters {
		c.put(secret)
	}
}

// TestACMEForbidden: who may not write Secrets says what has to be applied, and orders
// nothing; once he may, he does.
func TestACMEForbidden(t *testing.T) {
	a := newAuthority(t, authorityOptions{})
	a.resolver.set(shop, gatewayAddresses...)
	s := newSite(t, a, func(s *model.Snapshot) { s.Network.Ingress.ACME = model.ACMEOptions{} })
	s.vault.mu.Lock()
	s.vault.fails = errors.New("secrets is forbidden")
	s.vault.mu.Unlock()
	s.tell(func(snapshot *model.Snapshot) {
		network := *snapshot.Network
		network.Ingress.ACME = a.options
		snapshot.Network = &network
		asking(snapshot)
	})
	s.leader().says(t, "Ingress/shop/web", "CertificateNotOrdered", "secrets is forbidden", "deploy/gateway-acme.yaml")
	s.vault.mu.Lock()
	s.vault.fails = nil
	s.vault.mu.Unlock()
	s.put(&model.Secret{SecretKey: model.SecretKey{Namespace: "shop", Name: "any"}}) // something changes, so that it looks again
	within(t, 30*time.Second, shop, func() string { return s.trusts(shop, 1) })
}
