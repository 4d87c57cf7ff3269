package daemon

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// TestDetails: a gateway says what it serves, whether it follows what changes, which
// certificates end soon, and how much is wrong with Ingresses.
func TestDetails(t *testing.T) {
	c := &cluster{feed: make(chan *model.Feed, 1), synced: make(chan struct{}), changed: make(chan struct{})}
	secret := model.SecretKey{Namespace: "shop", Name: "pair"}
	c.put(&model.Secret{SecretKey: secret, Content: pemPair(t, "shop.example.org", time.Now().Add(time.Hour))})
	at, health := freePort(t), freePort(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- Run(ctx, Config{Version: "v1", Source: c, HTTPS: []netip.AddrPort{at}, HealthAddress: health.String(), Log: slog.New(slog.DiscardHandler)})
	}()
	t.Cleanup(func() { cancel(); <-ended })
	feed := <-c.feed
	feed.Edit(func(s *model.Snapshot) { addShop(s, freePort(t)) })
	close(c.synced)
	said := func() (d Details) {
		_ = json.Unmarshal([]byte(fetch(fmt.Sprintf("http://%s/debug/status", health))), &d) // until it listens, there is nothing
		return d
	}
	eventually(t, "[CertificateEndsSoon] 1 [] map[] true v1", func() string {
		d := said()
		var reasons []string
		for _, p := range d.Certificates {
			reasons = append(reasons, p.Reason)
		}
		return fmt.Sprintf("%v %d %v %v %v %s", reasons, d.Hosts, d.Unfed, d.Problems, len(d.Listening) == 1 && d.Listening[0] == at && d.Revision > 0, d.Version)
	})
	c.mu.Lock()
	c.unfed = []model.Problem{{Kind: "APIServer", Name: "ingresses", Reason: "NotWatched", Message: "ingresses cannot be watched"}}
	c.mu.Unlock()
	c.put(&model.Secret{SecretKey: secret, Content: pemPair(t, "shop.example.org", time.Now().Add(-time.Hour))})
	feed.Edit(func(s *model.Snapshot) {
		s.Slices = s.Slices.Without(model.SliceKey{Namespace: "shop", Name: "web"})
	})
	eventually(t, "CertificateEnded [ingresses cannot be watched] map[NoCertificate:1 NoEndpoints:1]", func() string {
		d := said()
		if len(d.Certificates) != 1 {
			return fmt.Sprint(d)
		}
		return fmt.Sprint(d.Certificates[0].Reason, " ", d.Unfed, " ", d.Problems)
	})
}

func TestEndsSoon(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Now()
	for _, c := range []struct {
		life, left time.Duration
		soon       bool
	}{
		{90 * day, 30 * day, false}, {90 * day, 16 * day, false}, {90 * day, 14 * day, true}, {6 * day, 2 * day, false}, {6 * day, 20 * time.Hour, true},
		{10 * 365 * day, 22 * day, false}, {10 * 365 * day, 20 * day, true}, {90 * day, -day, true},
	} {
		if soon := endsSoon(&x509.Certificate{NotBefore: now.Add(c.left - c.life), NotAfter: now.Add(c.left)}, now); soon != c.soon {
			t.Errorf("of %s, %s are left: %v", c.life, c.left, soon)
		}
	}
}
