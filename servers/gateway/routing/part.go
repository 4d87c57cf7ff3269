package routing

import (
	"bytes"
	"maps"
	"reflect"
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
	passing  int // hosts that are passed through
	checks   int // backends that hosts have whose endpoints are asked how they are
	secrets  shelf[plan.SecretKey, map[string][]byte]
	limits   shelf[limitKey, *limit]
	users    shelf[plan.BasicAuth, *users]
	external shelf[*plan.ExternalAuth, *external]
	plain    []*gateway.Route // some that were made last, see alike
}

// holds are the parts that a host has, each as often as it has it.
type holds struct {
	backends []*held[way, *backend]
	trusts   []*held[trustKey, *trust]
	proofs   []*held[*plan.ClientCert, *proof]
	crowds   []*held[model.IngressKey, *crowd]
	passes   int // 1: the host is passed through
	checks   int
	secrets  []*held[plan.SecretKey, map[string][]byte]
	limits   []*held[limitKey, *limit]
	users    []*held[plan.BasicAuth, *users]
	external []*held[*plan.ExternalAuth, *external]
}

// shelf has things of one kind.
type shelf[K comparable, V any] map[K]*held[K, V]

type held[K comparable, V any] struct {
	key   K
	value V
	times int
}

func newParts() *parts {
	return &parts{
		backends: shelf[way, *backend]{}, trusts: shelf[trustKey, *trust]{}, proofs: shelf[*plan.ClientCert, *proof]{},
		crowds: shelf[model.IngressKey, *crowd]{}, secrets: shelf[plan.SecretKey, map[string][]byte]{}, limits: shelf[limitKey, *limit]{},
		users: shelf[plan.BasicAuth, *users]{}, external: shelf[*plan.ExternalAuth, *external]{},
	}
}

// hold returns what is there of a key, or makes it, and notes who has it.
func (s shelf[K, V]) hold(key K, by *[]*held[K, V], make func() V) V {
	h := s[key]
	if h == nil {
		h = &held[K, V]{key: key, value: make()}
		s[key] = h
	}
	h.times++
	*by = append(*by, h)
	return h.value
}

// release gives up what somebody had.
func (s shelf[K, V]) release(all []*held[K, V]) {
	for _, h := range all {
		if h.times--; h.times == 0 {
			delete(s, h.key)
		}
	}
}

func (p *parts) release(h *holds) {
	p.backends.release(h.backends)
	p.trusts.release(h.trusts)
	p.proofs.release(h.proofs)
	p.crowds.release(h.crowds)
	p.passing -= h.passes
	p.checks -= h.checks
	p.secrets.release(h.secrets)
	p.limits.release(h.limits)
	p.users.release(h.users)
	p.external.release(h.external)
}

// mostPlain is how many routes are looked at for one that is alike.
const mostPlain = 16

// alike returns a route in which nothing differs, if one was made not long ago: most
// Ingresses say the same, or nothing. One that has functions is like no other.
func (p *parts) alike(made *gateway.Route) *gateway.Route {
	for _, r := range p.plain {
		if reflect.DeepEqual(r, made) {
			return r
		}
	}
	if len(p.plain) == mostPlain {
		p.plain = slices.Delete(p.plain, 0, 1)
	}
	p.plain = append(p.plain, made)
	return made
}

// stale are parts that are others than they were: who has them is made anew.
type stale struct {
	backends map[way]bool
	secrets  map[plan.SecretKey]bool
}

func (s *stale) any() bool { return len(s.backends)+len(s.secrets) > 0 }

func (s *stale) touches(h *holds) bool {
	return len(s.backends) > 0 && slices.ContainsFunc(h.backends, func(b *held[way, *backend]) bool { return s.backends[b.key] }) ||
		len(s.secrets) > 0 && slices.ContainsFunc(h.secrets, func(secret *held[plan.SecretKey, map[string][]byte]) bool { return s.secrets[secret.key] })
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
	if len(changed)+len(s.secrets) == 0 {
		return s
	}
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
