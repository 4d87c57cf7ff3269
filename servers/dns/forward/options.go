package forward

import (
	"net/netip"
	"slices"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// Options say who is asked, and what is kept. The zero value asks the upstreams
// of /etc/resolv.conf.
type Options struct {
	// Upstreams are asked about all names that no stub domain holds; none: those of
	// ResolvConf.
	Upstreams []model.Upstream
	Stubs     []model.StubDomain
	Ordered   bool // the first that is well, instead of the fastest

	// Zone is the cluster's domain, which is never asked for here: a stub domain
	// in it would be of no effect.
	Zone string
	// ResolvConf is the node's; empty: /etc/resolv.conf.
	ResolvConf string
	// Root is where the node's files are seen, if not at /. Links in ResolvConf are
	// followed below it.
	Root string
	// Own are addresses at which this server answers, on this node or another one
	// of the cluster: none of them is an upstream.
	Own []netip.Addr
	// Node is the node's name, for what it has to mend.
	Node string

	// CacheBytes bounds what is kept, in bytes; 0: 16 MiB.
	CacheBytes int64
	// MaxTTL, MaxNegativeTTL and MaxStale bound for how long; see
	// model.CacheOptions. 0 is 0; negative ones stand for the defaults of the model.
	MaxTTL, MaxNegativeTTL, MaxStale time.Duration
	// MinTTL is how long an answer is kept at least, whatever it says.
	MinTTL time.Duration

	// Waiting bounds how many queries wait for upstreams, of all clients and of
	// one; 0: 4096, and 512. What exceeds them fails at once.
	Waiting, WaitingOfOne int
	// Timeout is how long one upstream is waited for; 0: 2 s. A query is given up
	// after Deadline; 0: 4.5 s, since resolvers ask anew after 5.
	Timeout, Deadline time.Duration
	// Patience is after how long a client is given a stale answer, if there is one;
	// 0: 800 ms, since some clients wait for a second.
	Patience time.Duration

	// MixCase asks in letters of random case, which answers have to repeat. It makes
	// answers still harder to forge; servers that do not repeat it are asked by TCP.
	// It is read once, by New.
	MixCase bool
	// PrivateReverse answers for the reverse names of private addresses (RFC 6303)
	// here, that there are none. By default upstreams are asked: they are those of
	// the site.
	PrivateReverse bool
}

// FromModel is what a cluster's options say of what is asked outside. What they
// do not speak of is to be filled in.
func FromModel(o model.DNSOptions) Options {
	return Options{
		Upstreams: o.Upstreams, Stubs: o.Stubs, Ordered: o.Ordered, Zone: o.Zone,
		CacheBytes:     o.Cache.Bytes,
		MaxTTL:         time.Duration(o.Cache.MaxTTL) * time.Second,
		MaxNegativeTTL: time.Duration(o.Cache.MaxNegativeTTL) * time.Second,
		MaxStale:       time.Duration(o.Cache.MaxStale) * time.Second,
	}
}

// withDefaults fills in what is not said.
func (o Options) withDefaults() *Options {
	o.Upstreams, o.Stubs, o.Own = slices.Clone(o.Upstreams), slices.Clone(o.Stubs), slices.Clone(o.Own)
	cache := model.DefaultDNS().Cache
	if o.ResolvConf == "" {
		o.ResolvConf = "/etc/resolv.conf"
	}
	if o.CacheBytes <= 0 {
		o.CacheBytes = cache.Bytes
	}
	for _, ttl := range []struct {
		at      *time.Duration
		seconds uint32
	}{{&o.MaxTTL, cache.MaxTTL}, {&o.MaxNegativeTTL, cache.MaxNegativeTTL}, {&o.MaxStale, cache.MaxStale}} {
		if *ttl.at < 0 {
			*ttl.at = time.Duration(ttl.seconds) * time.Second
		}
	}
	for _, count := range []struct {
		at   *int
		most int
	}{{&o.Waiting, 4096}, {&o.WaitingOfOne, 512}} {
		if *count.at <= 0 {
			*count.at = count.most
		}
	}
	for _, wait := range []struct {
		at *time.Duration
		d  time.Duration
	}{{&o.Timeout, 2 * time.Second}, {&o.Deadline, 4500 * time.Millisecond}, {&o.Patience, 800 * time.Millisecond}} {
		if *wait.at <= 0 {
			*wait.at = wait.d
		}
	}
	return &o
}

func (o *Options) lifetimes() lifetimes {
	return lifetimes{min: min(o.MinTTL, o.MaxTTL), max: o.MaxTTL, negative: o.MaxNegativeTTL}
}
