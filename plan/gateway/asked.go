package gateway

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// Annotations that ask for certificates: of Fairlead, and of whoever makes any.
const (
	askAnnotation     = "fairlead.io/acme"
	tlsACMEAnnotation = "kubernetes.io/tls-acme"
)

// Asked is a certificate that is ordered for a host.
type Asked struct {
	Ingress model.IngressKey // which wants it
	Field   string           // of that
	Secret  SecretKey        // where it is
}

// readAsk finds out whether certificates are ordered for the Ingress, and says which
// of its hosts can have none.
func (d *draft) readAsk(options *model.IngressOptions) {
	if !d.settings.ask && !d.settings.askAny || d.settings.askNot || d.settings.canary.on {
		return
	}
	if options.ACME.Server == "" {
		if d.settings.ask {
			d.annotated(askAnnotation, "ACMEOff", "no certificates are ordered, since the Network does not say from whom",
				`say so: kubectl patch network default --type=merge -p '{"spec":{"ingress":{"acme":{"termsOfServiceAgreed":true}}}}' asks Let's Encrypt, whose terms you agree to`)
		}
		return
	}
	d.asks = true
	said := map[string]bool{}
	unfit := func(field, host string) {
		if orderable(host) || said[host] || !d.covered(host) || d.named(host) {
			return
		}
		said[host] = true
		what, remedy := "a rule without a host has no name that a certificate could be for", "name the hosts, or a Secret with a certificate in spec.tls"
		switch {
		case strings.HasPrefix(host, "*"):
			what = fmt.Sprintf("no certificate can be ordered for %s: the authority asks hosts by HTTP, and a wildcard is none to ask", host)
			remedy = "name each host, or name a Secret with a certificate in spec.tls, such as one that cert-manager makes by DNS"
		case host != "":
			what = fmt.Sprintf("no certificate can be ordered for %s: it is not a name of letters, digits and hyphens between them, as authorities and Kubernetes want them", host)
			remedy = "correct the name, or name a Secret with a certificate in spec.tls"
		}
		d.wrong(field, "NotOrderable", what, remedy)
	}
	for i, rule := range d.ingress.Rules {
		unfit(fmt.Sprintf("spec.rules[%d].host", i), rule.Host)
	}
	for _, name := range d.settings.aliases {
		unfit("metadata.annotations["+prefix+"server-alias]", name)
	}
}

// asking is the field that does, or that gives a host that is asked for another name.
func (d *draft) asking(host string) string {
	key := tlsACMEAnnotation
	switch {
	case d.asks && d.settings.ask:
		key = askAnnotation
	case !d.asks && d.hosts[host] == sender:
		key = prefix + "from-to-www-redirect"
	case !d.asks:
		key = prefix + "server-alias"
	}
	return "metadata.annotations[" + key + "]"
}

// orderable tells whether the authority can ask a host, and a Secret can have its name:
// annotations have names that rules cannot have.
func orderable(host string) bool {
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' || strings.ContainsAny(label, "*_") {
			return false
		}
	}
	return len(host) <= 253
}

// wants tells whether the Ingress is one that has a certificate ordered for a host.
func (d *draft) wants(host string) bool {
	return orderable(host) && d.hosts[host] != guest && d.covered(host)
}

// covered tells whether a host is to have TLS: those that spec.tls means, or, without
// it, all.
func (d *draft) covered(host string) bool {
	return len(d.ingress.TLS) == 0 || slices.ContainsFunc(d.ingress.TLS, func(tls model.IngressTLS) bool { return means(&tls, host) })
}

// named tells whether the Ingress names a Secret for a host.
func (d *draft) named(host string) bool {
	return slices.ContainsFunc(d.ingress.TLS, func(tls model.IngressTLS) bool { return tls.Secret != "" && means(&tls, host) })
}

// ask finds out who has a certificate ordered for the host: the oldest that asks in the
// namespace that the host is of. Others are told, since they would wait in vain.
func (h *Host) ask(mains []*draft) {
	var owner model.IngressKey
	switch {
	case len(h.Routes) > 0:
		owner = h.Routes[0].From
	case h.Default != nil:
		owner = h.Default.From
	default:
		return // nobody has any path of it
	}
	var others []*draft
	for _, d := range mains {
		switch {
		case !d.asks || !d.wants(h.Name):
		case !h.owner(d):
			others = append(others, d)
		case h.asks == nil:
			h.asks, h.TLS = d, true
		}
	}
	if h.asks != nil {
		return
	}
	for _, d := range others {
		h.wrong(d, d.asking(h.Name), "NotYours", fmt.Sprintf("no certificate is ordered for host %q: it is of Ingress %s, and only its namespace may ask for one", h.Name, owner),
			"annotate that Ingress with "+askAnnotation)
	}
}

// order adds the certificate that is ordered behind those of the namespace that the
// host is of: others come last.
func (h *Host) order() {
	if h.asks == nil {
		return
	}
	if h.Passthrough != nil { // its certificate is that of who ends TLS
		h.asks = nil
		return
	}
	h.Asked = &Asked{Ingress: h.asks.ingress.IngressKey, Field: h.asks.asking(h.Name), Secret: model.CertificateOf(h.Name)}
	at := 0
	for i, key := range h.Certificates {
		if key.Namespace == h.asks.ingress.Namespace {
			at = i + 1
		}
	}
	h.Certificates = slices.Insert(slices.Clone(h.Certificates), at, h.Asked.Secret)
}

// orderAlso gives another name of a host, which d has given it, a certificate of its
// own. Names that other namespaces give are not ordered for in the name of who asks.
func (h *Host) orderAlso(d *draft) {
	if h.Asked == nil {
		return
	}
	asked := &Asked{Ingress: d.ingress.IngressKey, Field: d.asking(h.Name), Secret: model.CertificateOf(h.Name)}
	h.Certificates = slices.Clone(h.Certificates)
	at := slices.Index(h.Certificates, h.Asked.Secret)
	if h.Certificates[at], h.Asked = asked.Secret, asked; !orderable(h.Name) || h.asks.ingress.Namespace != d.ingress.Namespace {
		h.Certificates, h.Asked = slices.Delete(h.Certificates, at, at+1), nil
	}
}

// Wanted are the hosts for which certificates are ordered, sorted by name, but for
// those that have one of their own.
func (t *Table) Wanted(have func(*Host) bool) (all []*Host) {
	if t.options.ACME.Server == "" {
		return nil
	}
	for _, host := range t.Hosts.All() {
		if host.Asked != nil && !host.absent && !have(host) {
			all = append(all, host)
		}
	}
	slices.SortFunc(all, func(a, b *Host) int { return strings.Compare(a.Name, b.Name) })
	return all
}
