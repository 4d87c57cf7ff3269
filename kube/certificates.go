package kube

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-net/fairlead/model"
)

// ReadSecret reads one as it is now; nil: there is none.
func (r *GatewayRegister) ReadSecret(ctx context.Context, key model.SecretKey) (*model.Secret, error) {
	object, err := r.client.core.Secrets(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
	if IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading Secret %s: %w", key, err)
	}
	return &model.Secret{SecretKey: key, Content: object.Data}, nil
}

// WriteSecret makes a Secret, or replaces what it has. One with a certificate is of the
// type that those have. If another writes it at the same time, it is an error.
func (r *GatewayRegister) WriteSecret(ctx context.Context, secret *model.Secret) error {
	client := r.client.core.Secrets(secret.Namespace)
	object, err := client.Get(ctx, secret.Name, metav1.GetOptions{})
	if err == nil {
		object.Data = secret.Content
		_, err = client.Update(ctx, object, metav1.UpdateOptions{})
	} else if IsNotFound(err) {
		object = &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: secret.Namespace, Name: secret.Name, Labels: map[string]string{"app.kubernetes.io/part-of": "fairlead"}},
			Type:       corev1.SecretTypeOpaque, Data: secret.Content,
		}
		if secret.Content[corev1.TLSCertKey] != nil {
			object.Type = corev1.SecretTypeTLS
		}
		_, err = client.Create(ctx, object, metav1.CreateOptions{})
	}
	if err != nil {
		return fmt.Errorf("writing Secret %s: %w", secret.SecretKey, err)
	}
	return nil
}

// DeleteSecret deletes one. One that is gone is not missed.
func (r *GatewayRegister) DeleteSecret(ctx context.Context, key model.SecretKey) error {
	if err := r.client.core.Secrets(key.Namespace).Delete(ctx, key.Name, metav1.DeleteOptions{}); err != nil && !IsNotFound(err) {
		return fmt.Errorf("deleting Secret %s: %w", key, err)
	}
	return nil
}

// errNoCertificate says that a Secret has none.
var errNoCertificate = errors.New("it has no certificate in tls.crt")

// Certificate reads the certificate of a Secret, the first in its tls.crt. Its error
// may be that the user must not, or, by IsNotFound, that there is no such Secret.
func (c *Client) Certificate(ctx context.Context, key model.SecretKey) (*x509.Certificate, error) {
	object, err := c.core.Secrets(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading Secret %s: %w", key, err)
	}
	block, _ := pem.Decode(object.Data[corev1.TLSCertKey])
	if block == nil {
		return nil, errNoCertificate
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, errNoCertificate
	}
	return certificate, nil
}
