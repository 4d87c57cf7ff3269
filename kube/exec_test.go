package kube

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestExecForbidden: that the user may not run commands in pods is told as such, although
// client-go has only words for it, those of SPDY, which is tried after WebSocket.
func TestExecForbidden(t *testing.T) {
	forbids := func(w http.ResponseWriter, verb string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":%q}`,
			fmt.Sprintf(`pods "agent-x" is forbidden: User "bob" cannot %s resource "pods/exec" in API group "" in the namespace "kube-system"`, verb))
	}
	for name, test := range map[string]struct {
		post      func(w http.ResponseWriter)
		forbidden bool
	}{
		"both": {func(w http.ResponseWriter) { forbids(w, "create") }, true},
		// As of one who may create pods/exec and not get it, before Kubernetes 1.35.
		"WebSocket alone": {func(w http.ResponseWriter) { http.Error(w, "the kubelet is away", http.StatusBadGateway) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					test.post(w)
				} else {
					forbids(w, "get")
				}
			}))
			defer server.Close()
			file := filepath.Join(t.TempDir(), "config")
			config := "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c}}], clusters: [{name: c, cluster: {server: " + server.URL + "}}]}"
			if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			client, err := Connect(Options{Kubeconfig: file})
			if err != nil {
				t.Fatal(err)
			}
			_, err = client.ExecAgent(t.Context(), "agent-x", nil, "/fairlead", "probe")
			if IsForbidden(err) != test.forbidden {
				t.Fatalf("got %v; that it is forbidden is %v", err, IsForbidden(err))
			}
			if why, right := Forbidden(err); test.forbidden && (right != "create pods/exec in namespace kube-system" || !strings.HasPrefix(why, `User "bob" cannot create`) || strings.Contains(why, "agent-x")) {
				t.Errorf("%q is lacking: %s", right, why)
			}
		})
	}
}
