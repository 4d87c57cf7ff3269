package routing

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"
)

// pki has the certificates that stories speak of: those of clients by name, and what
// values of Secrets stand for.
type pki struct {
	clients map[string]*tls.Certificate
	backend *tls.Certificate // of the Services that speak TLS
	texts   map[string]string
}

// issuer is an authority.
type issuer struct {
	t    *testing.T
	leaf *x509.Certificate
	key  *ecdsa.PrivateKey
	path [][]byte // of those below the root
}

var serial int64

// issue makes a certificate; without an issuer, it is its own.
func (i *issuer) issue(template *x509.Certificate) *issuer {
	i.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		i.t.Fatal(err)
	}
	serial++
	template.SerialNumber = big.NewInt(serial)
	template.NotBefore = time.Now().Add(-48 * time.Hour)
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	if template.IsCA {
		template.BasicConstraintsValid, template.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	}
	parent, by := i.leaf, i.key
	if parent == nil {
		parent, by = template, key
	}
	made, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		i.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(made)
	if err != nil {
		i.t.Fatal(err)
	}
	next := &issuer{t: i.t, leaf: leaf, key: key}
	if i.leaf != nil {
		next.path = append([][]byte{made}, i.path...)
	}
	return next
}

func (i *issuer) authority(name string) *issuer {
	return i.issue(&x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true})
}

func (i *issuer) pair() *tls.Certificate {
	path := i.path
	if len(path) == 0 {
		path = [][]byte{i.leaf.Raw}
	}
	return &tls.Certificate{Certificate: path, PrivateKey: i.key}
}

func (i *issuer) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.leaf.Raw}))
}

func newPKI(t *testing.T) *pki {
	nobody := &issuer{t: t}
	root, other := nobody.authority("Root"), nobody.authority("Other")
	client := func(by *issuer, subject pkix.Name) *issuer { return by.issue(&x509.Certificate{Subject: subject}) }
	revoked := client(root, pkix.Name{CommonName: "rex"})
	expired := root.issue(&x509.Certificate{Subject: pkix.Name{CommonName: "eve"}, NotAfter: time.Now().Add(-time.Hour)})
	shown := client(root, pkix.Name{CommonName: "gateway"})
	list, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: revoked.leaf.SerialNumber, RevocationTime: time.Now().Add(-time.Minute)}},
	}, root.leaf, root.key)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalECPrivateKey(shown.key)
	if err != nil {
		t.Fatal(err)
	}
	return &pki{
		clients: map[string]*tls.Certificate{
			"ann": client(root, pkix.Name{CommonName: "ann", Organization: []string{"Example"}}).pair(),
			"bob": client(root, pkix.Name{CommonName: "bob", Organization: []string{"x,CN=ann"}}).pair(),
			"far": client(root.authority("Between").authority("Below"), pkix.Name{CommonName: "far"}).pair(),
			"rex": revoked.pair(), "eve": expired.pair(),
			"stranger": client(other, pkix.Name{CommonName: "ann"}).pair(),
		},
		backend: root.issue(&x509.Certificate{Subject: pkix.Name{CommonName: "backend"}, DNSNames: []string{"backend.example.org", "secure.default.svc", "grpcs.default.svc"}}).pair(),
		texts: map[string]string{
			"AUTHORITY": root.pem(), "OTHER": other.pem(), "CERTIFICATE": shown.pem(),
			"KEY":  string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: key})),
			"LIST": string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: list})),
		},
	}
}
