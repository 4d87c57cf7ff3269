package gateway

import (
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// like are the settings of annotations that several Ingresses of a namespace have:
// most say the same, and settings are long.
type like struct {
	key string
	*settings
}

// shared is how many Ingresses have them.
type shared struct {
	*like
	times int
}

// likeKey is what Ingresses have in common whose settings are the same.
func likeKey(ingress *model.HTTPIngress) string {
	var b strings.Builder
	b.WriteString(ingress.Namespace)
	for _, a := range ingress.Annotations {
		for _, text := range [...]string{a.Key, a.Value} { // a manifest has no NUL
			b.WriteByte(0)
			b.WriteString(text)
		}
	}
	return b.String()
}

// newDraft understands an Ingress, or takes what is understood of another already.
func (c *computation) newDraft(ingress *model.HTTPIngress) *draft {
	if len(ingress.Annotations) == 0 {
		return newDraft(ingress, &c.options, nil)
	}
	key := likeKey(ingress)
	had, ok := c.shared.Get(key)
	if !ok {
		had.like = nil
	}
	d := newDraft(ingress, &c.options, had.like)
	if !ok && d.mayShare() {
		d.like = &like{key, d.settings}
	}
	if d.like != nil {
		c.shared = c.shared.With(key, shared{d.like, had.times + 1})
	}
	return d
}

// mayShare tells whether the settings say nothing of the Ingress alone, such as what
// is wrong with it. Who is asked whether a request may pass is asked for each.
func (d *draft) mayShare() bool {
	return len(d.problems) == 0 && d.policy.Closed == "" && d.policy.ExternalAuth == nil && d.policy.ClientCert == nil
}

// unshare takes note of an Ingress that has them no more.
func (c *computation) unshare(l *like) {
	if l == nil {
		return
	}
	if had, _ := c.shared.Get(l.key); had.times > 1 {
		c.shared = c.shared.With(l.key, shared{l, had.times - 1})
	} else {
		c.shared = c.shared.Without(l.key)
	}
}
