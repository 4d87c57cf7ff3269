package cli

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/bench/apiserver"
)

const gatewayKubeconfig = `apiVersion: v1
kind: Config
current-context: test
contexts: [{name: test, context: {cluster: test, user: test}}]
clusters: [{name: test, cluster: {server: "https://%s", tls-server-name: %s, certificate-authority-data: %s}}]
users: [{name: test, user: {token: test}}]
`

// shopWith is an API server with one Ingress, for clients of 192.0.2.0/24 alone, whose
// Service has no endpoint. It returns a kubeconfig.
func shopWith(t *testing.T) string {
	t.Helper()
	api, err := apiserver.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.End)
	named := func(annotations map[string]string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: "shop", Name: "web", CreationTimestamp: metav1.NewTime(time.Unix(1_750_000_000, 0)), Annotations: annotations}
	}
	prefix, class := networkingv1.PathTypePrefix, "fairlead"
	ingress := &networkingv1.Ingress{ObjectMeta: named(map[string]string{
		"nginx.ingress.kubernetes.io/whitelist-source-range": "192.0.2.0/24", "nginx.ingress.kubernetes.io/ssl-redirect": "false",
	})}
	ingress.Spec.IngressClassName = &class
	ingress.Spec.Rules = []networkingv1.IngressRule{{Host: "shop.example.org", IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{
		{Path: "/", PathType: &prefix, Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}}}},
	}}}}}
	network := &v1alpha1.Network{TypeMeta: apiserver.TypeOf("Network"), ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.NetworkName}}
	network.Spec.Ingress.HTTP3 = true
	for path, object := range map[string]apiserver.Object{
		apiserver.Networks: network, apiserver.Ingresses: ingress,
		apiserver.Classes:  &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: class}, Spec: networkingv1.IngressClassSpec{Controller: "fairlead.io/ingress"}},
		apiserver.Services: &corev1.Service{ObjectMeta: named(nil), Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.9", Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}}}},
	} {
		if err := api.Put(path, object); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	content := fmt.Sprintf(gatewayKubeconfig, api.Address, apiserver.Name, base64.StdEncoding.EncodeToString(api.Authority))
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestTrustedProxies: fairlead gateway as it is started takes the word of trusted
// proxies on who asks, for who may, by all versions of HTTP; of others it takes none.
func TestTrustedProxies(t *testing.T) {
	kubeconfig := shopWith(t)
	const may, refused = 503, 403     // who may is told that nobody is there
	started := map[string][2]string{} // where a gateway serves, by whom it trusts
	for _, c := range []struct {
		trusted, says string
		want          int
	}{
		{"127.0.0.0/8", "192.0.2.7", may},
		{"127.0.0.0/8,198.51.100.0/24", "203.0.113.5, 192.0.2.7, 198.51.100.9", may},
		{"127.0.0.0/8", "192.0.2.7, 198.51.100.9", refused}, // the first one is only said by a stranger
		{"127.0.0.0/8", "", refused},
		{"10.0.0.0/8", "192.0.2.7", refused},
		{"", "192.0.2.7", refused},
	} {
		if _, is := started[c.trusted]; !is {
			plain, secure := startedGateway(t, kubeconfig, "--trusted-proxies="+c.trusted)
			started[c.trusted] = [2]string{plain, secure}
		}
		t.Run(c.trusted+" says "+c.says, func(t *testing.T) {
			plain, secure := started[c.trusted][0], started[c.trusted][1]
			with := &tls.Config{ServerName: "shop.example.org", InsecureSkipVerify: true}
			quic := &http3.Transport{TLSClientConfig: with.Clone()}
			t.Cleanup(func() { _ = quic.Close() })
			for name, by := range map[string]struct {
				transport http.RoundTripper
				url       string
				major     int
			}{
				"http":    {&http.Transport{}, "http://" + plain, 1},
				"https":   {&http.Transport{TLSClientConfig: with.Clone()}, "https://" + secure, 1},
				"https 2": {&http.Transport{TLSClientConfig: with.Clone(), ForceAttemptHTTP2: true}, "https://" + secure, 2},
				"https 3": {quic, "https://" + secure, 3},
			} {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, by.url, http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				r.Host = "shop.example.org"
				if c.says != "" {
					r.Header.Set("X-Forwarded-For", c.says)
				}
				response, err := (&http.Client{Transport: by.transport, Timeout: 10 * time.Second}).Do(r)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				_ = response.Body.Close()
				if by, is := by.transport.(*http.Transport); is {
					by.CloseIdleConnections() // for which the gateway would wait
				}
				if response.StatusCode != c.want || response.ProtoMajor != by.major {
					t.Errorf("%s: %s %s, want %d", name, response.Proto, response.Status, c.want)
				}
			}
		})
	}
}

// startedGateway runs fairlead gateway until the test ends, and returns where it serves.
func startedGateway(t *testing.T, kubeconfig string, args ...string) (plain, secure string) {
	t.Helper()
	free := func() string {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		return listener.Addr().String()
	}
	plain, secure = free(), free()
	health := free()
	command := root()
	command.SetOut(io.Discard)
	command.SetErr(io.Discard)
	command.SetArgs(append([]string{"gateway", "--kubeconfig", kubeconfig, "--http", plain, "--https", secure, "--health-address", health, "--linger", "1ms"}, args...))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- command.ExecuteContext(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	for until := time.Now().Add(20 * time.Second); time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
		response, err := http.Get("http://" + health + "/readyz")
		if err != nil {
			continue
		}
		_ = response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return plain, secure
		}
	}
	t.Fatal("the gateway is not ready")
	return "", ""
}
