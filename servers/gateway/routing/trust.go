package routing

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"

	"github.com/fairlead-net/fairlead/model"
	plan "github.com/fairlead-net/fairlead/plan/gateway"
)

// trustKey is how the endpoints of a Service are trusted.
type trustKey struct {
	plan.BackendTLS
	service model.ServiceKey
}

// trust is what TLS with a backend goes by.
type trust struct {
	secret map[string][]byte
	config *tls.Config
	closed string // why there is none
}

// newTrust reads a Secret. One that is as it was stays what it is, and with it the
// connections that were made by it.
func newTrust(key trustKey, secret map[string][]byte, old *trust) *trust {
	if old != nil && maps.EqualFunc(old.secret, secret, bytes.Equal) && (old.secret == nil) == (secret == nil) {
		return old
	}
	t := &trust{secret: secret}
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}} // VerifyConnection does, if it is wanted
	name := key.Name
	if name == "" {
		name = key.service.Name + "." + key.service.Namespace + ".svc"
	}
	if key.ServerName {
		config.ServerName = name
	}
	if key.Secret.Name != "" {
		if err := t.read(config, key, secret); err != nil {
			t.closed = fmt.Sprintf("Secret %s (proxy-ssl-secret): %v", key.Secret, err)
			return t
		}
	}
	if key.Verify {
		roots, err := pool(secret["ca.crt"])
		if err != nil {
			t.closed = fmt.Sprintf("Secret %s (proxy-ssl-secret) has no authority to verify backends by: %v", key.Secret, err)
			return t
		}
		config.VerifyConnection = func(state tls.ConnectionState) error {
			_, err := verify(state.PeerCertificates, x509.VerifyOptions{Roots: roots, DNSName: name}, key.Depth)
			return err
		}
	}
	t.config = config
	return t
}

// read adds the certificate that backends are shown, if there is one.
func (t *trust) read(config *tls.Config, key trustKey, secret map[string][]byte) error {
	certificate, private := secret["tls.crt"], secret["tls.key"]
	switch {
	case secret == nil:
		return errors.New("it does not exist")
	case len(certificate)+len(private) > 0:
		pair, err := tls.X509KeyPair(certificate, private)
		if err != nil {
			return fmt.Errorf("tls.crt and tls.key are no certificate with its key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	case len(secret["ca.crt"]) == 0:
		return errors.New("it has neither tls.crt with tls.key nor ca.crt")
	}
	return nil
}

// pool reads authorities, as PEM.
func pool(text []byte) (*x509.CertPool, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, errors.New("key ca.crt has no certificate")
	}
	return roots, nil
}

var errTooDeep = errors.New("its authority is further away than the depth that is allowed")

// verify looks whether certificates, of which the first is whose they are, lead to
// an authority, by depth intermediate ones at most, and returns how.
func verify(shown []*x509.Certificate, by x509.VerifyOptions, depth int) ([]*x509.Certificate, error) {
	if len(shown) == 0 {
		return nil, errors.New("no certificate was shown")
	}
	by.Intermediates = x509.NewCertPool()
	for _, other := range shown[1:] {
		by.Intermediates.AddCert(other)
	}
	chains, err := shown[0].Verify(by)
	if err != nil {
		return nil, err
	}
	for _, chain := range chains {
		if len(chain)-2 <= depth {
			return chain, nil
		}
	}
	return nil, errTooDeep
}
