package kube

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

const secretsPath = "/api/v1/secrets"

func stubSecret(name, kind, content string) string {
	return fmt.Sprintf(`{"kind": "Secret", "apiVersion": "v1", "metadata": {"namespace": "shop", "name": %q}, "type": %q, "data": {"key": %q}}`,
		name, kind, base64.StdEncoding.EncodeToString([]byte(content)))
}

// putSecret has a Secret in the list of all and at its own path.
func (s *stub) putSecret(name, kind, content string) {
	s.t.Helper()
	s.putBoth("shop", name, stubSecret(name, kind, content))
}

// putBoth has it at its own path before the watch tells of it.
func (s *stub) putBoth(namespace, name, text string) {
	s.t.Helper()
	object := map[string]any{}
	if err := json.Unmarshal([]byte(text), &object); err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects["/api/v1/namespaces/"+namespace+"/secrets/"+name] = object
	s.store(secretsPath, object)
}

func (s *stub) removeSecret(name string) {
	s.mu.Lock()
	delete(s.objects, "/api/v1/namespaces/shop/secrets/"+name)
	s.mu.Unlock()
	s.remove(secretsPath + "/" + name)
}

func naming(names ...string) (named model.Map[model.SecretKey, int]) {
	for _, name := range names {
		named = named.With(model.SecretKey{Namespace: "shop", Name: name}, 1)
	}
	return named
}

// followSecrets runs a source until the test ends.
func followSecrets(t *testing.T, api *stub) *GatewaySource {
	t.Helper()
	source := api.client(Options{}).GatewaySource()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = source.Run(ctx, &model.Feed{}) }()
	t.Cleanup(func() { cancel(); <-done })
	return source
}

// has waits until the Secrets are these, as NAME=CONTENT, and none is waited for.
func has(t *testing.T, source *GatewaySource, want string) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		known, waiting, changed := source.Secrets()
		var all []string
		for _, name := range []string{"pair", "users", "other", "token"} {
			if secret, ok := known.Get(model.SecretKey{Namespace: "shop", Name: name}); ok {
				all = append(all, name+"="+string(secret.Content["key"]))
			}
		}
		if got := strings.Join(all, " "); got == want && !waiting {
			return
		} else {
			select {
			case <-changed:
			case <-timeout:
				t.Fatalf("the Secrets are %q, waiting %v, want %q", got, waiting, want)
			}
		}
	}
}

// TestNamedSecrets: those that are named are read and followed; nobody has asked for the
// others, nor for what they have.
func TestNamedSecrets(t *testing.T) {
	api := newStub(t)
	api.putSecret("pair", "kubernetes.io/tls", "one")
	api.putSecret("other", "Opaque", "not yours")
	api.putSecret("token", "kubernetes.io/service-account-token", "not yours either")
	source := followSecrets(t, api)
	<-source.Synced()
	has(t, source, "")
	source.Name(naming("pair", "users", "token"))
	has(t, source, "pair=one")
	if problems := source.Problems(); len(problems) != 1 || problems[0].Name != "token" || problems[0].Reason != "NotUsable" {
		t.Errorf("Problems are %v", problems)
	}
	api.putSecret("pair", "kubernetes.io/tls", "two")
	has(t, source, "pair=two")
	api.putSecret("users", "Opaque", "ann")
	has(t, source, "pair=two users=ann")
	api.removeSecret("pair")
	has(t, source, "users=ann")
	source.Name(naming("users"))
	has(t, source, "users=ann")
	if problems := source.Problems(); len(problems) != 0 {
		t.Errorf("Problems are %v", problems)
	}
	source.Name(naming())
	has(t, source, "")
	api.mu.Lock()
	defer api.mu.Unlock()
	for _, made := range api.requests {
		if strings.HasSuffix(made, "/secrets/other") {
			t.Errorf("there was a request %s", made)
		}
	}
	if api.sent > 0 {
		t.Errorf("%d Secrets came with what they have though nobody named them", api.sent)
	}
}

// TestSecretsAtOnce: many are listed, not asked for one by one, and what is not there
// is known not to be.
func TestSecretsAtOnce(t *testing.T) {
	api := newStub(t)
	api.putSecret("pair", "kubernetes.io/tls", "one")
	api.putSecret("other", "Opaque", "not yours")
	source := followSecrets(t, api)
	named := naming("pair", "users")
	for i := range mostSecretReads {
		named = named.With(model.SecretKey{Namespace: "shop", Name: fmt.Sprint("missing", i)}, 1)
	}
	<-source.Synced()
	source.Name(named)
	has(t, source, "pair=one")
	if n := api.count("GET /api/v1/namespaces/shop/secrets/pair"); n != 0 {
		t.Errorf("it was asked for %d times", n)
	}
	api.putSecret("users", "Opaque", "ann")
	has(t, source, "pair=one users=ann")
}

// TestSecretsNamedMeanwhile: those that are named while all are listed may have been
// passed over, or have changed since: the list says nothing of them.
func TestSecretsNamedMeanwhile(t *testing.T) {
	api := newStub(t)
	api.putSecret("pair", "kubernetes.io/tls", "one")
	s := newSecrets(api.client(Options{}), newProblems())
	s.name(naming("pair", "users"))
	api.answered = func(*http.Request) {
		s.name(naming("users"))
		api.putSecret("pair", "kubernetes.io/tls", "two")
		api.putSecret("other", "Opaque", "bob")
		s.name(naming("pair", "users", "other"))
	}
	if err := s.readAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"users": true, "pair": false, "other": false} {
		if got := s.states[model.SecretKey{Namespace: "shop", Name: name}].answered; got != want {
			t.Errorf("%s is answered: %v", name, got)
		}
	}
	if s.known.Len() != 0 || s.waiting != 2 {
		t.Errorf("%d are known, %d waited for", s.known.Len(), s.waiting)
	}
	api.answered = nil
	if err := s.readAll(t.Context()); err != nil || s.known.Len() != 2 || s.waiting != 0 {
		t.Errorf("%d are known, %d waited for: %v", s.known.Len(), s.waiting, err)
	}
	listed := api.count("GET " + secretsPath)
	if err := s.readAll(t.Context()); err != nil || api.count("GET "+secretsPath) != listed {
		t.Errorf("all are listed for nobody: %v", err)
	}
}

// TestSecretForbidden: what may not be read is a Problem that says so, the others are
// read, and what was known stays.
func TestSecretForbidden(t *testing.T) {
	api := newStub(t)
	api.putSecret("pair", "kubernetes.io/tls", "one")
	api.putSecret("users", "Opaque", "ann")
	const users = "/api/v1/namespaces/shop/secrets/users"
	api.forbid(users, true)
	source := followSecrets(t, api)
	source.Name(naming("pair", "users"))
	has(t, source, "pair=one")
	problems := source.Problems()
	if len(problems) != 1 || problems[0].Object() != "Secret/shop/users" || problems[0].Reason != "NotRead" || !strings.Contains(problems[0].Remedy, "ClusterRole") {
		t.Errorf("Problems are %v", problems)
	}
	api.forbid(users, false)
	has(t, source, "pair=one users=ann")
	api.forbid("/api/v1/namespaces/shop/secrets/pair", true)
	api.putSecret("pair", "kubernetes.io/tls", "two")
	for changed := source.Changed(); len(source.Problems()) == 0; changed = source.Changed() {
		<-changed
	}
	has(t, source, "pair=one users=ann")
	api.forbid("/api/v1/namespaces/shop/secrets/pair", false)
	has(t, source, "pair=two users=ann")
}

// TestSecretsOfCertificates: those that gateways write themselves are followed, named
// or not.
func TestSecretsOfCertificates(t *testing.T) {
	api := newStub(t)
	key := model.CertificateOf("www.example.org")
	write := func(content string) {
		text := strings.Replace(stubSecret(key.Name, "Opaque", content), `"shop"`, strconv.Quote(key.Namespace), 1)
		api.putBoth(key.Namespace, key.Name, text)
	}
	write("first")
	source := followSecrets(t, api)
	<-source.Synced()
	is := func(want string) {
		t.Helper()
		timeout := time.After(10 * time.Second)
		for {
			known, waiting, changed := source.Secrets()
			got := ""
			if secret, ok := known.Get(key); ok {
				got = string(secret.Content["key"])
			}
			if got == want && !waiting {
				return
			}
			select {
			case <-changed:
			case <-timeout:
				t.Fatalf("it is %q, want %q", got, want)
			}
		}
	}
	is("first")
	source.Name(naming("other").With(key, 1))
	source.Name(naming())
	is("first")
	write("second")
	is("second")
	api.mu.Lock()
	delete(api.objects, "/api/v1/namespaces/"+key.Namespace+"/secrets/"+key.Name)
	api.mu.Unlock()
	api.remove(secretsPath + "/" + key.Name)
	is("")
	write("third")
	is("third")
}
