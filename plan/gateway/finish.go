package gateway

import "fmt"

// finish makes the Policy of what annotations say together.
func (s *settings) finish(d *draft) {
	s.RedirectHTTPS = !s.noRedirect
	if s.Allow == nil {
		s.Allow = s.oldAllow
	}
	if s.Limits.Exempt == nil {
		s.Limits.Exempt = s.oldExempt
	}
	s.finishRedirect()
	s.finishAuth(d)
	s.finishTLS(d)
	if s.corsOn {
		s.CORS = &s.cors
	}
	if s.affinity != "" {
		s.Affinity = &s.cookie
	}
	if s.mirror.To != nil {
		s.Mirror = &s.mirror
	}
	s.finishCheck(d)
	if s.RedirectTo == nil {
		s.RedirectFrom = nil
	}
	if s.errorService != "" {
		s.ErrorBackend = &Backend{Service: serviceKey(d.ingress.Namespace, s.errorService)}
	}
}

// guards tells whether not all may call.
func (p *Policy) guards() bool {
	return p.Closed != "" || len(p.Allow)+len(p.Deny) > 0 || p.BasicAuth != nil || p.ExternalAuth != nil || p.ClientCert != nil
}

// finishRedirect: of several, the temporal one comes first, and what a snippet says
// last.
func (s *settings) finishRedirect() {
	switch {
	case s.temporal != nil:
		s.Redirect = &Redirect{To: s.temporal, Code: s.temporalCode}
	case s.permanent != nil:
		s.Redirect = &Redirect{To: s.permanent, Code: s.permanentCode}
	}
}

// secret is the one that an annotation names; what protects closes the Ingress
// without it.
func (s *settings) secret(d *draft, key, text string) SecretKey {
	named, err := secretOf(d.ingress.Namespace, text)
	if err != nil {
		s.close(d, key, err.Error())
	}
	return named
}

func (s *settings) close(d *draft, key, why string) {
	s.Closed = fmt.Sprintf("annotation %s%s: %s", prefix, key, why)
	d.annotated(prefix+key, "NotHonoured", why, "correct the annotation; until then all requests to the Ingress are answered with 503, since it protects")
}

func (s *settings) finishAuth(d *draft) {
	switch {
	case s.basicType != "" && s.basicSecret == "":
		s.close(d, "auth-type", "there is no auth-secret with the users")
	case s.basicType != "":
		s.BasicAuth = &BasicAuth{Secret: s.secret(d, "auth-secret", s.basicSecret), ByKey: s.basicSecretType == "auth-map", Realm: s.basicRealm}
	}
	if s.auth.URL != nil {
		s.ExternalAuth = &s.auth
	}
}

func (s *settings) finishTLS(d *draft) {
	if s.clientSecret != "" && s.client.Verify != "off" {
		s.client.CA = s.secret(d, "auth-tls-secret", s.clientSecret)
		s.ClientCert = &s.client
	}
	if s.Protocol != HTTPS && s.Protocol != GRPCS {
		return
	}
	if s.tlsSecret != "" {
		s.tls.Secret = s.secret(d, "proxy-ssl-secret", s.tlsSecret)
	} else if s.tls.Verify {
		s.close(d, "proxy-ssl-verify", "there is no proxy-ssl-secret with a ca.crt to verify backends by")
	}
	s.BackendTLS = &s.tls
}
