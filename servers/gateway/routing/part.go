package routing

import (
	"bytes"
	"maps"
	"slices"

	"github.com/fairlead-net/fairlead/model"
	plan "github.com/fairlead-net/fairlead/plan/gateway"
	"github.com/fairlead-net/fairlead/servers/gateway"
)

// parts are what hosts share. They are handed from a Router to the one that is made
// of it, so that whatever clients have used of their limits, and is known of
// passwords, lasts as long as some host needs it. Only who makes Routers uses them.
type parts struct {
	backends shelf[way, *backend]
	trusts   shelf[trustKey, *trust]
	proofs   shelf[*plan.ClientCert, *proof]
	crowds   shelf[model.IngressKey, *crowd]
	meters   shelf[gateway.Names, *gateway.Meter]
	passing  int // hosts that are passed through
	secrets  shelf[plan.SecretKey, map[string][]byte]
	limits   shelf[limitKey, *limit]
	users    shelf[plan.BasicAuth, *users]
	external shelf[*plan.ExternalAuth, *external]
}

// holds are the keys of the parts that a host has, each as often as it has it.
type holds struct {
	backends []way
	trusts   []trustKey
	proofs   []*plan.ClientCert
	crowds   []model.IngressKey
	meters   []gateway.Names
	passes   int // 1: the host is passed through
	secrets  []plan.SecretKey
	limits   []limitKey
	users    []plan.BasicAuth
	external []*plan.ExternalAuth
}

// shelf has things of one kind.
type shelf[K comparable, V any] map[K]*held[V]

type held[V any] struct {
	value V
	times int
}

func newParts() *parts {
	return &parts{
		backends: shelf[way, *backend]{}, trusts: shelf[trustKey, *trust]{}, proofs: shelf[*plan.ClientCert, *proof]{},
		crowds: shelf[model.IngressKey, *crowd]{}, meters: shelf[gateway.Names, *gateway.Meter]{}, secrets: shelf[plan.SecretKey, map[string][]byte]{}, limits: shelf[limitKey, *limit]{},
		users: shelf[plan.BasicAuth, *users]{}, external: shelf[*plan.ExternalAuth, *external]{},
	}
}

// hold returns what is there of a key, or makes it, and notes who has it.
func (s shelf[K, V]) hold(key K, by *[]K, make func() V) V {
	h := s[key]
	if h == nil {
		h = &held[V]{value: make()}
		s[key] = h
	}
	h.times++
	*by = append(*by, key)
	return h.value
}

// release gives up what somebody had.
func (s shelf[K, V]) release(keys []K) {
	for _, key := range keys {
		if h := s[key]; h.times > 1 {
			h.times--
		} else {
			delete(s, key)
		}
	}
}

func (p *parts) release(h *holds) {
	p.backends.release(h.backends)
	p.trusts.release(h.trusts)
	p.proofs.release(h.proofs)
	p.crowds.release(h.crowds)
	p.meters.release(h.meters)
	p.passing -= h.passes
	p.secrets.release(h.secrets)
	p.limits.release(h.limits)
	p.users.release(h.users)
	p.external.release(h.external)
}

// stale are parts that are others than they were: who has them is made anew.
type stale struct {
	backends map[way]bool
	secrets  map[plan.SecretKey]bool
}

func (s *stale) any() bool { return len(s.backends)+len(s.secrets) > 0 }

func (s *stale) touches(h *holds) bool {
	return len(s.backends) > 0 && slices.ContainsFunc(h.backends, func(w way) bool { return s.backends[w] }) ||
		len(s.secrets) > 0 && slices.ContainsFunc(h.secrets, func(key plan.SecretKey) bool { return s.secrets[key] })
}

// refresh makes those parts anew whose endpoints or Secrets have changed.
func (p *parts) refresh(prev *plan.Endpoints, from *Sources) (s stale) {
	s = stale{backends: map[way]bool{}, secrets: map[plan.SecretKey]bool{}}
	for key, h := range p.secrets {
		if content := from.Secret(key); !maps.EqualFunc(content, h.value, bytes.Equal) || (content == nil) != (h.value == nil) {
			h.value, s.secrets[key] = content, true
		}
	}
	for key, h := range p.users {
		if s.secrets[key.Secret] {
			h.value = newUsers(&key, p.secrets[key.Secret].value, h.value)
		}
	}
	for of, h := range p.proofs {
		if s.secrets[of.CA] {
			h.value = newProof(of, p.secrets[of.CA].value, h.value)
		}
	}
	for key, h := range p.trusts {
		if s.secrets[key.Secret] {
			h.value = newTrust(key, p.secrets[key.Secret].value, h.value)
		}
	}
	changed := from.Endpoints.Since(prev)
	for key, h := range p.backends {
		if !changed[key.Service] && !s.secrets[key.tls.Secret] {
			continue
		}
		if made := p.backendOf(key, from.Endpoints); !made.equal(h.value) {
			h.value, s.backends[key] = made, true
		}
	}
	return s
}
