package acme

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/certificate"
)

// Keys of the Secrets.
const (
	certificateKey = "tls.crt"
	privateKey     = "tls.key"
	hostKey        = "host"
	serverKey      = "server"
	urlKey         = "url" // of an order, or of an account
	tokenKey       = "token"
	answerKey      = "answer"
	failuresKey    = "failures"
	afterKey       = "after" // RFC 3339
	kindKey        = "kind"
	errorKey       = "error"
	emailKey       = "email"
	externalKey    = "key" // of an account that the authority knows already
)

// attempt is all that is kept of one, so that another gateway can go on with it.
type attempt struct {
	certificate.Attempt
	host          string
	url           string // of the order; empty: there is none
	token, answer string // of its challenge
	key           []byte // of the certificate, in PEM, once it has been asked for
}

func readAttempt(secret *model.Secret) *attempt {
	text := func(key string) string { return string(secret.Content[key]) }
	a := &attempt{host: text(hostKey), url: text(urlKey), token: text(tokenKey), answer: text(answerKey), key: secret.Content[privateKey]}
	a.Server, a.Kind, a.Error = text(serverKey), text(kindKey), text(errorKey)
	// What cannot be read is as if it were not there.
	a.Failures, _ = strconv.Atoi(text(failuresKey))
	a.After, _ = time.Parse(time.RFC3339, text(afterKey))
	return a
}

func (a *attempt) secret() *model.Secret {
	made := &model.Secret{SecretKey: model.AttemptOf(a.host), Content: map[string][]byte{}}
	put := func(key, text string) {
		if text != "" {
			made.Content[key] = []byte(text)
		}
	}
	put(hostKey, a.host)
	put(serverKey, a.Server)
	put(urlKey, a.url)
	put(tokenKey, a.token)
	put(answerKey, a.answer)
	put(privateKey, string(a.key))
	put(kindKey, a.Kind)
	put(errorKey, a.Error)
	if a.Failures > 0 {
		put(failuresKey, strconv.Itoa(a.Failures))
	}
	if !a.After.IsZero() {
		put(afterKey, a.After.UTC().Format(time.RFC3339))
	}
	return made
}

// newKey makes one of ECDSA, and its PEM.
func newKey() (crypto.Signer, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("write a key: %w", err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

var errNoKey = errors.New("there is no key of ECDSA in PEM")

// readKey reads what newKey has made.
func readKey(text []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errNoKey
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoKey, err)
	}
	return key, nil
}
