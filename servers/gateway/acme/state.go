package acme

import (
	"crypto/tls"
	"maps"
	"strings"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/certificate"
)

// State is what the Secrets say of certificates that are ordered. It is immutable.
type State struct {
	certificate.State
	answers map[challenge]string
	secrets model.Map[model.SecretKey, *model.Secret]
}

// challenge is what an authority asks a host for.
type challenge struct{ host, token string }

// Answer is what an authority is answered that asks a host for a token; empty: it has
// not been told to.
func (s *State) Answer(host, token string) string { return s.answers[challenge{host, token}] }

// Asked tells whether there is anything that an authority may ask for.
func (s *State) Asked() bool { return len(s.answers) > 0 }

// Read reads Secrets, of which only those of model.CertificateNamespace matter. prev is
// the last State or nil: what a change costs follows the Secrets that have changed.
func Read(prev *State, secrets model.Map[model.SecretKey, *model.Secret]) *State {
	next := &State{secrets: secrets}
	if prev == nil {
		prev = &State{}
		next.copy(prev)
	} else if prev.secrets == secrets {
		return prev
	}
	for change := range model.Diff(prev.secrets, secrets) {
		if change.Key.Namespace != model.CertificateNamespace {
			continue
		}
		if next.Held == nil {
			next.copy(prev)
		}
		next.take(change.Old, false)
		next.take(change.New, true)
	}
	if next.Held == nil {
		next.State, next.answers = prev.State, prev.answers
	}
	return next
}

func (s *State) copy(prev *State) {
	s.Held, s.Attempts, s.answers = map[string]certificate.Held{}, map[string]certificate.Attempt{}, map[challenge]string{}
	maps.Copy(s.Held, prev.Held)
	maps.Copy(s.Attempts, prev.Attempts)
	maps.Copy(s.answers, prev.answers)
}

// take takes in what a Secret says, or takes it out. One that is not understood, or
// not of the host that its name says, says nothing.
func (s *State) take(secret *model.Secret, in bool) {
	if secret == nil {
		return
	}
	host := string(secret.Content[hostKey])
	switch {
	case strings.HasPrefix(secret.Name, model.CertificatePrefix) && secret.SecretKey == model.CertificateOf(host):
		if held, ok := heldIn(secret, host); ok && in {
			s.Held[host] = held
		} else {
			delete(s.Held, host)
		}
	case strings.HasPrefix(secret.Name, model.AttemptPrefix) && secret.SecretKey == model.AttemptOf(host):
		a := readAttempt(secret)
		if !in {
			delete(s.Attempts, host)
			delete(s.answers, challenge{host, a.token})
			return
		}
		s.Attempts[host] = a.Attempt
		if a.token != "" && a.answer != "" {
			s.answers[challenge{host, a.token}] = a.answer
		}
	}
}

// heldIn is the certificate of a Secret, if it is a pair and for the host.
func heldIn(secret *model.Secret, host string) (held certificate.Held, ok bool) {
	pair, err := tls.X509KeyPair(secret.Content[certificateKey], secret.Content[privateKey])
	if err != nil || pair.Leaf == nil || pair.Leaf.VerifyHostname(host) != nil {
		return held, false
	}
	return certificate.Held{Server: string(secret.Content[serverKey]), From: pair.Leaf.NotBefore, Until: pair.Leaf.NotAfter}, true
}
