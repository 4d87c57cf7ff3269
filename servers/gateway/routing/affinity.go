package routing

import (
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"time"

	plan "github.com/fairlead-net/fairlead/plan/gateway"
	"github.com/fairlead-net/fairlead/servers/gateway"
)

// backend is one with the names of its endpoints: what a cookie says, and what a
// hash is compared with. They are the same in every process.
type backend struct {
	*gateway.Backend
	names  []uint64 // none is 0
	closed string   // why it is not to be called
}

func newBackend(at []netip.AddrPort) *backend {
	b := &backend{Backend: &gateway.Backend{Endpoints: at}}
	for _, endpoint := range at {
		b.names = append(b.names, nameOf(endpoint))
	}
	return b
}

func nameOf(at netip.AddrPort) uint64 { return max(1, hash([]byte(at.String()))) }

func hash(text []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(text)
	return mix(h.Sum64())
}

// mix spreads what differs in few bits over all (the end of MurmurHash3).
func mix(x uint64) uint64 {
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// place is that of an endpoint of a name, counted from 1; 0: it is not there.
func (b *backend) place(name uint64) int {
	if name != 0 {
		for i, other := range b.names {
			if other == name {
				return i + 1
			}
		}
	}
	return 0
}

// nearest is the place of the endpoint for a hash: when others come or go, it stays
// for all but theirs (rendezvous hashing).
func (b *backend) nearest(of uint64) (place int) {
	var most uint64
	for i, name := range b.names {
		if score := mix(of ^ name); place == 0 || score > most {
			place, most = i+1, score
		}
	}
	return place
}

// kept is the name of the endpoint that the client has a cookie of; 0: none.
func (r *route) kept(ask *gateway.Request) uint64 {
	if r.Policy.Affinity == nil {
		return 0
	}
	name, _ := strconv.ParseUint(string(cookie(ask, r.Policy.Affinity.Cookie)), 16, 64) // 0: it is none of ours
	return name
}

// stick has a request go to the endpoint of its client: that of its cookie, or of
// its hash. Who has none gets one, and a cookie of it.
func (r *route) stick(ask *gateway.Request, to *backend, place int) {
	switch {
	case len(to.names) == 0:
	case r.Policy.Affinity != nil && place > 0:
		ask.Prefer = place
	case r.Policy.Affinity != nil:
		ask.Prefer = 1 + rand.IntN(len(to.names))
		ask.Mark = to.names[ask.Prefer-1]
	case r.Policy.HashBy != nil:
		ask.Prefer = to.nearest(hash(r.Policy.HashBy.Expand(nil, r.value(ask))))
	}
}

// setCookie is the field that gives a client its cookie (RFC 6265, section 4.1).
func setCookie(a *plan.Affinity, path string) gateway.Field {
	if a.Path != "" {
		path = a.Path
	}
	rest := "; Path=" + path
	if a.Domain != "" {
		rest += "; Domain=" + a.Domain
	}
	if a.MaxAge > 0 {
		rest += "; Max-Age=" + strconv.Itoa(a.MaxAge)
	}
	rest += "; HttpOnly"
	if a.SameSite != "" {
		rest += "; SameSite=" + a.SameSite
	}
	return gateway.Field{Name: "Set-Cookie", Expand: func(into []byte, ask *gateway.Request) []byte {
		name := ask.Mark
		if ask.Moved.IsValid() && (name != 0 || a.ChangeOnFailure && ask.Prefer > 0) {
			name = nameOf(ask.Moved)
		}
		if name == 0 {
			return into
		}
		into = strconv.AppendUint(append(append(into, a.Cookie...), '='), name, 16)
		into = append(into, rest...)
		if a.Expires > 0 {
			into = append(into, "; Expires="...)
			into = time.Now().Add(time.Duration(a.Expires)*time.Second).UTC().AppendFormat(into, "Mon, 02 Jan 2006 15:04:05 GMT")
		}
		if a.Secure || ask.Secure {
			into = append(into, "; Secure"...)
		}
		return into
	}}
}
