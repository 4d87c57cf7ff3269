package kube

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"net/url"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/model"
)

// acme reads who certificates are ordered from. If something of it is wrong, nobody
// is asked: another authority, or another account, is not what was meant.
func (r *networkReader) acme(spec *v1alpha1.ACME) {
	to := model.ACMEOptions{Server: cmp.Or(spec.Server, model.LetsEncrypt), Email: spec.Email, CABundle: spec.CABundle}
	if at, err := url.Parse(to.Server); err != nil || at.Scheme != "https" || at.Host == "" {
		r.wrong("spec.ingress.acme.server", fmt.Sprintf("%q is no URL of a directory, such as %s; no certificates are ordered", spec.Server, model.LetsEncrypt))
		return
	}
	if !spec.TermsOfServiceAgreed {
		r.wrong("spec.ingress.acme.termsOfServiceAgreed", "it is not true, and without an agreement the authority gives no certificates")
		return
	}
	if to.CABundle != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(to.CABundle)) {
		r.wrong("spec.ingress.acme.caBundle", "it has no certificate in PEM; no certificates are ordered")
		return
	}
	if account := spec.ExternalAccount; account != nil {
		if account.KeyID == "" || account.SecretName == "" {
			r.wrong("spec.ingress.acme.externalAccount", "it has to have keyID and secretName; no certificates are ordered")
			return
		}
		to.KeyID, to.KeySecret = account.KeyID, account.SecretName
	}
	r.network.Ingress.ACME = to
}

// ingressObjectOf is the inverse of reading spec.ingress.
func ingressObjectOf(o *model.IngressOptions) object {
	made := object{"nginxCompatible": o.NginxCompatible, "http3": o.HTTP3, "publishAddresses": o.PublishAddresses}
	if a := &o.ACME; a.Server != "" {
		acme := object{"termsOfServiceAgreed": true, "server": a.Server, "email": a.Email, "caBundle": a.CABundle}
		if a.KeyID != "" {
			acme["externalAccount"] = object{"keyID": a.KeyID, "secretName": a.KeySecret}
		}
		made["acme"] = acme
	}
	return made
}
