package cli

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// resourceOf is where the path of a request names the resource.
var resourceOf = regexp.MustCompile(`^(?:/api/v1|/apis/[^/]+/[^/]+)?/(?:namespaces/[^/]+/)?([^/]+)`)

// forbidding is an API server of a cluster with two nodes and Fairlead, at which the user
// may do what allowed tells of, by verb and resource. It returns a kubeconfig.
func forbidding(t *testing.T, allowed func(right string) bool) string {
	answers := map[string]string{
		"version":      `{"gitVersion": "v1.36.0"}`,
		"nodes":        list("v1", "Node", `{"metadata": {"name": "n1"}, "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}], "conditions": [{"type": "Ready", "status": "True"}]}}`, `{"metadata": {"name": "n2"}, "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}], "conditions": [{"type": "Ready", "status": "True"}]}}`),
		"pods":         list("v1", "Pod", `{"metadata": {"name": "agent-1"}, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}}`, `{"metadata": {"name": "agent-2"}, "spec": {"nodeName": "n2"}, "status": {"phase": "Running"}}`),
		"networks":     list("fairlead.io/v1alpha1", "Network"),
		"nodenetworks": list("fairlead.io/v1alpha1", "NodeNetwork"),
		"daemonsets":   list("apps/v1", "DaemonSet"),
		"services":     list("v1", "Service"),
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		resource, verb := resourceOf.FindStringSubmatch(r.URL.Path)[1], map[string]string{http.MethodGet: "list", http.MethodPost: "create", http.MethodDelete: "delete"}[r.Method]
		if strings.HasSuffix(r.URL.Path, "/exec") {
			resource, verb = "pods/exec", map[string]string{"list": "get", "create": "create"}[verb]
		}
		w.Header().Set("Content-Type", "application/json")
		if text := answers[resource]; text != "" && allowed(verb+" "+resource) {
			fmt.Fprint(w, text)
			return
		}
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403, "message": %q}`,
			fmt.Sprintf(`%s "x" is forbidden: User "bob" cannot %s resource %q in API group "" at the cluster scope`, resource, verb, resource))
	}))
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "config")
	config := "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c}}], clusters: [{name: c, cluster: {server: " + server.URL + "}}]}"
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func list(version, kind string, items ...string) string {
	return fmt.Sprintf(`{"apiVersion": %q, "kind": "%sList", "metadata": {"resourceVersion": "1"}, "items": [%s]}`, version, kind, strings.Join(items, ", "))
}

// TestRights: who lacks a right is told which, and not to see whether the cluster or an
// agent runs.
func TestRights(t *testing.T) {
	nothing := forbidding(t, func(right string) bool { return right == "list version" })
	reading := forbidding(t, func(right string) bool { return !strings.HasPrefix(right, "create ") })
	for line, test := range map[string]struct {
		config string
		code   int
		right  string
	}{
		"status":                              {nothing, 2, "list nodes"},
		"status n1":                           {nothing, 2, "list nodes"},
		"check":                               {nothing, 2, "list nodes"},
		"drops":                               {nothing, 2, "list nodes"},
		"route --from a --to b":               {nothing, 2, "list nodes"},
		"preflight":                           {nothing, 2, "list nodes"},
		"debug bundle":                        {nothing, 1, "list nodes"},
		"service list":                        {nothing, 2, "list nodes"},
		"service show a":                      {nothing, 2, "list nodes"},
		"policy matrix":                       {nothing, 2, "list networks"},
		"ingress list":                        {nothing, 2, "list ingresses"},
		"uninstall":                           {nothing, 1, "delete "},
		"check --nodes n1":                    {reading, 2, "create pods/exec"},
		"check --nodes n1,n2":                 {reading, 2, "create pods/exec"},
		"drops --node n1":                     {reading, 2, "create pods/exec"},
		"route --from node/n1 --to 192.0.2.9": {reading, 2, "create pods/exec"},
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			text, code := program(t, "fairlead", append(strings.Fields(line), "--kubeconfig", test.config)...)
			if code != test.code || !strings.Contains(text, "have yourself allowed to "+test.right) || strings.Contains(text, "see whether") {
				t.Errorf("exit code %d; it wrote\n%s", code, text)
			}
			if strings.HasPrefix(line, "check --nodes") && (strings.Count(text, "next: ") != 1 || !strings.Contains(text, "no node could be checked")) {
				t.Errorf("it is not told once, or as if something had been checked:\n%s", text)
			}
		})
	}
}
