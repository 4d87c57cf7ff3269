package daemon

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
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
	own *tls.Certificate // of hosts that have none: nobody trusts it
	by  map[model.SecretKey]*pair
}

// pair is what was read of a Secret.
type pair struct {
	secret      *model.Secret
	certificate *tls.Certificate // nil: there is none
	problem     string
}

// begin makes the certificate of hosts that have none.
func (c *certificates) begin() error {
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

// follow reads the Secrets of a table that have changed, and says what is wrong
// with them.
func (c *certificates) follow(table *plan.Table, secrets model.Map[model.SecretKey, *model.Secret]) (problems []model.Problem) {
	next := map[model.SecretKey]*pair{}
	for _, host := range table.Hosts.All() {
		for _, key := range host.Certificates {
			if next[key] != nil {
				continue
			}
			secret, _ := secrets.Get(key)
			if old := c.by[key]; old != nil && old.secret == secret {
				next[key] = old
			} else {
				next[key] = read(secret)
			}
			if text := next[key].problem; text != "" {
				problems = append(problems, model.Problem{
					Kind: "Secret", Namespace: key.Namespace, Name: key.Name, Reason: "NoCertificate",
					Message: text + ", so hosts that it is for have the default certificate",
					Remedy:  "make it of a pair: kubectl create secret tls " + key.Name + " --cert=FILE --key=FILE",
				})
			}
		}
	}
	c.by = next
	return problems
}

// expiry is when the certificate of a host ends.
type expiry struct {
	host   string
	secret model.SecretKey
	at     time.Time
}

// expiries are those of all hosts, and of all their certificates.
func (c *certificates) expiries(table *plan.Table) *[]expiry {
	all := []expiry{}
	for name, host := range table.Hosts.All() {
		if name == "" {
			name = "_"
		}
		for _, key := range host.Certificates {
			if made := c.by[key].certificate; made != nil && made.Leaf != nil {
				all = append(all, expiry{name, key, made.Leaf.NotAfter})
			}
		}
	}
	return &all
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
	p.certificate = &made
	if now := time.Now(); made.Leaf != nil && now.After(made.Leaf.NotAfter) {
		p.problem = fmt.Sprintf("the certificate has expired at %s", made.Leaf.NotAfter.UTC().Format(time.RFC3339))
		p.certificate = nil
	}
	return p
}

// choose finds the certificate for a connection: of those of its host, the first
// that the client can use.
func (c *certificates) choose(table *plan.Table) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	by, own := c.by, c.own
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		host := table.Find(strings.ToLower(strings.TrimSuffix(hello.ServerName, ".")))
		if host == nil {
			return own, nil
		}
		var first *tls.Certificate
		for _, key := range host.Certificates {
			certificate := by[key].certificate
			if certificate == nil {
				continue
			}
			if hello.SupportsCertificate(certificate) == nil {
				return certificate, nil
			}
			if first == nil {
				first = certificate
			}
		}
		if first == nil {
			return own, nil
		}
		return first, nil
	}
}
