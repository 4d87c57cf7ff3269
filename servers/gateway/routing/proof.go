package routing

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	plan "github.com/fairlead-net/fairlead/plan/gateway"
	"github.com/fairlead-net/fairlead/servers/gateway"
)

// proof is what clients of a host have to show: a certificate of an authority.
type proof struct {
	*plan.ClientCert
	secret map[string][]byte
	roots  *x509.CertPool
	lists  []*x509.RevocationList // nil: nobody is looked up
	closed *gateway.Route         // of all requests, since there is no authority; nil: there is
	page   *gateway.Route         // of who shows none that suffices; nil: he is told so
}

// finding is what was made of a certificate: as nginx calls it, and until when that
// is so.
type finding struct {
	state string // NONE, SUCCESS or FAILED:WHY
	why   error
	until time.Time
}

// newProof reads a Secret. One that is as it was stays what it is, and so does what
// was found out about connections.
func newProof(of *plan.ClientCert, secret map[string][]byte, old *proof) *proof {
	if old != nil && maps.EqualFunc(old.secret, secret, bytes.Equal) && (old.secret == nil) == (secret == nil) {
		return old
	}
	p := &proof{ClientCert: of, secret: secret}
	var err error
	if p.roots, err = pool(secret["ca.crt"]); err == nil && len(secret["ca.crl"]) > 0 {
		p.lists, err = revocations(secret["ca.crl"])
	}
	if err != nil {
		p.closed = refused(http.StatusServiceUnavailable, fmt.Sprintf("Secret %s (auth-tls-secret) has no authority for certificates of clients, so nobody may: %v", of.CA, err))
	}
	if of.ErrorPage != nil {
		nowhere := &route{Route: &plan.Route{}}
		p.page = moved(http.StatusFound, nowhere.expanding(of.ErrorPage))
	}
	return p
}

// revocations reads lists of certificates that are revoked, as PEM.
func revocations(text []byte) (all []*x509.RevocationList, err error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("key ca.crl: %w", err)
		}
		all = append(all, list)
	}
	if len(all) == 0 {
		return nil, errors.New("key ca.crl has no list")
	}
	return all, nil
}

var (
	misdirected = refused(http.StatusMisdirectedRequest, "the connection was made for another name, and whoever is at its end has shown a certificate to that one")
	unproven    = refused(http.StatusBadRequest, "a certificate is wanted, which only connections of TLS have")
	nothing     = refused(http.StatusBadRequest, "a certificate is wanted, and none was shown")
	mistaken    = refused(http.StatusForbidden, "the certificate is of somebody who may not")
)

// admit returns the answer to who may not; nil: he may. A request without TLS is
// judged only if it is not sent to TLS before.
func (p *proof) admit(ask *gateway.Request) *gateway.Route {
	switch {
	case p.closed != nil:
		return p.closed
	case ask.Peer == nil && p.Verify == "on":
		return unproven
	case ask.Peer == nil:
		return p.nobody()
	case ask.ServerName != text(ask.Host):
		return misdirected
	}
	found := p.find(ask.Peer)
	switch {
	case found.state == "SUCCESS":
	case found.state == "NONE" && p.Verify != "on":
		return p.nobody()
	case found.state == "NONE":
		return p.refuse(nothing)
	case p.Verify != "optional_no_ca" || !errors.As(found.why, new(x509.UnknownAuthorityError)):
		return p.refuse(refused(http.StatusBadRequest, "the certificate does not suffice: "+found.why.Error()))
	}
	if p.Subject != nil && !p.Subject.MatchString("CN="+ask.Peer.Certificates[0].Subject.CommonName) {
		return mistaken
	}
	return nil
}

// nobody is the answer to who shows no certificate and need not: only if it does not
// matter whose it is.
func (p *proof) nobody() *gateway.Route {
	if p.Subject != nil {
		return mistaken
	}
	return nil
}

func (p *proof) refuse(why *gateway.Route) *gateway.Route {
	if p.page != nil {
		return p.page
	}
	return why
}

// find judges the certificates of a connection, once.
func (p *proof) find(peer *gateway.Peer) *finding {
	now := time.Now()
	if known, ok := peer.Known.Load(p); ok && now.Before(known.(*finding).until) {
		return known.(*finding)
	}
	found := p.judge(peer.Certificates, now)
	peer.Known.Store(p, found)
	return found
}

// rejudged is how long a finding holds at most.
const rejudged = time.Minute

func (p *proof) judge(shown []*x509.Certificate, now time.Time) *finding {
	if len(shown) == 0 {
		return &finding{state: "NONE", until: now.Add(rejudged)}
	}
	chain, err := verify(shown, x509.VerifyOptions{Roots: p.roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, p.Depth)
	if err == nil && p.lists != nil {
		err = revoked(chain, p.lists, now)
	}
	found := &finding{state: "SUCCESS", why: err, until: now.Add(rejudged)}
	if shown[0].NotAfter.Before(found.until) {
		found.until = shown[0].NotAfter
	}
	if err != nil {
		found.state = "FAILED:" + err.Error()
	}
	return found
}

// revoked returns why a chain is not to be trusted by the lists. As with nginx, there
// has to be one of each authority in it that is still of age.
func revoked(chain []*x509.Certificate, lists []*x509.RevocationList, now time.Time) error {
	for i, certificate := range chain[:len(chain)-1] {
		listed := false
		for _, list := range lists {
			if !bytes.Equal(list.RawIssuer, certificate.RawIssuer) || list.CheckSignatureFrom(chain[i+1]) != nil || !list.NextUpdate.IsZero() && now.After(list.NextUpdate) {
				continue
			}
			listed = true
			for _, entry := range list.RevokedCertificateEntries {
				if entry.SerialNumber.Cmp(certificate.SerialNumber) == 0 {
					return fmt.Errorf("%q is revoked", certificate.Subject)
				}
			}
		}
		if !listed {
			return fmt.Errorf("there is no list of what %q has revoked, or it is out of date", certificate.Issuer)
		}
	}
	return nil
}

// isProof tells whether a field is one that says what certificate a client has shown.
// Nobody believes that of the client.
func isProof(name string) bool {
	const proofs = "ssl-client-"
	return len(name) > len(proofs) && strings.EqualFold(name[:len(proofs)], proofs)
}

// fields are what backends are told, in the place of what clients say of themselves.
func (p *proof) fields() []gateway.Field {
	field := func(name string, of func(peer *gateway.Peer) string) gateway.Field {
		return gateway.Field{Name: name, Expand: func(into []byte, ask *gateway.Request) []byte {
			if ask.Peer == nil {
				return into
			}
			return append(into, of(ask.Peer)...)
		}}
	}
	first := func(of func(*x509.Certificate) string) func(*gateway.Peer) string {
		return func(peer *gateway.Peer) string {
			if len(peer.Certificates) == 0 {
				return ""
			}
			return of(peer.Certificates[0])
		}
	}
	return []gateway.Field{
		field("ssl-client-verify", func(peer *gateway.Peer) string { return p.find(peer).state }),
		field("ssl-client-subject-dn", first(func(c *x509.Certificate) string { return c.Subject.String() })),
		field("ssl-client-issuer-dn", first(func(c *x509.Certificate) string { return c.Issuer.String() })),
		field("ssl-client-cert", first(func(c *x509.Certificate) string {
			if !p.Pass {
				return ""
			}
			escaped := url.QueryEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})))
			return strings.ReplaceAll(escaped, "+", "%20")
		})),
	}
}

// Asks finds the authorities whose certificates the clients of a name of TLS are
// asked for; nil: they are asked for none.
func (r *Router) Asks(name string) *x509.CertPool {
	found := r.table.Find(name)
	if found == nil {
		return nil
	}
	switch h, _ := r.hosts.Get(found.Name); {
	case h.proof == nil:
		return nil
	case h.proof.roots != nil:
		return h.proof.roots
	}
	return x509.NewCertPool()
}
