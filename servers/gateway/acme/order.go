package acme

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/certificate"
)

// mostTime is what one order may take, with all that the authority does.
const mostTime = 5 * time.Minute

// order has a certificate made for a host, or goes on with an attempt of before. The
// Secrets have it when it returns nil.
func (o *Orders) order(ctx context.Context, options *model.ACMEOptions, a *attempt) error {
	client, err := o.account(ctx, options)
	if err != nil {
		return &accountError{err}
	}
	order, err := o.begin(ctx, client, a)
	if err != nil {
		return err
	}
	if order.Status == acme.StatusPending {
		for _, url := range order.AuthzURLs {
			if err := o.prove(ctx, client, a, url); err != nil {
				return err
			}
		}
		if order, err = client.WaitOrder(ctx, a.url); err != nil {
			return err
		}
	}
	chain, err := o.fetch(ctx, client, a, order)
	if err != nil {
		return err
	}
	content := map[string][]byte{certificateKey: chain, privateKey: a.key, hostKey: []byte(a.host), serverKey: []byte(a.Server)}
	if err := o.Store.WriteSecret(ctx, &model.Secret{SecretKey: model.CertificateOf(a.host), Content: content}); err != nil {
		return &storeError{err}
	}
	if err := endsSoon(a, content); err != nil {
		return err
	}
	if err := o.Store.DeleteSecret(ctx, model.AttemptOf(a.host)); err != nil {
		return &storeError{err}
	}
	return nil
}

// clockError says that a certificate was made that is due to be renewed as it comes:
// without a pause, one would be ordered after the other.
type clockError struct{ certificate.Held }

func (e *clockError) Error() string {
	return fmt.Sprintf("the certificate that the authority has made, from %s until %s, has to be renewed at once by the clock of this gateway, which says %s",
		e.From.UTC().Format(time.RFC3339), e.Until.UTC().Format(time.RFC3339), time.Now().UTC().Format(time.RFC3339))
}

// endsSoon returns a clockError if what was made is due again.
func endsSoon(a *attempt, content map[string][]byte) error {
	state := &State{}
	state.copy(&State{})
	state.take(&model.Secret{SecretKey: model.CertificateOf(a.host), Content: content}, true)
	if len(certificate.Compute([]certificate.Wanted{{Host: a.host}}, &state.State, a.Server, time.Now()).Order) > 0 {
		return &clockError{state.Held[a.host]}
	}
	return nil
}

// begin makes an order, or finds the one that was made.
func (o *Orders) begin(ctx context.Context, client *acme.Client, a *attempt) (*acme.Order, error) {
	if a.url != "" {
		order, err := client.GetOrder(ctx, a.url)
		if err == nil && (order.Status == acme.StatusPending || order.Status == acme.StatusReady || (order.Status == acme.StatusProcessing || order.Status == acme.StatusValid) && len(a.key) > 0) {
			return order, nil
		}
		if said := (*acme.Error)(nil); err != nil && (!errors.As(err, &said) || said.StatusCode >= 500 || said.StatusCode == http.StatusTooManyRequests) {
			return nil, err // the authority cannot be asked now
		}
		a.url, a.token, a.answer, a.key = "", "", "", nil // it came to nothing
	}
	order, err := client.AuthorizeOrder(ctx, acme.DomainIDs(a.host))
	if err != nil {
		return nil, err
	}
	a.url = order.URI
	return order, o.save(ctx, a)
}

// save keeps an attempt where others find it.
func (o *Orders) save(ctx context.Context, a *attempt) error {
	if err := o.Store.WriteSecret(ctx, a.secret()); err != nil {
		return &storeError{err}
	}
	return nil
}

// prove shows the authority that the host is ours. It comes to any of the gateways, and
// tries once: so it is called when all of them have the answer.
func (o *Orders) prove(ctx context.Context, client *acme.Client, a *attempt, url string) error {
	authorization, err := client.GetAuthorization(ctx, url)
	if err != nil {
		return err
	}
	if authorization.Status != acme.StatusPending {
		if authorization.Status == acme.StatusValid {
			return nil
		}
		_, err := client.WaitAuthorization(ctx, url) // which says why
		return err
	}
	for _, asked := range authorization.Challenges {
		if asked.Type != "http-01" {
			continue
		}
		a.token = asked.Token
		if a.answer, err = client.HTTP01ChallengeResponse(asked.Token); err != nil {
			return fmt.Errorf("answer a challenge: %w", err)
		}
		if err := o.save(ctx, a); err != nil {
			return err
		}
		o.spread(ctx, a)
		if asked.Status == acme.StatusPending { // else it comes already
			if _, err := client.Accept(ctx, asked); err != nil {
				return err
			}
		}
		_, err = client.WaitAuthorization(ctx, url)
		return err
	}
	return errors.New("the authority does not ask by HTTP (http-01), and nothing else is answered")
}

// fetch has the certificate made, and returns its chain as PEM.
func (o *Orders) fetch(ctx context.Context, client *acme.Client, a *attempt, order *acme.Order) ([]byte, error) {
	var chain [][]byte
	key, err := readKey(a.key)
	if err != nil {
		if key, a.key, err = newKey(); err != nil {
			return nil, err
		}
		if err := o.save(ctx, a); err != nil { // another gateway may have to fetch it
			return nil, err
		}
	}
	if order.Status == acme.StatusReady {
		request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{a.host}}, key)
		if err != nil {
			return nil, fmt.Errorf("ask for a certificate: %w", err)
		}
		chain, _, err = client.CreateOrderCert(ctx, order.FinalizeURL, request, true)
		if said := (*acme.Error)(nil); errors.As(err, &said) {
			return nil, err
		}
	}
	if chain == nil { // not only if it was asked for before: the library waits at a URL that the answer need not have
		if order, err = client.WaitOrder(ctx, a.url); err != nil {
			return nil, err
		}
		if order.Status != acme.StatusValid {
			return nil, fmt.Errorf("the order is %s after the certificate was asked for", order.Status)
		}
		if chain, err = client.FetchCert(ctx, order.CertURL, true); err != nil {
			return nil, err
		}
	}
	var text bytes.Buffer
	for _, der := range chain {
		_ = pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // it never fails
	}
	pair, err := tls.X509KeyPair(text.Bytes(), a.key)
	if err == nil {
		err = pair.Leaf.VerifyHostname(a.host)
	}
	if err != nil {
		return nil, fmt.Errorf("the authority has made another certificate than it was asked for: %w", err)
	}
	return text.Bytes(), nil
}
