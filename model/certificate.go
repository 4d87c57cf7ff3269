package model

import (
	"crypto/sha256"
	"fmt"
)

// CertificateNamespace is where the Secrets are of all that is ordered: certificates,
// accounts and attempts. Nothing else is to be there, and no pod.
const CertificateNamespace = "fairlead-certificates"

// The beginnings of names of those Secrets. Behind them is the host, or, of accounts,
// a hash of whose they are.
const (
	CertificatePrefix = "certificate."
	AttemptPrefix     = "order."
	AccountPrefix     = "account."
)

// CertificateOf names the Secret of the certificate that was ordered for a host.
func CertificateOf(host string) SecretKey { return orderedFor(CertificatePrefix, host) }

// AttemptOf names the Secret of the attempt to order one.
func AttemptOf(host string) SecretKey { return orderedFor(AttemptPrefix, host) }

// AccountOf names the Secret of the account that options mean.
func AccountOf(options *ACMEOptions) SecretKey {
	of := sha256.Sum256([]byte(options.Server + " " + options.KeyID))
	return orderedFor(AccountPrefix, fmt.Sprintf("%x", of[:8]))
}

// orderedFor has a hash in the place of hosts that are too long for a name.
func orderedFor(prefix, host string) SecretKey {
	const most = 253
	if len(prefix)+len(host) > most {
		host = fmt.Sprintf("%x", sha256.Sum256([]byte(host)))
	}
	return SecretKey{Namespace: CertificateNamespace, Name: prefix + host}
}
