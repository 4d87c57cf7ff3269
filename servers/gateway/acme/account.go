package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/fairlead-net/fairlead/model"
)

// requestTime bounds one request to an authority.
const requestTime = 30 * time.Second

// mostRetries are of one request, where the authority has said that something of its
// own is wrong.
const mostRetries = 3

// dial prepares what speaks with an authority.
func (o *Orders) dial(options *model.ACMEOptions) *acme.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if options.CABundle != "" {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM([]byte(options.CABundle)) // who read the Network has looked
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	return &acme.Client{
		DirectoryURL: options.Server, UserAgent: o.UserAgent,
		HTTPClient: &http.Client{Transport: transport, Timeout: requestTime},
		RetryBackoff: func(n int, _ *http.Request, response *http.Response) time.Duration {
			if n > mostRetries || response.StatusCode == http.StatusTooManyRequests || response.Header.Get("Retry-After") != "" {
				return -1 // it is tried again when it may be
			}
			return time.Duration(n) * 200 * time.Millisecond
		},
	}
}

// account returns what speaks with the authority as the account that options mean,
// which is made if there is none.
func (o *Orders) account(ctx context.Context, options *model.ACMEOptions) (*acme.Client, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.client != nil && o.options == *options {
		return o.client, nil
	}
	if o.client != nil {
		o.client.HTTPClient.CloseIdleConnections()
		o.client = nil
	}
	client := o.dial(options)
	name := model.AccountOf(options)
	secret, err := o.Store.ReadSecret(ctx, name)
	if err != nil {
		return nil, &storeError{err}
	}
	content := map[string][]byte{serverKey: []byte(options.Server)}
	if secret != nil {
		content = secret.Content
	}
	if client.Key, err = readKey(content[privateKey]); err != nil {
		var text []byte
		if client.Key, text, err = newKey(); err != nil {
			return nil, err
		}
		content = map[string][]byte{serverKey: []byte(options.Server), privateKey: text}
		if err := o.Store.WriteSecret(ctx, &model.Secret{SecretKey: name, Content: content}); err != nil {
			return nil, &storeError{err} // an account whose key is lost would be one too many
		}
	}
	if err := o.register(ctx, client, options, content); err != nil {
		return nil, err
	}
	o.client, o.options = client, *options
	return client, nil
}

// register makes the account of a client, or has what there is say what options do.
func (o *Orders) register(ctx context.Context, client *acme.Client, options *model.ACMEOptions, content map[string][]byte) error {
	client.KID = acme.KeyID(content[urlKey])
	account := &acme.Account{}
	if options.Email != "" {
		account.Contact = []string{"mailto:" + options.Email}
	}
	if client.KID != "" {
		if string(content[emailKey]) == options.Email {
			return nil
		}
		if _, err := client.UpdateReg(ctx, account); err != nil {
			return fmt.Errorf("tell the authority the address of mail: %w", err)
		}
	} else {
		var err error
		if account.ExternalAccountBinding, err = o.external(ctx, options); err != nil {
			return err
		}
		if _, err = client.Register(ctx, account, acme.AcceptTOS); err != nil && !errors.Is(err, acme.ErrAccountAlreadyExists) {
			return fmt.Errorf("make an account: %w", err)
		}
	}
	made := map[string][]byte{
		serverKey: []byte(options.Server), privateKey: content[privateKey], urlKey: []byte(client.KID), emailKey: []byte(options.Email),
	}
	if err := o.Store.WriteSecret(ctx, &model.Secret{SecretKey: model.AccountOf(options), Content: made}); err != nil {
		return &storeError{err}
	}
	return nil
}

// external reads the key of the account that the authority knows already; nil: there
// is to be none.
func (o *Orders) external(ctx context.Context, options *model.ACMEOptions) (*acme.ExternalAccountBinding, error) {
	if options.KeyID == "" {
		return nil, nil
	}
	name := model.SecretKey{Namespace: model.CertificateNamespace, Name: options.KeySecret}
	secret, err := o.Store.ReadSecret(ctx, name)
	if err != nil {
		return nil, &storeError{err}
	}
	if secret == nil {
		return nil, fmt.Errorf("spec.ingress.acme.externalAccount of the Network: there is no Secret %s", name)
	}
	text := strings.TrimRight(strings.TrimSpace(string(secret.Content[externalKey])), "=")
	key, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(key) == 0 {
		return nil, fmt.Errorf("spec.ingress.acme.externalAccount of the Network: Secret %s has no %q in base64url", name, externalKey)
	}
	return &acme.ExternalAccountBinding{KID: options.KeyID, Key: key}, nil
}

// forget has the account made anew: the authority does not know it.
func (o *Orders) forget(ctx context.Context, options *model.ACMEOptions) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.client = nil
	name := model.AccountOf(options)
	secret, err := o.Store.ReadSecret(ctx, name)
	if err != nil || secret == nil {
		return err
	}
	content := map[string][]byte{serverKey: secret.Content[serverKey], privateKey: secret.Content[privateKey]}
	return o.Store.WriteSecret(ctx, &model.Secret{SecretKey: name, Content: content})
}
