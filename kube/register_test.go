package kube

import (
	"encoding/json"
	"reflect"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/model"
)

func TestConvertEntry(t *testing.T) {
	const fields = `metadata:
  namespace: shop
  name: web
  uid: u
  managedFields:
  - {manager: kubectl, operation: Update, time: "2026-01-03T00:00:00Z"}
`
	for name, test := range map[string]struct {
		object string
		want   Entry
	}{
		"nothing": {fields, Entry{UID: "u"}},
		"ours": {fields + `  - {manager: fairlead-gateway, operation: Apply, subresource: status, time: "2026-01-02T00:00:00Z"}
status: {loadBalancer: {ingress: [{ip: 192.0.2.1}, {hostname: lb.example.org}]}}`, Entry{UID: "u", Ours: true, Addresses: []string{"192.0.2.1", "lb.example.org"}}},
		"another's": {fields + `  - {manager: older, operation: Update, subresource: status, time: "2026-01-01T00:00:00Z"}
  - {manager: nginx-ingress-controller, operation: Update, subresource: status, time: "2026-01-02T00:00:00Z"}
status: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}}`, Entry{UID: "u", Addresses: []string{"192.0.2.1"}, Writer: "nginx-ingress-controller"}},
	} {
		got := convertEntry(fromYAML[networkingv1.Ingress](t, test.object))
		if !reflect.DeepEqual(*got.value, test.want) || got.key != (model.IngressKey{Namespace: "shop", Name: "web"}) {
			t.Errorf("%s: %+v, want %+v", name, *got.value, test.want)
		}
	}
}

func TestConvertLoadBalancer(t *testing.T) {
	const object = "metadata: {namespace: kube-system, name: outside}\nspec: {type: LoadBalancer}\nstatus: {loadBalancer: {ingress: [{ip: 192.0.2.1, ipMode: Proxy}, {hostname: lb.example.org}]}}"
	got := convertLoadBalancer(fromYAML[corev1.Service](t, object))
	if got.absent || !reflect.DeepEqual(got.value.Addresses, []string{"192.0.2.1", "lb.example.org"}) {
		t.Errorf("got %+v", got)
	}
	if got := convertLoadBalancer(fromYAML[corev1.Service](t, strings.Replace(object, "type: LoadBalancer", "type: NodePort", 1))); !got.absent {
		t.Error("one of another type has some as well")
	}
}

// TestPublish: addresses are applied to the status alone, by a name that the API
// server keeps; none are applied as nothing. What is gone is not missed.
func TestPublish(t *testing.T) {
	api := newStub(t)
	const path = "/apis/networking.k8s.io/v1/namespaces/shop/ingresses"
	api.put(path, `{"kind": "Ingress", "apiVersion": "networking.k8s.io/v1", "metadata": {"namespace": "shop", "name": "web", "uid": "u"}}`)
	register := api.client(Options{}).GatewayRegister("kube-system", "one", func(err error) { t.Error(err) })
	key := model.IngressKey{Namespace: "shop", Name: "web"}
	for _, addresses := range [][]string{{"192.0.2.1", "2001:db8::1", "lb.example.org"}, nil} {
		if err := register.Publish(t.Context(), key, "u", addresses); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		`fieldManager=fairlead-gateway&force=true {"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"name":"web","namespace":"shop","uid":"u"},"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.1"},{"ip":"2001:db8::1"},{"hostname":"lb.example.org"}]}}}`,
		`fieldManager=fairlead-gateway&force=true {"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"name":"web","namespace":"shop","uid":"u"}}`,
	}
	if !reflect.DeepEqual(api.patches, want) {
		t.Errorf("patches are\n%s\nwant\n%s", strings.Join(api.patches, "\n"), strings.Join(want, "\n"))
	}
	if n := api.count("PATCH " + path + "/web/status"); n != 2 {
		t.Errorf("%d of the status", n)
	}
	api.forbid("409 "+path+"/web/status", true)
	if err := register.Publish(t.Context(), key, "u", nil); err == nil || !IsOfObject(err) {
		t.Errorf("of one that is another by now: %v", err)
	}
	key.Name = "gone"
	if err := register.Publish(t.Context(), key, "u", nil); err != nil {
		t.Errorf("of what is gone: %v", err)
	}
}

// TestWithdraw: only what gateways have written is taken away.
func TestWithdraw(t *testing.T) {
	api := newStub(t)
	for _, o := range []struct{ name, manager string }{{"ours", "fairlead-gateway"}, {"theirs", "other"}} {
		object := `{"kind": "Ingress", "apiVersion": "networking.k8s.io/v1", "metadata": {"namespace": "shop", "name": "` + o.name + `", "uid": "u",
			"managedFields": [{"manager": "` + o.manager + `", "operation": "Apply", "subresource": "status", "time": "2026-01-02T00:00:00Z"}]}}`
		api.put(ingressesPath, object)
		api.put("/apis/networking.k8s.io/v1/namespaces/shop/ingresses", object)
	}
	if err := api.client(Options{}).WithdrawIngresses(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(api.patches) != 1 || !strings.Contains(api.patches[0], `"name":"ours"`) {
		t.Errorf("patches are %q", api.patches)
	}
}

// TestFollow: the register knows Ingresses, load balancers and nodes, as they become.
func TestFollow(t *testing.T) {
	api := newStub(t)
	api.put(nodesPath, stubNode("a", `"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "ExternalIP", "address": "198.51.100.1"}]}`))
	api.put(ingressesPath, `{"kind": "Ingress", "apiVersion": "networking.k8s.io/v1", "metadata": {"namespace": "shop", "name": "web", "uid": "u"}}`)
	register := api.client(Options{}).GatewayRegister("kube-system", "one", func(err error) { t.Error(err) })
	feed := &model.Feed{} // to wait by
	var mu sync.Mutex
	var entries Entries
	synced := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = register.Follow(t.Context(), func(edit func(*Entries)) {
			mu.Lock()
			defer mu.Unlock()
			edit(&entries)
			feed.Edit(func(s *model.Snapshot) { s.Nodes = s.Nodes.With("edited", &model.Node{}) })
		}, func() { close(synced) })
	}()
	t.Cleanup(func() { <-done })
	api.put("/api/v1/namespaces/kube-system/services", `{"kind": "Service", "apiVersion": "v1", "metadata": {"namespace": "kube-system", "name": "outside"},
		"spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}}`)
	until(t, feed, "all of it", func(*model.Snapshot) bool {
		mu.Lock()
		defer mu.Unlock()
		node, _ := entries.Nodes.Get("a")
		_, known := entries.Ingresses.Get(model.IngressKey{Namespace: "shop", Name: "web"})
		return node != nil && len(node.External) == 1 && known && entries.LoadBalancers.Len() == 1
	})
	<-synced
}

func TestConvertIngressOptions(t *testing.T) {
	for name, test := range map[string]struct {
		spec  string
		want  model.IngressOptions
		wrong int
	}{
		"nothing": {spec: `{}`},
		"all": {spec: `{nginxCompatible: true, http3: true, publishAddresses: [192.0.2.1, "2001:DB8::1", GW.example.org, "::ffff:192.0.2.1"]}`,
			want: model.IngressOptions{NginxCompatible: true, HTTP3: true, PublishAddresses: []string{"192.0.2.1", "2001:db8::1", "gw.example.org"}}},
		"acme": {spec: `{acme: {termsOfServiceAgreed: true, email: a@example.org, externalAccount: {keyID: kid, secretName: external}}}`,
			want: model.IngressOptions{ACME: model.ACMEOptions{Server: model.LetsEncrypt, Email: "a@example.org", KeyID: "kid", KeySecret: "external"}}},
		"addresses that are none": {spec: `{publishAddresses: [192.0.2.300, 192.0.2.0/24, "fe80::1%eth0", a_b, "", 192.0.2.1]}`,
			want: model.IngressOptions{PublishAddresses: []string{"192.0.2.1"}}, wrong: 5},
	} {
		got := convertNetwork(fromYAML[v1alpha1.Network](t, "metadata: {name: default}\nspec: {ingress: "+test.spec+"}"))
		if !reflect.DeepEqual(got.value.Ingress, test.want) || len(got.problems) != test.wrong {
			t.Errorf("%s: %+v, want %+v, and %v", name, got.value.Ingress, test.want, got.problems)
		}
		for _, problem := range got.problems {
			if problem.Field != "spec.ingress.publishAddresses" || problem.Remedy == "" {
				t.Errorf("%s: %v", name, problem)
			}
		}
	}
}

// TestConvertACME: nobody is asked for certificates if anything of it is wrong.
func TestConvertACME(t *testing.T) {
	for spec, field := range map[string]string{
		`{}`: "termsOfServiceAgreed",
		`{termsOfServiceAgreed: true, server: "http://ca.example/dir"}`: "server",
		`{termsOfServiceAgreed: true, server: "ca.example"}`:            "server",
		`{termsOfServiceAgreed: true, caBundle: none}`:                  "caBundle",
		`{termsOfServiceAgreed: true, externalAccount: {keyID: a}}`:     "externalAccount",
	} {
		got := convertNetwork(fromYAML[v1alpha1.Network](t, "metadata: {name: default}\nspec: {ingress: {nginxCompatible: true, acme: "+spec+"}}"))
		if len(got.problems) != 1 || got.problems[0].Field != "spec.ingress.acme."+field || got.value.Ingress.ACME != (model.ACMEOptions{}) || !got.value.Ingress.NginxCompatible {
			t.Errorf("%s: %+v, %v", spec, got.value.Ingress, got.problems)
		}
	}
	options := model.ACMEOptions{Server: "https://ca.example/dir", Email: "a@example.org", KeyID: "kid", KeySecret: "external"}
	network := model.DefaultNetwork()
	network.Ingress.ACME = options
	text, err := json.Marshal(networkObjectOf(network))
	if err != nil {
		t.Fatal(err)
	}
	if got := convertNetwork(fromYAML[v1alpha1.Network](t, string(text))); got.value.Ingress.ACME != options {
		t.Errorf("read again it is %+v", got.value.Ingress.ACME)
	}
}

// TestOrderedSecrets: they are made with the type that fits, and replaced as they are now.
func TestOrderedSecrets(t *testing.T) {
	api := newStub(t)
	register := api.client(Options{}).GatewayRegister("kube-system", "one", func(err error) { t.Error(err) })
	for _, key := range []string{"tls.crt", "token"} {
		secret := &model.Secret{SecretKey: model.SecretKey{Namespace: model.CertificateNamespace, Name: "of-" + strings.ReplaceAll(key, ".", "-")}, Content: map[string][]byte{key: []byte("one")}}
		if got, err := register.ReadSecret(t.Context(), secret.SecretKey); got != nil || err != nil {
			t.Errorf("before there is one: %v, %v", got, err)
		}
		for _, content := range []string{"one", "two"} {
			secret.Content = map[string][]byte{key: []byte(content)}
			if err := register.WriteSecret(t.Context(), secret); err != nil {
				t.Fatal(err)
			}
			if got, err := register.ReadSecret(t.Context(), secret.SecretKey); err != nil || !got.Equal(secret) {
				t.Errorf("got %v, %v", got, err)
			}
		}
		want := map[string]string{"tls.crt": "kubernetes.io/tls", "token": "Opaque"}[key]
		if is := api.objects["/api/v1/namespaces/fairlead-certificates/secrets/"+secret.Name]["type"]; is != want {
			t.Errorf("%s is of type %v", key, is)
		}
	}
	if err := register.DeleteSecret(t.Context(), model.SecretKey{Namespace: model.CertificateNamespace, Name: "gone"}); err != nil {
		t.Error(err)
	}
	api.forbidden["/api/v1/namespaces/fairlead-certificates/secrets"] = true
	if err := register.WriteSecret(t.Context(), &model.Secret{SecretKey: model.SecretKey{Namespace: model.CertificateNamespace, Name: "new"}}); !IsOfObject(err) {
		t.Errorf("who may not write is told %v", err)
	}
}
