package daemon

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/fairlead-net/fairlead/model"
	plan "github.com/fairlead-net/fairlead/plan/gateway"
)

// certificates are those of Secrets, read once for each content.
type certificates struct {
	own      *tls.Certificate // of hosts that have none: nobody trusts it
	standard model.SecretKey  // of hosts that have none; empty: own
	by       map[model.SecretKey]*pair
}

// pair is what was read of a Secret.
type pair struct {
	secret      *model.Secret
	certificate *tls.Certificate  // nil: there is none
	leaf        *x509.Certificate // of it, or of one that has ended
	problem     string
}

// begin makes the certificate of hosts that have none, for as long as there is no
// standard one.
func (c *certificates) begin(standard model.SecretKey) error {
	c.standard = standard
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the default certificate: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().Unix()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		Subject: pkix.Name{CommonName: "Fairlead: this host has no certificate"}, DNSNames: []string{"fairlead.invalid"},
	}
	made, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return fmt.Errorf("make the default certificate: %w", err)
	}
	c.own = &tls.Certificate{Certificate: [][]byte{made}, PrivateKey: key}
	return nil
}

// follow reads the Secrets of a table that have changed, or whose certificate has
// ended meanwhile, and says what is wrong with them.
func (c *certificates) follow(table *plan.Table, secrets model.Map[model.SecretKey, *model.Secret]) (problems []model.Problem) {
	next, said := make(map[model.SecretKey]*pair, len(c.by)), map[model.SecretKey]bool{}
	know := func(key model.SecretKey) *pair {
		if next[key] != nil {
			return next[key]
		}
		secret, _ := secrets.Get(key)
		if old := c.by[key]; old != nil && old.secret == secret && !old.ended() {
			next[key] = old
		} else {
			next[key] = read(secret)
		}
		return next[key]
	}
	take := func(key model.SecretKey, so string) {
		if text := know(key).problem; text != "" && !said[key] {
			said[key] = true
			problems = append(problems, problemOf(key, "NoCertificate", text+so))
		}
	}
	if c.standard != (model.SecretKey{}) {
		take(c.standard, ", so hosts without a certificate of their own have one that nobody trusts (--default-certificate)")
	}
	for name, host := range table.Hosts.All() {
		for _, key := range host.Certificates {
			if host.Asked != nil {
				if p := know(key); p.secret == nil || key == host.Asked.Secret {
					continue // it is ordered, and whether it can be is said elsewhere
				}
			}
			take(key, ", so hosts that it is for have the default certificate")
			if why := next[key].unfit(name); why != "" {
				problems = append(problems, problemOf(key, "CertificateOfOtherHost", why+", so it has the default certificate"))
			}
		}
	}
	c.by = next
	return problems
}

func problemOf(key model.SecretKey, reason, message string) model.Problem {
	return model.Problem{
		Kind: "Secret", Namespace: key.Namespace, Name: key.Name, Reason: reason, Message: message,
		Remedy: "make it of a pair: kubectl create secret tls " + key.Name + " -n " + key.Namespace + " --cert=FILE --key=FILE",
	}
}

// ended tells whether the certificate was one, and is none any more.
func (p *pair) ended() bool {
	return p.certificate != nil && p.certificate.Leaf != nil && time.Now().After(p.certificate.Leaf.NotAfter)
}

// unfit says why a certificate is none of a host; empty: it is, or there is none.
func (p *pair) unfit(host string) string {
	if p.certificate == nil || p.certificate.Leaf == nil || host == "" {
		return ""
	}
	name := host
	if rest, ok := strings.CutPrefix(host, "*."); ok {
		name = "fairlead-any-name." + rest
	}
	if p.certificate.Leaf.VerifyHostname(name) == nil {
		return ""
	}
	return fmt.Sprintf("the certificate is for %q, and not for host %s", p.certificate.Leaf.DNSNames, host)
}

// has tells whether a host has a certificate that somebody has put where its Ingress
// says.
func (c *certificates) has(host *plan.Host) bool {
	for _, key := range host.Certificates {
		if key == host.Asked.Secret {
			return false // those behind it are of others
		}
		if p := c.by[key]; p.certificate != nil && p.unfit(host.Name) == "" {
			return true
		}
	}
	return false
}

// expiry is when the certificate of a host ends.
type expiry struct {
	host   string
	secret model.SecretKey
	at     time.Time
}

// secured is what was read of Secrets for a table. It is immutable.
type secured struct {
	table *plan.Table
	by    map[model.SecretKey]*pair
}

// expiries are those of all hosts, and of all their certificates.
func (s *secured) expiries() (all []expiry) {
	for name, host := range s.table.Hosts.All() {
		if name == "" {
			name = "_"
		}
		for _, key := range host.Certificates {
			if made := s.by[key].certificate; made != nil && made.Leaf != nil {
				all = append(all, expiry{name, key, made.Leaf.NotAfter})
			}
		}
	}
	return all
}

func read(secret *model.Secret) *pair {
	p := &pair{secret: secret}
	if secret == nil {
		p.problem = "the Secret does not exist"
		return p
	}
	made, err := tls.X509KeyPair(secret.Content["tls.crt"], secret.Content["tls.key"])
	if err != nil {
		p.problem = "tls.crt and tls.key are no certificate with its key: " + err.Error()
		return p
	}
	p.certificate, p.leaf = &made, made.Leaf
	if now := time.Now(); made.Leaf != nil && now.After(made.Leaf.NotAfter) {
		p.problem = fmt.Sprintf("the certificate has expired at %s", made.Leaf.NotAfter.UTC().Format(time.RFC3339))
		p.certificate = nil
	}
	return p
}

// choose finds the certificate for a connection: of those of its host, one that the
// client can use and that has its name, of ECDSA rather than of RSA, which costs
// more; else the default one.
func (c *certificates) choose(table *plan.Table) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	by, other := c.by, c.own
	if p := by[c.standard]; p != nil && p.certificate != nil {
		other = p.certificate
	}
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		host := table.Find(strings.ToLower(strings.TrimSuffix(hello.ServerName, ".")))
		if host == nil {
			return other, nil
		}
		var usable *tls.Certificate
		of := ""
		for _, key := range host.Certificates {
			certificate := by[key].certificate
			if certificate == nil || usable != nil && key.Namespace != of || hello.SupportsCertificate(certificate) != nil {
				continue // nobody takes a host's certificate from another namespace by a better one
			}
			of = key.Namespace
			if _, is := certificate.PrivateKey.(*rsa.PrivateKey); !is {
				return certificate, nil
			}
			if usable == nil {
				usable = certificate
			}
		}
		if usable == nil {
			usable = other
		}
		return usable, nil
	}
}
